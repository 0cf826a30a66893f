//! From inside a booted node: what it reaches on the server, and what its cable lets it pretend.

use super::{SOON, USER, on, wait};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;
use walt_testkit::{Netns, Station, TestServer, until};

const MINI: &str = "pc-x86-64-mini";
/// Sizes of the pings, in bytes, by which the listener tells them apart.
const OWN: usize = 100;
const FORGED_IP: usize = 101;
const FORGED_MAC: usize = 102;
const OWN_AGAIN: usize = 103;
/// Header of an ICMP echo, in bytes (RFC 792).
const ICMP_HEADER: usize = 8;
/// For a node to send four times two pings and to find its way back.
const FORGING: Duration = Duration::from_secs(120);

#[test]
fn a_node_reaches_the_listed_ports_and_is_who_it_is() {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    wait(&server, "vn1");
    sample_of_a_scan(&server);
    forged_addresses_do_not_pass(&server);
}

fn on_net(server: &TestServer, last: u8) -> Ipv4Addr {
    let number: u8 = server.bridge().trim_start_matches("wtest").parse().unwrap();
    Ipv4Addr::new(10, 210, number, last)
}

/// Listed ports answer; others of any address of the server do not.
fn sample_of_a_scan(server: &TestServer) {
    let decoy = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    decoy.set_nonblocking(true).unwrap();
    let hidden = decoy.local_addr().unwrap().port();
    let own = on_net(server, 1);
    let gateway = Ipv4Addr::new(10, 211, own.octets()[2], 1);
    let probe = |ip: Ipv4Addr, port: u16| {
        on(
            server,
            "vn1",
            &format!("nc -w 3 {ip} {port} </dev/null >/dev/null 2>&1 && echo open || echo closed"),
        )
    };
    // Those of the node link and of NFS wait for the client to speak: their end is the end of the input.
    for port in [2049, 12347] {
        assert_eq!(probe(own, port), "open\n", "{port}");
    }
    on(server, "vn1", &format!("ip route add default via {own} 2>/dev/null; true"));
    for (ip, port) in [(own, hidden), (own, 22), (gateway, hidden), (gateway, 2049), (gateway, 53)] {
        assert_eq!(probe(ip, port), "closed\n", "{ip}:{port}");
    }
    assert!(decoy.accept().is_err(), "the node's call arrived");
}

fn forged_addresses_do_not_pass(server: &TestServer) {
    let (listener, ip) = (Netns::new(), on_net(server, 200));
    listener.plug(None, &server.bridge(), None, Station { mac: None, ip, prefix: 24 });
    let ear = listener.inside(|| {
        let ear = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        ear.set_nonblocking(true).unwrap();
        ear
    });
    let forged = on_net(server, 201);
    let script = format!(
        "mac=$(cat /sys/class/net/eth0/address)\n\
         ping -c 2 -W 1 -s {OWN} {ip}\n\
         ip addr add {forged}/24 dev eth0\n\
         ping -c 2 -W 1 -s {FORGED_IP} -I {forged} {ip}\n\
         ip addr del {forged}/24 dev eth0\n\
         ip link set dev eth0 address 52:54:00:00:00:99\n\
         cat /sys/class/net/eth0/address\n\
         ping -c 2 -W 1 -s {FORGED_MAC} {ip}\n\
         ip link set dev eth0 address $mac\n\
         ping -c 2 -W 1 -s {OWN_AGAIN} {ip}\n\
         echo finished\n"
    );
    // The connection of this command does not survive what the script does.
    on(
        server,
        "vn1",
        &format!("printf '%s' '{script}' >/tmp/forge; (setsid sh /tmp/forge >/tmp/forged 2>&1 &)"),
    );
    let said = until("the node to have tried", FORGING, || {
        let ran = server.walt(USER, &["node", "run", "vn1", "cat /tmp/forged"]);
        (ran.status == Some(0) && ran.out.contains("finished")).then_some(ran.out)
    });
    assert!(said.contains("52:54:00:00:00:99"), "the node could not change its address: {said}");
    let mut heard = BTreeSet::new();
    until("the last pings to be heard", SOON, || {
        let mut bytes = [0; 256];
        while let Ok(len) = (&ear).read(&mut bytes) {
            let start = usize::from(bytes[0] & 0xf) * 4;
            heard.insert(len - start - ICMP_HEADER);
        }
        heard.contains(&OWN_AGAIN).then_some(())
    });
    assert_eq!(heard, BTreeSet::from([OWN, OWN_AGAIN]), "{said}");
}
