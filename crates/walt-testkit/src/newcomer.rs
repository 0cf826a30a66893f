//! A machine on a server's network that the server did not start and does not know: it has no address yet.

use crate::{Netns, TestServer, netns::ip};
use std::ffi::OsStr;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Interface inside the namespace.
pub const INTERFACE: &str = "eth0";
/// How long a client may take; each also has limits of its own.
const CLIENT_LIMIT: Duration = Duration::from_secs(90);

/// Such a machine; dropping it unplugs and removes it.
pub struct Newcomer {
    netns: Netns,
    cable: String,
    dir: PathBuf,
    mac: String,
}

impl Newcomer {
    /// Plugs one into a server's bridge: the interface is up and has no address. `number` distinguishes it from
    /// others of the same server, and is the end of its Ethernet address `52:54:00:57:4c:…`.
    ///
    /// # Panics
    /// If it cannot be made (root is needed).
    pub fn plug(server: &TestServer, number: u8) -> Self {
        let cable = format!("{}v{number}", server.bridge());
        let dir = server.dir().join(format!("station-{number}"));
        std::fs::create_dir_all(&dir).expect("the slot can be written");
        // What a test that was killed has left in this slot.
        unplug(&cable);
        let netns = Netns::new();
        let mac = format!("52:54:00:57:4c:{number:02x}");
        let there = netns.path().display().to_string();
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", INTERFACE, "netns", &there]);
        netns.run(&["ip", "link", "set", "lo", "up"]);
        netns.run(&["ip", "link", "set", INTERFACE, "address", &mac, "up"]);
        ip(&["link", "set", &cable, "master", &server.bridge(), "up"]);
        Self { netns, cable, dir, mac }
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// A directory of its own, in that of the server.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A program inside, bounded in time, without input.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &CLIENT_LIMIT.as_secs().to_string()]);
        command.args(self.netns.wrapper()).arg(program).args(arguments);
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

    /// A UDP socket inside, at an address like `0.0.0.0:68`.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn udp(&self, at: &str) -> UdpSocket {
        self.netns.inside(|| UdpSocket::bind(at)).unwrap_or_else(|e| panic!("{at}: {e}"))
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // At once: with its namespace it would go some time later.
        unplug(&self.cable);
    }
}

fn unplug(cable: &str) {
    // Absent is as good.
    let _ = Command::new("ip").args(["link", "del", cable]).stderr(Stdio::null()).status();
}
