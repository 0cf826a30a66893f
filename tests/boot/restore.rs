//! A backup of a running server is restored as another one, with another bridge, network and state directory: the same nodes
//! boot there.

use super::{MINI, SOON, USER, on, wait};
use std::process::Command;
use walt_testkit::{Options, TestServer};

/// Backs the server up while node `vn1` runs, and boots that node on a new server.
pub fn boots_elsewhere(mut server: TestServer) {
    on(&server, "vn1", "echo of-vn1 >/persist/kept; sync");
    let script = "echo changed >/etc/mark\n";
    let saved = server.walt_with_input(USER, &["image", "shell", "--save", "-y", MINI], script);
    assert_eq!(saved.status, Some(0), "{saved:?}");
    let mac = on(&server, "vn1", "cat /sys/class/net/*/address | grep -v ^00:00:00:00:00:00");
    let mut backup = server.server_command(&["backup", "-", "--persist"]);
    let tar = server.dir().join("backup.tar");
    let made = backup.stdout(std::fs::File::create(&tar).unwrap()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let mut other = TestServer::prepare(Options::default());
    let restored = restore(&other).stdin(std::fs::File::open(&tar).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert!(restored.status.success(), "{said}{}", String::from_utf8_lossy(&restored.stderr));
    assert!(said.contains("node vn1 has the address 10."), "{said}");
    // The same Ethernet addresses are not on two networks at once.
    server.down();
    other.launch().unwrap_or_else(|e| panic!("{e:?}"));
    wait(&other, "vn1");
    assert_eq!(on(&other, "vn1", "cat /persist/kept"), "of-vn1\n");
    assert_eq!(on(&other, "vn1", "cat /etc/mark"), "changed\n");
    assert_eq!(on(&other, "vn1", "cat /sys/class/net/*/address | grep -v ^00:00:00:00:00:00"), mac);
    let ip = on(&other, "vn1", "hostname -i || ip -4 addr");
    let net = other.address().octets();
    assert!(ip.contains(&format!("{}.{}.{}.", net[0], net[1], net[2])), "{ip}");
    let mut shell = other.terminal(USER, &["node", "shell", "vn1"]);
    shell.expect("# ", SOON);
    shell.line("exit");
    shell.end(SOON);
}

fn restore(server: &TestServer) -> Command {
    server.server_command(&["restore", "-"])
}
