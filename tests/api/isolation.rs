//! Stations on walt-net that try to get what is not theirs: from the server, from nodes, through the server.
//!
//! The wirings are drawn in [`crate::room`].

use crate::nfs_call::Client;
use crate::room::{Node, OUTSIDE, Room, UPLINK, Wiring, room, with_machines, with_nodes};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;
use walt_testkit::{Netns, Options, Station, TestServer, scan, until};

const SOON: Duration = Duration::from_secs(60);
/// How long an answer that must not come is waited for.
const SILENCE: Duration = Duration::from_secs(2);
/// What SECURITY.md and `walt_core::firewall` list.
const LISTED_TCP: [u16; 5] = [53, 80, 111, 2049, 12347];
const LISTED_UDP: [u16; 5] = [53, 67, 69, 111, 12342];
/// What is refused with a reset, for programs of the existing system.
const REFUSED_TCP: u16 = 12345;
/// Of the listed ones, those that always listen.
const ALWAYS: [u16; 3] = [111, 2049, 12347];

/// A listener of the server's machine that nobody on walt-net may find.
struct Decoy {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Decoy {
    fn at(address: &str) -> Self {
        let tcp = TcpListener::bind((address, 0)).unwrap();
        let udp = UdpSocket::bind((address, 0)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        Self { tcp, udp }
    }

    fn ports(&self) -> [u16; 2] {
        [self.tcp.local_addr().unwrap().port(), self.udp.local_addr().unwrap().port()]
    }

    fn heard_nothing(&self) {
        let call = self.tcp.accept();
        assert!(matches!(&call, Err(e) if e.kind() == ErrorKind::WouldBlock), "{call:?}");
        let datagram = self.udp.recv_from(&mut [0; 64]);
        assert!(matches!(&datagram, Err(e) if e.kind() == ErrorKind::WouldBlock), "{datagram:?}");
    }
}

/// UDP ports on which anything in the room listens: local port of each line of `/proc/net/udp`, in hexadecimal.
fn udp_listeners(room: &Room) -> BTreeSet<u16> {
    let text = room.netns.run(&["cat", "/proc/net/udp", "/proc/net/udp6"]);
    let local =
        |line: &str| line.split_whitespace().nth(1)?.rsplit_once(':').map(|(_, port)| port.to_owned());
    text.lines().filter_map(local).filter_map(|port| u16::from_str_radix(&port, 16).ok()).collect()
}

/// Address and interface of everything that the room answers to.
fn addresses(room: &Room) -> Vec<(String, IpAddr)> {
    let links: Value = serde_json::from_str(&room.netns.run(&["ip", "-j", "addr"])).unwrap();
    let mut found: Vec<(String, IpAddr)> = Vec::new();
    for link in links.as_array().unwrap() {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let name = link["ifname"].as_str().unwrap().to_owned();
            found.push((name, address["local"].as_str().unwrap().parse().unwrap()));
        }
    }
    found
}

#[test]
fn only_the_listed_ports_answer() {
    listed_ports(Wiring::Ports);
}

#[test]
fn only_the_listed_ports_answer_to_the_cable() {
    listed_ports(Wiring::Cable);
}

fn listed_ports(wiring: Wiring) {
    let room = with_nodes(wiring);
    let (bridge, own) = (room.server.bridge(), room.address());
    assert_eq!(
        room.netns.run(&["cat", &format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6")]).trim(),
        "1"
    );
    let decoys = room.netns.inside(|| ["0.0.0.0", "::"].map(Decoy::at));
    let attacker_ip = room.on_net(200);
    let attacker = room.station(None, attacker_ip);
    // Whatever is not on its network, the attacker sends through the server's address.
    attacker.run(&["ip", "route", "add", "default", "via", &own.to_string()]);
    attacker.run(&["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]);
    let link: Value = serde_json::from_str(&room.netns.run(&["ip", "-j", "link", "show", &bridge])).unwrap();
    let bridge_mac = link[0]["address"].as_str().unwrap().to_owned();
    let link_local = link_local_of(&bridge_mac);
    attacker.run(&[
        "ip",
        "-6",
        "neigh",
        "add",
        &link_local.to_string(),
        "lladdr",
        &bridge_mac,
        "dev",
        "eth0",
    ]);
    attacker.run(&["ip", "-6", "addr", "add", "2001:db8:1::200/64", "dev", "eth0", "nodad"]);
    attacker.run(&["ip", "-6", "route", "add", "default", "via", &link_local.to_string(), "dev", "eth0"]);

    let mut targets: Vec<IpAddr> = addresses(&room).into_iter().map(|(_, ip)| ip).collect();
    let gateway = Ipv4Addr::new(10, 211, own.octets()[2], 1);
    targets.extend([IpAddr::V4(gateway), IpAddr::V6(link_local)]);
    targets.sort_unstable();
    targets.dedup();
    assert!(targets.contains(&own.into()) && targets.len() >= 6, "{targets:?}");
    let mut udp: BTreeSet<u16> = udp_listeners(&room);
    udp.extend(decoys.iter().flat_map(Decoy::ports));
    for target in targets {
        let (tcp_ports, udp_ports) = attacker.inside(|| {
            let to = scoped(target);
            let from = if target.is_ipv4() { attacker_ip.into() } else { "2001:db8:1::200".parse().unwrap() };
            (scan::tcp(from, to), scan::udp(to, &udp, SILENCE))
        });
        let answered: BTreeSet<u16> = tcp_ports.open.union(&tcp_ports.refused).copied().collect();
        if target == IpAddr::V4(own) {
            let listed = |port: &u16| LISTED_TCP.contains(port) || *port == REFUSED_TCP;
            assert!(answered.iter().all(listed), "{target}: {tcp_ports:?}");
            assert!(tcp_ports.refused.contains(&REFUSED_TCP), "old programs wait: {tcp_ports:?}");
            assert!(ALWAYS.iter().all(|p| tcp_ports.open.contains(p)), "the scan sees: {tcp_ports:?}");
            assert!(udp_ports.iter().all(|p| LISTED_UDP.contains(p)), "{target}: {udp_ports:?}");
        } else {
            assert!(answered.is_empty() && udp_ports.is_empty(), "{target}: {tcp_ports:?} {udp_ports:?}");
        }
    }
    decoys.iter().for_each(Decoy::heard_nothing);
    // Were the server's rules not there, the scan would have found more.
    room.netns.run(&["nft", "delete", "table", "inet", &format!("walt-{bridge}")]);
    let found = attacker.inside(|| scan::tcp(attacker_ip.into(), scoped(own.into())));
    assert!(found.open.contains(&decoys[0].ports()[0]) && found.refused.len() > 60_000, "the scan is blind");
}

/// The address that an interface gives itself (RFC 4291, appendix A).
fn link_local_of(mac: &str) -> std::net::Ipv6Addr {
    let m: Vec<u16> = mac.split(':').map(|b| u16::from_str_radix(b, 16).unwrap()).collect();
    std::net::Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (m[0] ^ 2) << 8 | m[1],
        m[2] << 8 | 0xff,
        0xfe00 | m[3],
        m[4] << 8 | m[5],
    )
}

/// An address as it is reached through `eth0`, the only interface of a station besides `lo`.
fn scoped(ip: IpAddr) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            let index = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap_or_default();
            let line = index.lines().find(|l| l.split_whitespace().nth(1) == Some("eth0"));
            let scope = line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0);
            SocketAddr::V6(SocketAddrV6::new(v6, 0, 0, scope))
        }
        ip => SocketAddr::new(ip, 0),
    }
}

