//! `walt node link` and the setting `networks`, on a server whose node has a machine and no system.

use crate::room::{ANN, OUTSIDE, Room, UPLINK, Wiring, with_nodes};
use serde_json::Value;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use walt_testkit::{Netns, Station, TestServer, until};

const SOON: Duration = Duration::from_secs(20);
/// How long an answer that must not come is waited for.
const SILENCE: Duration = Duration::from_secs(1);
/// Always listens on walt-net.
const NFS: u16 = 2049;

/// The link of vn1 to a network, as `walt node link --json` shows it.
fn link(server: &TestServer, network: &str) -> Value {
    let shown = server.walt(ANN, &["node", "link", "vn1", network, "--json"]).ok();
    serde_json::from_str::<Vec<Value>>(&shown).unwrap().pop().unwrap_or(Value::Null)
}

fn applied(server: &TestServer, network: &str) -> Option<String> {
    link(server, network)["applied"].as_str().map(str::to_owned)
}

/// Numbers of the processes of shaped links of this server.
fn processes(server: &TestServer) -> Vec<String> {
    let pattern = format!("walt-server link {}", server.state_dir().display());
    let found = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// Bridges of networks and of shaped links of this server.
fn bridges(server: &TestServer) -> Vec<String> {
    let is_ours = |name: &String| {
        let alias = std::fs::read_to_string(format!("/sys/class/net/{name}/ifalias")).unwrap_or_default();
        (name.starts_with("wn") || name.starts_with("wl"))
            && alias.contains(server.state_dir().to_str().unwrap())
    };
    let all = std::fs::read_dir("/sys/class/net").unwrap();
    all.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(is_ours).collect()
}

fn kill(process: &str) {
    assert!(Command::new("kill").args(["-KILL", process]).status().unwrap().success());
}

#[test]
fn links_keep_their_shape_whatever_dies() {
    let mut server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    until("the machine", SOON, || applied(&server, "walt-net").map(drop));
    assert_eq!(applied(&server, "walt-net").as_deref(), Some(""), "a plain cable");

    // walt-net's own link, while the node runs.
    server.walt(ANN, &["node", "link", "vn1", "walt-net", "lat=5ms"]).ok();
    assert_eq!(applied(&server, "walt-net").as_deref(), Some("lat=5ms"));
    assert!(server.walt(ANN, &["node", "config", "vn1"]).ok().contains("\nnetworks=walt-net[lat=5ms]\n"));
    let said = server.walt(ANN, &["node", "config", "vn1", "networks=walt-net"]).ok();
    assert_eq!(said, "Done.\n", "it needs no reboot");
    assert_eq!(applied(&server, "walt-net").as_deref(), Some(""));
    assert_eq!(processes(&server), [""; 0]);

    // Another network needs another card.
    let said = server.walt(ANN, &["node", "config", "vn1", "networks=walt-net,lab[lat=1ms,seed=4]"]).ok();
    assert_eq!(said, "Done. Reboot node(s) to see new settings in effect.\n");
    assert_eq!(applied(&server, "lab"), None);
    let why = "node vn1 is not on network 'lab' yet";
    server.walt(ANN, &["node", "link", "vn1", "lab", "loss=1%", "--for", "5s"]).fails(1, why);
    server.walt(ANN, &["node", "reboot", "--hard", "vn1"]).ok();
    until("the shaped link", SOON, || {
        (applied(&server, "lab").as_deref() == Some("lat=1ms,seed=4")).then_some(())
    });
    let [process] = &processes(&server)[..] else { panic!("one process: {:?}", processes(&server)) };

    // The server is killed: the process goes on, and the next server knows it.
    server.walt(ANN, &["node", "link", "vn1", "lab", "loss=2%"]).ok();
    server.kill();
    assert_eq!(processes(&server), std::slice::from_ref(process));
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let shape = "lat=1ms,loss=2%,seed=4";
    until("the link of the server before", SOON, || {
        (applied(&server, "lab").as_deref() == Some(shape)).then_some(())
    });
    assert_eq!(processes(&server), std::slice::from_ref(process));

    // The process is killed: another one does the same.
    kill(process);
    until("another process", SOON, || {
        let now = processes(&server);
        (now.len() == 1 && now[0] != *process && applied(&server, "lab").as_deref() == Some(shape))
            .then_some(())
    });

    for_a_while(&mut server);
    server.walt(ANN, &["node", "link", "vn1", "lab", "reset"]).ok();
    assert_eq!(applied(&server, "lab").as_deref(), Some(""));
    server.walt(ANN, &["node", "link", "vn1", "lab", "down"]).ok();
    assert_eq!(applied(&server, "lab").as_deref(), Some("link=down"));
    refusals(&server);
    server.walt(ANN, &["node", "link", "vn1", "walt-net", "bw=10Mbps"]).ok();
    assert_eq!(bridges(&server).len(), 3, "the network, and a link to each: {:?}", bridges(&server));
    assert!(server.down().contains("Stopped 1 node(s)"));
    assert_eq!(processes(&server), [""; 0]);
    assert_eq!(bridges(&server), [""; 0]);
}

/// A shape that passes does so although the server dies meanwhile.
fn for_a_while(server: &mut TestServer) {
    let configured = "lat=1ms,loss=2%,seed=4";
    let said = server.walt(ANN, &["node", "link", "vn1", "lab", "down", "--for", "4s"]).ok();
    assert_eq!(said, "Done. In 4s, each link gets its configured shape back.\n");
    let now = link(server, "lab");
    assert_eq!(now["applied"], "lat=1ms,loss=2%,link=down,seed=4");
    assert_eq!(now["configured"], configured);
    assert!(now["seconds_left"].as_f64().unwrap() <= 4.0);
    let table = server.walt(ANN, &["node", "link"]).ok();
    assert!(table.contains("vn1   lab       lat=1ms,loss=2%,link=down,seed=4  "), "{table}");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("the configured shape", SOON, || {
        let now = link(server, "lab");
        (now["applied"] == configured && now["seconds_left"].is_null()).then_some(())
    });
    // A change for good ends one for a while.
    server.walt(ANN, &["node", "link", "vn1", "lab", "lat=9ms", "--for", "1h"]).ok();
    server.walt(ANN, &["node", "link", "vn1", "lab", "loss=3%"]).ok();
    let now = link(server, "lab");
    assert_eq!(now["applied"], "lat=1ms,loss=3%,seed=4");
    assert!(now["seconds_left"].is_null());
}

/// Bad input changes nothing.
fn refusals(server: &TestServer) {
    let before = server.walt(ANN, &["node", "config", "vn1"]).ok();
    let long = "n".repeat(40);
    for (setting, why) in [
        (format!("networks=walt-net,{long}"), "has 40 characters; a name has at most 32"),
        ("networks=walt-net,lab[lat=-1ms]".into(), "'-1ms' is not a time"),
        ("networks=lab".into(), "walt-net is missing"),
        ("networks=walt-net,lab,lab".into(), "the network 'lab' is there twice"),
    ] {
        server.walt(ANN, &["node", "config", "vn1", &setting]).fails(1, why);
    }
    for (words, why) in [
        (&["vn1", "lab", "lat=-1ms"][..], "'-1ms' is not a time"),
        (&["vn1", "lab", "speed=1"], "a link has no parameter 'speed'"),
        (&["vn1", "office", "lat=1ms"], "node vn1 has no network 'office'; it has: walt-net, lab"),
        (&["vn9", "lab", "lat=1ms"], "vn9"),
        (&["vn1", "lab", "down", "--for", "31d"], "'--for' must be from 1s to 30d"),
        (&["vn1", "lab", "jitter=2ms"], "jitter=2ms is more than lat=0s"),
    ] {
        let ran = server.walt(ANN, &[&["node", "link"], words].concat());
        assert!(ran.status == Some(1) && ran.err.contains(why), "{words:?}: {ran:?}");
    }
    assert_eq!(server.walt(ANN, &["node", "config", "vn1"]).ok(), before);
    assert_eq!(applied(server, "lab").as_deref(), Some("link=down"));
}

/// The only interface of the server's machine whose name starts like this.
fn interface(room: &Room, start: &str) -> String {
    let all: Vec<Value> = serde_json::from_str(&room.netns.run(&["ip", "-j", "link", "show"])).unwrap();
    let names = all.iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
    let found: Vec<String> = names.filter(|name| name.starts_with(start)).collect();
    let [name] = &found[..] else { panic!("interfaces {start}…: {found:?}") };
    name.clone()
}

fn connects(from: &Netns, to: Ipv4Addr, port: u16) -> bool {
    from.inside(|| TcpStream::connect_timeout(&(to, port).into(), SILENCE).is_ok())
}

/// Sends a datagram to a socket of another station; whether it arrives.
fn arrives(from: &Netns, to: &UdpSocket) -> bool {
    let address = to.local_addr().unwrap();
    from.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // An address that nobody has is an error at once.
        let _ = socket.send_to(b"hello", address);
    });
    to.recv_from(&mut [0; 16]).is_ok()
}

