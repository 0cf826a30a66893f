//! Network namespaces that play other machines: attackers on walt-net, neighbours of the server.
//!
//! ```text
//! Netns::new()              a machine without cables
//! a.cable(&b, "x", "y")     a cable between two machines
//! a.plug(bridge, "x", …)    a cable from this machine to the bridge of a server
//! a.inside(|| …)            sockets that are made in it belong to it
//! ```
//! Dropping a namespace removes it with its cables.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers the namespaces and the cables of this process.
static UNIQUE: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name, as `ip netns` makes them.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

/// A station on walt-net.
#[derive(Debug, Clone, Copy)]
pub struct Station<'a> {
    /// Its Ethernet address; any if absent.
    pub mac: Option<&'a str>,
    /// Its IP address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
}

/// Name of an interface that nobody else has.
fn unique() -> String {
    format!("wx{:x}.{}", std::process::id(), UNIQUE.fetch_add(1, Ordering::Relaxed))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be run: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs ip(8), which must succeed; its output.
pub(crate) fn ip(words: &[&str]) -> String {
    run(Command::new("ip").args(words))
}

impl Netns {
    /// An empty one.
    ///
    /// # Panics
    /// If the kernel refuses (root is needed).
    #[allow(clippy::new_without_default, reason = "it changes the machine: not a value like another")]
    pub fn new() -> Self {
        let name = format!("walt-{}", unique());
        ip(&["netns", "add", &name]);
        Self { name }
    }

    /// A path by which it can be entered.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// What puts a program into it: the first words of a command line.
    pub fn wrapper(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.path().display())]
    }

    /// Runs a program in it, which must succeed; its output.
    ///
    /// # Panics
    /// If it fails, with what it says.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let wrapper = self.wrapper();
        run(Command::new(&wrapper[0]).args(&wrapper[1..]).args(words))
    }

    /// Calls `f` on a thread inside it: sockets that it makes belong to the namespace for good.
    ///
    /// # Panics
    /// If the namespace cannot be entered.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("a namespace that exists can be opened");
        walt_sys::net::in_netns(&file, || Ok(f())).expect("a namespace can be entered by root")
    }

    /// A cable to another machine, with an interface of these names at its ends; both are up.
    pub fn cable(&self, other: &Self, here: &str, there: &str) {
        let (a, b) = (unique(), unique());
        ip(&["link", "add", &a, "type", "veth", "peer", "name", &b]);
        for (end, netns, name) in [(&a, self, here), (&b, other, there)] {
            ip(&["link", "set", end, "netns", &netns.name]);
            netns.run(&["ip", "link", "set", end, "name", name, "up"]);
        }
    }

    /// A cable from this machine's `eth0` to a bridge, which is in the namespace `room` or in that of the test. The
    /// bridge's end gets the name `port`, if one is given.
    pub fn plug(&self, room: Option<&Self>, bridge: &str, port: Option<&str>, station: Station<'_>) {
        let (here, there) = (unique(), port.map_or_else(unique, str::to_owned));
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there]);
        ip(&["link", "set", &here, "netns", &self.name]);
        let at_bridge = |words: &[&str]| match room {
            Some(room) => room.run(&[&["ip"], words].concat()),
            None => ip(words),
        };
        if let Some(room) = room {
            ip(&["link", "set", &there, "netns", &room.name]);
        }
        at_bridge(&["link", "set", &there, "master", bridge, "up"]);
        self.run(&["ip", "link", "set", &here, "name", "eth0"]);
        self.identity(station);
    }

    /// Makes `eth0` this station, and only this one.
    pub fn identity(&self, station: Station<'_>) {
        self.run(&["ip", "link", "set", "eth0", "down"]);
        self.run(&["ip", "addr", "flush", "dev", "eth0"]);
        if let Some(mac) = station.mac {
            self.run(&["ip", "link", "set", "eth0", "address", mac]);
        }
        self.run(&["ip", "addr", "add", &format!("{}/{}", station.ip, station.prefix), "dev", "eth0"]);
        self.run(&["ip", "link", "set", "eth0", "up"]);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
        if !gone.as_ref().is_ok_and(|o| o.status.success()) {
            eprintln!("the namespace {} cannot be removed: {gone:?}", self.name);
        }
    }
}