/// A machine that is a node asks for what belongs to another one. It has the address of `vn1`, so it may have all
/// that is `vn1`'s, as SECURITY.md says, and nothing else.
#[test]
fn a_node_gets_its_own_things_only() {
    own_things(&with_nodes(Wiring::Ports), ["vn1", "vn2"]);
    own_things(&with_machines(), ["pc1", "pc2"]);
}

fn own_things(room: &Room, names: [&'static str; 2]) {
    let (first, second) = (room.node(names[0]), room.node(names[1]));
    let one = room.station(Some(&first.mac), first.ip);
    let two = room.station(Some(&second.mac), second.ip);
    let server = room.address();
    let connect = move || Client::connect(server, SOON);

    // What is the second one's own: it works for it.
    let theirs: Vec<Vec<u8>> = two.inside(|| {
        let mut client = connect();
        let handles = second.paths(names[1]).iter().map(|p| client.mount(p).unwrap()).collect::<Vec<_>>();
        handles.iter().for_each(|h| assert_eq!(client.getattr(h), 0));
        assert!(client.lookup(&handles[0], "secret") == 0, "it is the second image");
        handles
    });
    one.inside(|| {
        let mut client = connect();
        for path in second.paths(names[1]) {
            let refused = client.mount(&path);
            assert!(refused.is_err(), "{path} is another node's, and was mounted");
        }
        for odd in ["/", "/var/lib/walt/nodes", "/etc", "/var/lib/walt/nodes/vn1/fs/../../vn2/fs"] {
            assert!(client.mount(odd).is_err(), "{odd} was mounted");
        }
        for handle in &theirs {
            assert_ne!(client.getattr(handle), 0, "another node's handle was taken");
            assert_ne!(client.lookup(handle, "secret"), 0, "another node's handle was taken");
            assert_ne!(client.mkdir(handle, "mine"), 0, "another node's handle was taken");
        }
        for path in first.paths(names[0]) {
            let own = client.mount(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(client.getattr(&own), 0);
            for position in 0..own.len() {
                for bit in 0..8 {
                    let mut flipped = own.clone();
                    flipped[position] ^= 1 << bit;
                    assert_ne!(client.getattr(&flipped), 0, "bit {bit} of byte {position} does not count");
                }
            }
            for len in 0..own.len() {
                assert_ne!(client.getattr(&own[..len]), 0, "a handle of {len} bytes was taken");
            }
        }
        let text = format!("{:?}", client.exports());
        assert!(!text.contains(names[1]) && !text.contains(&second.mac), "{text}");
    });
}

/// A station that is nobody, or that takes the IP address of a node with its own Ethernet address.
#[test]
fn a_taken_ip_address_gets_nothing() {
    taken_address(Wiring::Ports);
    taken_address(Wiring::Cable);
}

fn taken_address(wiring: Wiring) {
    let room = with_nodes(wiring);
    let node = room.node("vn1");
    let free = room.on_net(200);
    let station = room.station(None, free);
    let server = room.address();
    station.inside(|| {
        let mut client = Client::connect(server, SOON);
        node.paths("vn1").iter().for_each(|p| assert!(client.mount(p).is_err(), "{p} was mounted by nobody"));
    });
    station.identity(Station { mac: None, ip: node.ip, prefix: 24 });
    station.run(&["busybox", "arping", "-c", "2", "-A", "-I", "eth0", &node.ip.to_string()]);
    let outcome = station.inside(|| TcpStream::connect_timeout(&(server, 2049).into(), SILENCE));
    assert!(matches!(&outcome, Err(e) if e.kind() == ErrorKind::TimedOut), "{outcome:?}");
    // It is not the cable: with an address that is nobody's, the server answers.
    station.identity(Station { mac: None, ip: free, prefix: 24 });
    station.inside(|| TcpStream::connect_timeout(&(server, 2049).into(), SOON)).unwrap();
}

/// What the rules of a virtual node's cable let pass, tried with a cable that has the name of its tap.
#[test]
fn a_virtual_node_cannot_forge_its_addresses() {
    let room = with_nodes(Wiring::Ports);
    let (node, other) = (room.node("vn1"), room.node("vn2"));
    let tap = tap_of(&room, &node.mac);
    // The command that makes a node does not wait for its start.
    until("the node's cable", SOON, || room.netns.run(&["ip", "-j", "link"]).contains(&tap).then_some(()));
    // The node's qemu ends with its cable: the station takes its place.
    room.netns.run(&["ip", "link", "set", &tap, "nomaster"]);
    room.netns.run(&["ip", "link", "set", &tap, "down"]);
    room.netns.run(&["ip", "link", "set", &tap, "name", "moved"]);
    let own = Station { mac: Some(&node.mac), ip: node.ip, prefix: 24 };
    let attacker = Netns::new();
    attacker.plug(Some(&room.netns), &room.server.bridge(), Some(&tap), own);
    readmit(&room, &tap, &node);
    let listener_ip = room.on_net(200);
    let listener = room.station(None, listener_ip);
    let socket = listener.inside(|| UdpSocket::bind((listener_ip, 0))).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let link: Value = serde_json::from_str(&listener.run(&["ip", "-j", "link", "show", "eth0"])).unwrap();
    let listener_mac = link[0]["address"].as_str().unwrap();
    let arrives = |station: Station<'_>| {
        attacker.identity(station);
        let who = listener_ip.to_string();
        attacker.run(&["ip", "neigh", "replace", &who, "lladdr", listener_mac, "dev", "eth0"]);
        // The kernel tells a bridge of a cable that is up within a second or so; until then nothing passes at all.
        until("the bridge's port to forward", SOON, || {
            let port = room.netns.run(&["ip", "-j", "-d", "link", "show", &tap]);
            port.contains("\"state\":\"forwarding\"").then_some(())
        });
        attacker.inside(|| {
            let from = UdpSocket::bind((station.ip, 0)).unwrap();
            from.send_to(b"hello", (listener_ip, port)).unwrap();
        });
        socket.recv_from(&mut [0; 16]).is_ok()
    };
    assert!(arrives(own), "the node's own addresses must pass");
    let free = room.on_net(201);
    assert!(!arrives(Station { ip: other.ip, ..own }), "another node's IP address");
    assert!(!arrives(Station { ip: free, ..own }), "nobody's IP address");
    assert!(!arrives(Station { mac: Some("52:54:00:00:00:99"), ..own }), "another Ethernet address");
    assert!(!arrives(Station { mac: Some(&other.mac), ip: other.ip, prefix: 24 }), "another node as a whole");
    assert!(arrives(own), "the cable still works");
}

/// The tap of a node, by the rules that are made for it.
fn tap_of(room: &Room, mac: &str) -> String {
    let table = format!("walt-{}", room.server.bridge());
    let set: Value =
        serde_json::from_str(&room.netns.run(&["nft", "-j", "list", "set", "bridge", &table, "stations"]))
            .unwrap();
    let text = set.to_string();
    let pair = text.split("\"concat\":[").find(|p| p.contains(mac)).unwrap_or_else(|| panic!("{text}"));
    pair.split('"').nth(1).unwrap().to_owned()
}

/// Rules name interfaces by their number once they are made: those of the new cable are made anew, as the server
/// does before it attaches a tap.
fn readmit(room: &Room, tap: &str, node: &Node) {
    let table = format!("walt-{}", room.server.bridge());
    for (set, element) in [
        ("taps", format!("\"{tap}\"")),
        ("stations", format!("\"{tap}\" . {}", node.mac)),
        ("addresses", format!("\"{tap}\" . {}", node.ip)),
    ] {
        room.netns.run(&["nft", &format!("add element bridge {table} {set} {{ {element} }}")]);
    }
}

/// Nodes are not connected to anything behind the server, nor is anything to them.
#[test]
fn nothing_is_forwarded() {
    forwarding(Wiring::Ports);
    forwarding(Wiring::Cable);
}

fn forwarding(wiring: Wiring) {
    let room = room(wiring, |_| ());
    let station = room.station(None, room.on_net(200));
    let own = room.address().to_string();
    station.run(&["ip", "route", "add", "default", "via", &own]);
    room.outside.run(&["ip", "route", "add", "10.0.0.0/8", "via", UPLINK]);
    assert_eq!(room.netns.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]).trim(), "1", "containers need it");
    let way = |from: &Netns, to: &Netns, address: &str| {
        let ear = to.inside(|| UdpSocket::bind((address, 0))).unwrap();
        ear.set_read_timeout(Some(SILENCE)).unwrap();
        from.inside(|| {
            let mouth = UdpSocket::bind("0.0.0.0:0").unwrap();
            // A send that fails (host unreachable) is a way that is closed, too.
            let _ = mouth.send_to(b"hello", ear.local_addr().unwrap());
        });
        ear.recv_from(&mut [0; 16]).is_ok()
    };
    let on_net = room.on_net(200).to_string();
    assert!(!way(&station, &room.outside, OUTSIDE), "a node reaches what is behind the server");
    assert!(!way(&room.outside, &station, &on_net), "a node is reached from behind the server");
    // It is the rules, not the routes.
    room.netns.run(&["nft", "delete", "table", "inet", &format!("walt-{}", room.server.bridge())]);
    assert!(way(&station, &room.outside, OUTSIDE) && way(&room.outside, &station, &on_net));
}

