//! What leads out of walt-net and into it: `netsetup`, `expose`, `walt node expose`. Nodes are namespaces behind the
//! cable; the room is drawn in [`crate::room`].

use crate::room::{ANN, OTHER, OUTSIDE, Room, UPLINK, Wiring, room, with_machines, with_nodes};
use crate::settings::Link;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use walt_testkit::{Netns, Options, TestServer, User, until};

const SOON: Duration = Duration::from_secs(60);
/// How long an answer that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(800);
/// Connections at once that are promised.
const MANY: usize = 1000;

/// The node `pc1` as a namespace, with the server as its router.
fn machine(room: &Room) -> Netns {
    let node = room.node("pc1");
    let station = room.station(Some(&node.mac), node.ip);
    station.run(&["ip", "link", "set", "lo", "up"]);
    station.run(&["ip", "route", "add", "default", "via", &room.address().to_string()]);
    station
}

/// A service of one connection after the other, which answers each with the address of its peer.
fn who_asks(at: &Netns, address: &str) -> SocketAddr {
    let listener = at.inside(|| TcpListener::bind((address, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
    address
}

/// Who the service thinks has asked; none if it cannot be reached.
fn ask(from: &Netns, service: SocketAddr) -> Option<String> {
    let mut stream = from.inside(|| TcpStream::connect_timeout(&service, SILENCE)).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Some(text)
}

fn set(room: &Room, node: &str, value: &str) {
    room.server.walt(ANN, &["node", "config", node, value]).ok();
}

/// What docker and ufw leave: chains that drop what they do not know.
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
    table inet ufw {
        chain forward {
            type filter hook forward priority 0; policy accept;
            counter drop
        }
    }";

#[test]
fn nat_reaches_what_is_behind_the_server_and_lan_does_not() {
    let mut room = with_machines();
    room.netns.run(&["nft", FOREIGN]);
    let station = machine(&room);
    let service = who_asks(&room.outside, OUTSIDE);
    assert_eq!(ask(&station, service), None, "LAN is the default");
    set(&room, "pc1", "netsetup=NAT");
    room.server.kill();
    room.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(ask(&station, service).as_deref(), Some(UPLINK), "beside others' rules, and after a kill -9");
    // At once, without a restart.
    set(&room, "pc1", "netsetup=lan");
    assert_eq!(ask(&station, service), None);
    set(&room, "pc1", "netsetup=NAT");
    // An open connection ends with the permission.
    let listener = room.outside.inside(|| TcpListener::bind((OUTSIDE, 0))).unwrap();
    let mut open =
        station.inside(|| TcpStream::connect_timeout(&listener.local_addr().unwrap(), SOON)).unwrap();
    let (mut there, _) = listener.accept().unwrap();
    let mut passes = |text: &[u8]| {
        open.write_all(text).unwrap();
        there.set_read_timeout(Some(SILENCE)).unwrap();
        there.read_exact(&mut vec![0; text.len()]).is_ok()
    };
    assert!(passes(b"before"));
    set(&room, "pc1", "netsetup=LAN");
    assert!(!passes(b"after"));
    set(&room, "pc1", "netsetup=NAT");
    // Nobody else, not even from the same cable, and nobody from outside to it.
    let other = room.station(None, room.on_net(200));
    other.run(&["ip", "route", "add", "default", "via", &room.address().to_string()]);
    assert_eq!(ask(&other, service), None);
    let ip = room.node("pc1").ip;
    room.outside.run(&["ip", "route", "add", "10.0.0.0/8", "via", UPLINK]);
    let inside = who_asks(&station, &ip.to_string());
    assert_eq!(ask(&room.outside, inside), None);
    // A name of the world outside is asked for at the server, with NAT as without: DNS at the outside is not needed.
    let direct = room.outside.inside(|| UdpSocket::bind((OUTSIDE, 53))).unwrap();
    direct.set_read_timeout(Some(SOON)).unwrap();
    station.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", (OUTSIDE, 53))).unwrap();
    let (_, from) = direct.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip().to_string(), UPLINK, "what a NAT node asks itself passes as well");
    // The rules go with the server.
    room.server.down();
    let left = room.netns.run(&["nft", "list", "ruleset"]);
    assert!(!left.contains("walt") && left.contains("policy drop"), "{left}");
}

/// Large answers get through a way out that takes less than Ethernet.
#[test]
fn a_smaller_way_out_takes_what_nodes_send_and_get() {
    const SMALL: &str = "1280";
    let room = with_machines();
    // The other end is far away: it does not know of the narrow place, and messages about sizes get lost.
    room.netns.run(&["ip", "link", "set", "uplink", "mtu", SMALL]);
    room.netns.run(&["nft", "table ip lossy { chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }; }"]);
    let station = machine(&room);
    set(&room, "pc1", "netsetup=NAT");
    let listener = room.outside.inside(|| TcpListener::bind((OUTSIDE, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let size = 300_000;
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&vec![1; size]).unwrap();
        stream.read_exact(&mut vec![0; size]).unwrap();
    });
    let mut stream = station.inside(|| TcpStream::connect_timeout(&address, SOON)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_exact(&mut vec![0; size]).unwrap();
    stream.write_all(&vec![2; size]).unwrap();
    served.join().unwrap();
}

#[test]
fn a_nat_node_reaches_no_more_of_the_server_and_no_container() {
    let room = with_nodes(Wiring::Ports);
    let station = room.station(None, room.on_net(200));
    station.run(&["ip", "route", "add", "default", "via", &room.address().to_string()]);
    let decoys = [(UPLINK, "uplink"), ("127.0.0.1", "loopback")]
        .map(|(address, name)| (room.netns.inside(|| TcpListener::bind((address, 0))).unwrap(), name));
    room.netns.run(&[
        "nft",
        &format!("add element inet walt-{} nat {{ {} }}", room.server.bridge(), room.on_net(200)),
    ]);
    let service = who_asks(&room.outside, OUTSIDE);
    assert_eq!(ask(&station, service).as_deref(), Some(UPLINK));
    for (decoy, name) in &decoys {
        let port = decoy.local_addr().unwrap().port();
        for address in [UPLINK.to_owned(), room.address().to_string()] {
            let at: SocketAddr = format!("{address}:{port}").parse().unwrap();
            let outcome = station.inside(|| TcpStream::connect_timeout(&at, SILENCE));
            assert!(outcome.is_err(), "{name}: {outcome:?}");
        }
    }
}

/// A service of a node: sends back what it gets, once the other side has sent everything; one connection after the other.
fn echo(at: &Netns, ip: Ipv4Addr, port: u16) {
    let listener = at.inside(|| TcpListener::bind((ip, port))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut text = Vec::new();
                if stream.read_to_end(&mut text).is_ok() {
                    let _ = stream.write_all(&text);
                }
            });
        }
    });
}

