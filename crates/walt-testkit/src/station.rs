//! A machine on a server's network that the server did not start: a network namespace with a cable.

use crate::TestServer;
use std::ffi::OsStr;
use std::fs::File;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use walt_sys::net::in_netns;

/// Interface inside the namespace.
pub const INTERFACE: &str = "eth0";
/// How long a client may take; each also has limits of its own.
const CLIENT_LIMIT: Duration = Duration::from_secs(90);

/// A network namespace with a name (ip-netns(8)); dropping it removes it.
pub struct Netns(String);

impl Netns {
    /// Makes it; one of that name that a killed test has left is removed first.
    ///
    /// # Panics
    /// If it cannot be made (root is needed).
    pub fn make(name: String) -> Self {
        let netns = Self(name);
        netns.remove();
        ip(&format!("netns add {}", netns.0));
        ip(&format!("-n {} link set lo up", netns.0));
        netns
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    fn remove(&self) {
        // Absent is as good.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }

    /// A UDP socket inside, at an address like `0.0.0.0:68`.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn udp(&self, at: &str) -> UdpSocket {
        let netns = File::open(format!("/run/netns/{}", self.0)).expect("the namespace is there");
        let socket = in_netns(&netns, || Ok(UdpSocket::bind(at)));
        socket.expect("it can be entered").unwrap_or_else(|e| panic!("{at}: {e}"))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A station; dropping it unplugs and removes it.
pub struct Station {
    netns: Netns,
    cable: String,
    dir: PathBuf,
    mac: String,
}

impl Station {
    /// Plugs a station into a server's bridge: the interface is up and has no address. `number` tells it
    /// from others of the same server, and is the end of its Ethernet address `52:54:00:57:4c:…`.
    ///
    /// # Panics
    /// If it cannot be made (root is needed).
    pub fn plug(server: &TestServer, number: u8) -> Self {
        let cable = format!("{}v{number}", server.bridge());
        let dir = server.dir().join(format!("station-{number}"));
        std::fs::create_dir_all(&dir).expect("the slot can be written");
        // What a test that was killed has left in this slot.
        unplug(&cable);
        let netns = Netns::make(format!("{}-{number}", server.bridge()));
        let station = Self { netns, cable, dir, mac: format!("52:54:00:57:4c:{number:02x}") };
        ip(&format!(
            "link add {} type veth peer name {INTERFACE} netns {}",
            station.cable,
            station.netns.name()
        ));
        station.ip(&format!("link set {INTERFACE} address {} up", station.mac));
        ip(&format!("link set {} master {} up", station.cable, server.bridge()));
        station
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// The server's end of its cable.
    pub fn cable(&self) -> &str {
        &self.cable
    }

    /// A directory of its own, in that of the server.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Lets `ip` run inside.
    ///
    /// # Panics
    /// If it fails.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.netns.name()));
    }

    /// A program inside, bounded in time, without input.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &CLIENT_LIMIT.as_secs().to_string()]);
        command.args(["ip", "netns", "exec", self.netns.name(), program]).args(arguments);
        command.stdin(Stdio::null()).current_dir(&self.dir);
        command
    }

    /// Runs a program inside.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Output {
        let output = self.command(program, arguments).output();
        output.unwrap_or_else(|e| panic!("{program} cannot be started: {e}"))
    }

    /// As [`Netns::udp`].
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn udp(&self, at: &str) -> UdpSocket {
        self.netns.udp(at)
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        // At once: with its namespace it would go some time later.
        unplug(&self.cable);
    }
}

fn unplug(cable: &str) {
    // Absent is as good.
    let _ = Command::new("ip").args(["link", "del", cable]).stderr(Stdio::null()).status();
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip can be started");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