/// Two servers on one machine: the nodes of the one reach nothing of the other.
#[test]
fn two_servers_do_not_hear_each_other() {
    two_servers(Wiring::Ports);
    two_servers(Wiring::Cable);
}

fn two_servers(wiring: Wiring) {
    let room = with_nodes(wiring);
    let options = Options { wrapper: room.netns.wrapper(), ..Options::default() };
    let second = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let number: u8 = second.bridge().trim_start_matches("wtest").parse().unwrap();
    let (address, ip) = (Ipv4Addr::new(10, 210, number, 1), Ipv4Addr::new(10, 210, number, 200));
    let station = Netns::new();
    station.plug(Some(&room.netns), &second.bridge(), None, Station { mac: None, ip, prefix: 24 });
    station.run(&["ip", "route", "add", "default", "via", &address.to_string()]);
    station.inside(|| TcpStream::connect_timeout(&(address, 2049).into(), SOON)).unwrap();
    for port in ALWAYS {
        let outcome = station.inside(|| TcpStream::connect_timeout(&(room.address(), port).into(), SILENCE));
        assert!(matches!(&outcome, Err(e) if e.kind() == ErrorKind::TimedOut), "{port}: {outcome:?}");
    }
    // A node of the first server is nobody to the second, even with all its addresses.
    let node = room.node("vn1");
    station.run(&["ip", "addr", "add", &format!("{}/24", node.ip), "dev", "eth0"]);
    station.inside(|| {
        let mut client = Client::connect(address, SOON);
        node.paths("vn1").iter().for_each(|p| assert!(client.mount(p).is_err(), "{p}"));
    });
    drop(second);
}