/// Sends a text, ends that direction, and reads the answer to its end.
fn round(mut stream: TcpStream, text: &str) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn uplink(port: u16) -> SocketAddr {
    format!("{UPLINK}:{port}").parse().unwrap()
}

#[test]
fn exposed_ports_are_reached_from_outside() {
    let mut room = with_machines();
    let (station, ip) = (machine(&room), room.node("pc1").ip);
    echo(&station, ip, 80);
    echo(&station, ip, 81);
    let connect = |room: &Room, port| room.outside.inside(|| TcpStream::connect_timeout(&uplink(port), SOON));
    let config =
        |room: &Room, name: &str, value: &str| room.server.walt(ANN, &["node", "config", name, value]);
    assert_eq!(config(&room, "pc1", "expose=80:8080,81:8081").ok(), "Done.\n");
    assert_eq!(
        round(connect(&room, 8080).unwrap(), "half"),
        "half",
        "a direction that has ended is not the end"
    );
    assert_eq!(round(connect(&room, 8081).unwrap(), &"x".repeat(200_000)).len(), 200_000);
    // From the machine itself, too; from walt-net, not.
    let local =
        room.netns.inside(|| TcpStream::connect_timeout(&"127.0.0.1:8080".parse().unwrap(), SOON)).unwrap();
    assert_eq!(round(local, "here"), "here");
    let own = SocketAddr::from((room.address(), 8080));
    assert!(station.inside(|| TcpStream::connect_timeout(&own, SILENCE)).is_err());
    // The address on walt-net is not served: a connection is reset, be it before connect(2) returns.
    if let Ok(mut from_room) = room.netns.inside(|| TcpStream::connect_timeout(&own, SOON)) {
        let _ = from_room.write_all(b"x");
        assert!(!matches!(from_room.read(&mut [0; 8]), Ok(1..)));
    }

    // Who is in the way is named, and nothing has changed.
    let held = room.netns.inside(|| TcpListener::bind("0.0.0.0:8090")).unwrap();
    let busy = format!(
        "cannot expose a port as port 8090: that port is held by {}, process {}",
        comm(),
        std::process::id()
    );
    config(&room, "pc1", "expose=80:8080,81:8090").fails(1, &busy);
    config(&room, "pc1", "expose=80:8082,81:2049").fails(1, "port 2049: the server uses that port itself");
    config(&room, "vn1", "expose=22:8085,80:8080")
        .fails(1, "port 8080 of the server leads to port 80 of pc1 already");
    assert!(connect(&room, 8082).is_err() && connect(&room, 8085).is_err());
    let shown = room.server.walt(ANN, &["node", "config", "vn1"]).ok();
    assert!(shown.contains("\nexpose=none\n"), "{shown}");
    assert_eq!(round(connect(&room, 8080).unwrap(), "still"), "still");
    drop(held);
    assert_eq!(config(&room, "pc1", "expose=80:8080,81:8090").ok(), "Done.\n");
    assert!(connect(&room, 8081).is_err());

    // The port that stays leads elsewhere; its open connections end.
    let mut open = connect(&room, 8080).unwrap();
    assert_eq!(config(&room, "pc1", "expose=81:8080").ok(), "Done.\n");
    open.set_read_timeout(Some(SOON)).unwrap();
    assert!(!matches!(open.read(&mut [0; 8]), Ok(1..)));
    assert_eq!(round(connect(&room, 8080).unwrap(), "81"), "81");

    // After a kill -9.
    room.server.kill();
    room.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(round(connect(&room, 8080).unwrap(), "again"), "again");
    // A node that does not answer is a broken connection, not a silent one.
    assert_eq!(config(&room, "pc1", "expose=9:8080").ok(), "Done.\n");
    let broken = connect(&room, 8080).and_then(|mut refused| {
        refused.set_read_timeout(Some(SOON))?;
        refused.read(&mut [0; 8])
    });
    assert!(matches!(&broken, Err(e) if e.kind() == ErrorKind::ConnectionReset), "{broken:?}");
    // It goes with its node.
    config(&room, "vn2", "expose=80:8086").ok();
    assert!(connect(&room, 8086).is_ok());
    room.server.walt(ANN, &["node", "remove", "vn2"]).ok();
    assert!(connect(&room, 8086).is_err());
}