fn listener(netns: &Netns, ip: Ipv4Addr) -> UdpSocket {
    let socket = netns.inside(|| UdpSocket::bind((ip, 0)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

#[test]
fn a_further_network_leads_nowhere() {
    let room = with_nodes(Wiring::Ports);
    for node in ["vn1", "vn2"] {
        room.server.walt(ANN, &["node", "config", node, "networks=walt-net,lab"]).ok();
        room.server.walt(ANN, &["node", "reboot", "--hard", node]).ok();
    }
    let bridge = interface(&room, "wn");
    let (a, b) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
    let stations = [(a, "02:00:00:00:00:0a"), (b, "02:00:00:00:00:0b")].map(|(ip, mac)| {
        let station = Netns::new();
        station.plug(Some(&room.netns), &bridge, None, Station { mac: Some(mac), ip, prefix: 24 });
        station
    });
    let [attacker, other] = &stations;
    let heard = listener(other, b);
    until("the stations of the network", SOON, || arrives(attacker, &heard).then_some(()));

    // By ARP, nobody has the addresses of the server. With the Ethernet address of the bridge, nobody takes the packets.
    let uplink: Ipv4Addr = UPLINK.parse().unwrap();
    let outside = listener(&room.outside, OUTSIDE.parse().unwrap());
    let on_walt_net = room.station(None, room.on_net(200));
    let inside = listener(&on_walt_net, room.on_net(200));
    assert!(connects(&on_walt_net, room.address(), NFS), "the server answers on walt-net");
    let mac = bridge_mac(&room, &bridge);
    for knows_the_bridge in [false, true] {
        for target in [room.address(), uplink, OUTSIDE.parse().unwrap(), room.on_net(200)] {
            let target = target.to_string();
            attacker.run(&["ip", "route", "replace", &target, "dev", "eth0"]);
            if knows_the_bridge {
                attacker.run(&["ip", "neigh", "replace", &target, "lladdr", &mac, "dev", "eth0"]);
            }
        }
        for (address, port) in [(room.address(), NFS), (room.address(), 111), (uplink, NFS), (uplink, 111)] {
            assert!(!connects(attacker, address, port), "{address}:{port}, {knows_the_bridge}");
        }
        assert!(!arrives(attacker, &outside), "beyond the server, {knows_the_bridge}");
        assert!(!arrives(attacker, &inside), "on walt-net, {knows_the_bridge}");
    }
    let addresses = room.netns.run(&["ip", "-o", "address", "show", "dev", &bridge]);
    assert_eq!(addresses, "", "the server has no address there");
    assert!(arrives(attacker, &heard), "the network still works");

    // The last node that leaves it takes the network away.
    for node in ["vn1", "vn2"] {
        room.server.walt(ANN, &["node", "config", node, "networks=walt-net"]).ok();
    }
    // A socket keeps its namespace.
    drop((heard, stations));
    // The kernel removes their ports a moment later.
    until("the ports of the nodes only", SOON, || {
        let ports = room.netns.run(&["ip", "-o", "link", "show", "master", &bridge]);
        (ports.lines().count() == 2).then_some(())
    });
    for node in ["vn1", "vn2"] {
        room.server.walt(ANN, &["node", "reboot", "--hard", node]).ok();
    }
    assert!(!room.netns.run(&["ip", "link"]).contains(&bridge), "a network without nodes");
}

fn bridge_mac(room: &Room, bridge: &str) -> String {
    let link: Value = serde_json::from_str(&room.netns.run(&["ip", "-j", "link", "show", bridge])).unwrap();
    link[0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn a_shaped_link_is_filtered_as_a_plain_one() {
    let room = with_nodes(Wiring::Ports);
    let (node, other) = (room.node("vn1"), room.node("vn2"));
    room.server.walt(ANN, &["node", "link", "vn1", "walt-net", "lat=1ms"]).ok();
    // In the place of qemu, but behind its filter: on the link, with a name of which no rule knows.
    let attacker = Netns::new();
    let own = Station { mac: Some(&node.mac), ip: node.ip, prefix: 24 };
    attacker.plug(Some(&room.netns), &interface(&room, "wl"), None, own);
    let listener_ip = room.on_net(200);
    let station = room.station(Some("02:00:00:00:00:0c"), listener_ip);
    let heard = listener(&station, listener_ip);
    let passes = |identity: Station<'_>| {
        attacker.identity(identity);
        let who = listener_ip.to_string();
        attacker.run(&["ip", "neigh", "replace", &who, "lladdr", "02:00:00:00:00:0c", "dev", "eth0"]);
        // The port forwards again a moment after the cable is up.
        std::thread::sleep(SILENCE);
        arrives(&attacker, &heard)
    };
    until("the node's own addresses to pass", SOON, || passes(own).then_some(()));
    assert!(!passes(Station { ip: other.ip, ..own }), "another node's IP address");
    assert!(!passes(Station { ip: room.on_net(201), ..own }), "nobody's IP address");
    assert!(!passes(Station { mac: Some("52:54:00:00:00:99"), ..own }), "another Ethernet address");
    assert!(!passes(Station { mac: Some(&other.mac), ip: other.ip, prefix: 24 }), "another node as a whole");
    until("the node's own addresses to pass again", SOON, || passes(own).then_some(()));
    assert!(!connects(&attacker, UPLINK.parse().unwrap(), 111), "another address of the server");
    assert!(connects(&attacker, room.address(), NFS), "what walt-net offers");
}

/// The words of a command line, as a shell splits it.
fn words(line: &str) -> Vec<String> {
    let script = format!("printf '%s\\n' {line}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_examples_of_the_page_work() {
    let server = TestServer::start_tiny();
    for node in ["vn1", "vn2"] {
        server.walt(ANN, &["node", "create", node]).ok();
    }
    let page = include_str!("../../../docs/help/vnode-networks.md");
    let lines: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("$ walt ")).collect();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        let words = words(line);
        server.walt(ANN, &words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    }
    assert_eq!(applied(&server, "lab").as_deref(), Some("link=down"), "for 20 seconds");
    assert_eq!(link(&server, "lab")["configured"], "");
}