/// Docker's `FORWARD` policy, and a firewall that ends in a drop: our traffic passes by marked rules, which are gone
/// after `down`.
#[test]
fn foreign_firewalls_get_a_marked_rule() {
    std::thread::scope(|scope| {
        scope.spawn(|| foreign_firewalls(Wiring::Ports));
        foreign_firewalls(Wiring::Cable);
    });
}

fn foreign_firewalls(wiring: Wiring) {
    const FOREIGN: &str = "
        table ip filter {
            chain DOCKER-USER {
                return
            }
            chain FORWARD {
                type filter hook forward priority 0; policy drop;
                jump DOCKER-USER
            }
        }
        table inet fw {
            chain input {
                type filter hook input priority 0; policy accept;
                iifname \"lo\" accept
                counter drop
            }
        }";
    let mut room = room(wiring, |netns| {
        netns.run(&["nft", FOREIGN]);
    });
    let station = room.station(None, room.on_net(200));
    let server = room.address();
    station.inside(|| TcpStream::connect_timeout(&(server, 2049).into(), SOON)).unwrap();
    let mark = format!("walt {}", room.server.state_dir().display());
    let rules = |room: &Room| room.netns.run(&["nft", "list", "ruleset"]);
    let present = rules(&room);
    assert!(present.matches(&mark).count() >= 4, "one rule for each interface and direction: {present}");
    let user = present.split("chain DOCKER-USER").nth(1).unwrap().split('}').next().unwrap();
    assert!(user.contains(&mark), "docker's own chain for such rules has it: {present}");
    // Somebody who loads his rules again loses ours: they come back by themselves.
    room.netns.run(&["nft", "flush", "chain", "inet", "fw", "input"]);
    room.netns.run(&["nft", "add rule inet fw input counter drop"]);
    until("our rule to come back", Duration::from_secs(180), || {
        let table = room.netns.run(&["nft", "list", "table", "inet", "fw"]);
        table.contains(&mark).then_some(())
    });
    room.server.down();
    let left = rules(&room);
    assert!(!left.contains("walt"), "{left}");
    assert!(left.contains("policy drop") && left.contains("DOCKER-USER"), "what is not ours stays: {left}");
    assert!(Path::new("/run/netns").exists());
}