/// The name of this process, as the kernel has it.
fn comm() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned()
}

#[test]
fn a_thousand_connections_at_once() {
    let room = with_machines();
    let (station, ip) = (machine(&room), room.node("pc1").ip);
    let listener = station.inside(|| TcpListener::bind((ip, 80))).unwrap();
    set(&room, "pc1", "expose=80:8080");
    let served = std::thread::spawn(move || {
        let mut all: Vec<TcpStream> = (0..MANY).map(|_| listener.accept().unwrap().0).collect();
        // All are there: only now is any of them answered.
        for stream in &mut all {
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut number = [0; 4];
            stream.read_exact(&mut number).unwrap();
            stream.write_all(&number).unwrap();
        }
    });
    let mut all: Vec<TcpStream> = room
        .outside
        .inside(|| (0..MANY).map(|_| TcpStream::connect_timeout(&uplink(8080), SOON).unwrap()).collect());
    for (number, stream) in all.iter_mut().enumerate() {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&(number as u32).to_be_bytes()).unwrap();
    }
    for (number, stream) in all.iter_mut().enumerate() {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_be_bytes(answer), number as u32);
    }
    served.join().unwrap();
}

#[test]
fn the_configuration_says_where_exposed_ports_listen() {
    let options = Options { networks: "  expose-on: [127.0.0.2]\n".into(), ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(walt_testkit::images::TINY, &walt_testkit::images::tiny(server.dir()));
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    // The same port at another address does not matter.
    server.walt(ANN, &["node", "config", "vn1", &format!("expose=80:{port}")]).ok();
    let at = |address: &str| TcpStream::connect_timeout(&format!("{address}:{port}").parse().unwrap(), SOON);
    assert!(at("127.0.0.2").is_ok() && at("127.0.0.3").is_err());
    let other = Options { networks: "  expose-on: [192.0.2.77]\n".into(), ..Options::default() };
    let other = TestServer::start_with(other).unwrap_or_else(|e| panic!("{e:?}"));
    other.import(walt_testkit::images::TINY, &walt_testkit::images::tiny(other.dir()));
    other.walt(ANN, &["node", "create", "vn1"]).ok();
    let why = "this machine has no address 192.0.2.77, which network.expose-on names";
    other.walt(ANN, &["node", "config", "vn1", "expose=80:8080"]).fails(1, why);
}

/// `walt … expose`, which runs until it is interrupted.
struct Exposing {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl Exposing {
    fn start(room: &Room, user: User, words: &[&str]) -> Self {
        let mut command = room.server.walt_command(user, words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let [name, port] = [words[2], words[3]];
        let end = format!(" and redirecting connections to {name}:{port}.\n");
        let port = line.strip_prefix("Listening on TCP port ").and_then(|l| l.strip_suffix(&end));
        let port = port.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        Self { child, lines, port }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Its exit status and what it said on standard error, after ctrl-C.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let status = until("the end of the command", SOON, || self.child.try_wait().unwrap());
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status.code(), text)
    }
}

#[test]
fn a_port_of_a_node_on_the_users_machine() {
    let room = with_machines();
    let (station, ip) = (machine(&room), room.node("pc1").ip);
    echo(&station, ip, 80);
    // Nothing runs there yet that could be rebooted.
    let told = room.server.walt(ANN, &["node", "boot", "pc1", OTHER]);
    assert!(told.out.contains("Node pc1 will now boot pc-x86-64-other."), "{told:?}");
    let _link = Link::open(&room, &station, 1);
    // Nobody is asked: the port of somebody else's node as well.
    let mut exposing = Exposing::start(&room, User::RootFor("bob"), &["node", "expose", "pc1", "80", "0"]);
    let at = |address: &str| {
        TcpStream::connect_timeout(&format!("{address}:{}", exposing.port).parse().unwrap(), SOON)
    };
    let (first, second) = (at("127.0.0.1").unwrap(), at("127.0.0.1").unwrap());
    assert!(at("127.0.0.2").is_err(), "loopback is one address");
    assert_eq!(round(second, "second"), "second", "while the first is open");
    assert_eq!(round(first, &"y".repeat(300_000)).len(), 300_000);
    assert_eq!(exposing.line(), "New connection forwarded to node.\n");
    assert_eq!(exposing.line(), "New connection forwarded to node.\n");
    let taken = exposing.port.to_string();
    room.server
        .walt(ANN, &["node", "expose", "pc1", "80", &taken])
        .fails(1, &format!("Could not open TCP port {taken}: "));
    assert_eq!(exposing.interrupt(), (Some(0), String::new()));
    // Nothing listens there.
    let exposing = Exposing::start(&room, ANN, &["node", "expose", "pc1", "9", "0"]);
    let mut stream = TcpStream::connect(("127.0.0.1", exposing.port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert!(!matches!(stream.read(&mut [0; 8]), Ok(1..)));
    assert_eq!(exposing.interrupt(), (Some(0), format!("Could not connect to {ip}:9!\n")));

    // Another address of this machine; a device that is not a node; a node of another user.
    let wide = ["device", "expose", "pc1", "80", "0", "--listen", "127.0.0.9", "-y"];
    let exposing = Exposing::start(&room, User::RootFor("bob"), &wide);
    let at = format!("127.0.0.9:{}", exposing.port).parse().unwrap();
    assert_eq!(round(TcpStream::connect_timeout(&at, SOON).unwrap(), "wide"), "wide");
    let (status, said) = exposing.interrupt();
    assert!(status == Some(0) && said.contains("seem"), "the owner is mentioned: {said}");
    room.server
        .walt(ANN, &["device", "expose", "server", "80", "0"])
        .fails(1, "the ports of the server cannot be exposed: they are there already.");
    room.server.walt(ANN, &["node", "expose", "nope", "80", "0"]).fails(1, "No device with name 'nope'");
    room.server.walt(ANN, &["node", "expose", "pc1", "0", "0"]).fails(2, "0");
}

#[test]
fn a_busy_port_is_tried_again_after_a_restart() {
    let mut room = room(Wiring::Ports, |_| ());
    room.server.import(walt_testkit::images::TINY, &walt_testkit::images::tiny(room.server.dir()));
    room.server.walt(ANN, &["node", "create", "vn1"]).ok();
    set(&room, "vn1", "expose=80:8080");
    room.server.kill();
    let held = room.netns.inside(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
    room.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let refusal = "cannot expose a port as port 8080: that port is held by";
    let log = room.server.log();
    assert!(log.contains(refusal), "{log}");
    let words = ["log", "show", "--platform", "--history", "full", "--format", "{stream} {line}"];
    until("the same on the log of the platform", SOON, || {
        let said = room.server.walt(ANN, &words).ok();
        said.contains(&format!("platform.expose vn1: {refusal}")).then_some(())
    });
    drop(held);
    // Any change of what is exposed looks at it again, as does a timer.
    room.server.walt(ANN, &["node", "create", "vn2"]).ok();
    set(&room, "vn2", "expose=80:8081");
    let connected = room.outside.inside(|| TcpStream::connect_timeout(&uplink(8080), SOON));
    assert!(connected.is_ok(), "{connected:?}");
}
