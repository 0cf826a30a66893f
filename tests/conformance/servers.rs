//! Several servers on one machine, and servers beside other programs.

use crate::has;
use crate::leases::udhcpc;
use std::net::UdpSocket;
use walt_testkit::{Netns, Newcomer, Options, TestServer};

fn talkative() -> TestServer {
    let wrapper = ["env", "WALT_LOG=debug"].map(str::to_owned).to_vec();
    TestServer::start_with(Options { wrapper, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"))
}

#[test]
fn two_servers_do_not_hear_each_other() {
    let (one, two) = (talkative(), talkative());
    let (at_one, at_two) = (Newcomer::plug(&one, 1), Newcomer::plug(&two, 2));
    for (server, station) in [(&one, &at_one), (&two, &at_two)] {
        let told = udhcpc(station, &[]);
        assert_eq!(told.get("serverid"), server.address().to_string());
        assert_eq!(told.ip().octets()[..3], server.address().octets()[..3]);
    }
    for (server, own, other) in [(&one, &at_one, &at_two), (&two, &at_two, &at_one)] {
        let log = server.log();
        assert!(log.contains(own.mac()) && !log.contains(other.mac()), "{log}");
    }
    // By a route the kernel would answer for any of its addresses.
    let (to, via) = (one.address().to_string(), two.address().to_string());
    at_two.netns().run(&["ip", "route", "add", &to, "via", &via]);
    let url = format!("tftp://{}/start.ipxe", one.address());
    let output = at_two.run("curl", &["-sS", "-m", "4", &url]);
    // curl(1): 28 is a timeout; an answer of the server would be 68.
    assert_eq!(output.status.code(), Some(28), "{output:?}");
    if has("dig", "bind9-dnsutils") {
        let output =
            at_two.run("dig", &[&format!("@{}", one.address()), "+time=2", "+tries=1", "server.walt"]);
        // dig(1): 9 is no answer.
        assert_eq!(output.status.code(), Some(9), "{output:?}");
    }
}

/// In a network namespace of its own, where ports can be held without disturbing other tests.
#[test]
fn ports_that_are_taken_are_warnings_with_their_holder() {
    let netns = Netns::new();
    netns.run(&["ip", "link", "set", "lo", "up"]);
    let ports = ["0.0.0.0:53", "0.0.0.0:67", "0.0.0.0:69"];
    let _held = netns.inside(|| ports.map(|at| UdpSocket::bind(at).unwrap()));
    let wrapper = netns.wrapper();
    let server =
        TestServer::start_with(Options { wrapper, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"));
    // All ports are taken before it answers, so that all is said by now.
    let log = server.log();
    let status = server.server_command(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for (service, port) in [("DNS for nodes", 53), ("DNS for containers", 53), ("DHCP", 67), ("TFTP", 69)] {
        let says = format!("{service} runs without udp: port {port} is held by ");
        let line = log.lines().find(|l| l.contains(&says)).unwrap_or_else(|| panic!("{says}: {log}"));
        assert!(line.contains(&format!("process {}", std::process::id())), "{line}");
        assert!(status.lines().any(|l| l.contains(service) && l.contains(&port.to_string())), "{status}");
    }
}
