//! busybox udhcpc, and what it was given.

use crate::ok;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use walt_testkit::Newcomer;

/// What udhcpc calls on each event: on `bound` it configures the interface and writes down what it was told.
const SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip address flush dev \"$interface\"
ip address add \"$ip/$mask\" dev \"$interface\" || exit 1
env > bound
";

/// What udhcpc was told: its variables by name.
pub struct Told(HashMap<String, String>);

impl Told {
    /// A variable; empty if it was not told.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.get("ip").parse().unwrap()
    }
}

/// Lets udhcpc get an address for a station.
pub fn udhcpc(station: &Newcomer, arguments: &[&str]) -> Told {
    let script = station.dir().join("script");
    std::fs::write(&script, SCRIPT).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _ = std::fs::remove_file(station.dir().join("bound"));
    let mut words = vec!["udhcpc", "-f", "-n", "-q", "-i", walt_testkit::newcomer::INTERFACE];
    words.extend(["-t", "10", "-T", "3", "-O", "search", "-O", "tftp", "-s", "./script"]);
    words.extend(arguments);
    ok(&station.run("busybox", &words));
    let told = std::fs::read_to_string(station.dir().join("bound")).unwrap();
    Told(told.lines().filter_map(|l| l.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect())
}

/// A machine that says it is a node, as iPXE does under our script.
pub fn register(station: &Newcomer) -> Told {
    udhcpc(station, &["-V", "walt.node.pc-x86-64", "-x", "hostname:apu.example.org"])
}
