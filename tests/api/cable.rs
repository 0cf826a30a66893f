//! The physical interface of walt-net. A veth pair is the cable: one end is the server's `raw-device`, the other one is
//! in a namespace that plays the switch, with machines behind it.

use crate::room::{CABLE, Room, SWITCH, Wiring, plug_in, room, with_nodes};
use serde_json::Value;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;
use walt_sys::net::packet::PacketSocket;
use walt_testkit::{Netns, Options, Station, TestServer, until};

const SOON: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(2);

fn link(netns: &Netns, name: &str) -> Value {
    let links: Value = serde_json::from_str(&netns.run(&["ip", "-j", "addr", "show", name])).unwrap();
    links[0].clone()
}

fn is_up(netns: &Netns, name: &str) -> bool {
    link(netns, name)["flags"].as_array().unwrap().contains(&"UP".into())
}

fn cable(server: &TestServer) -> Value {
    server.api(None).get("/api/v1/status").json()["cable"].clone()
}

fn reaches(station: &Netns, server: Ipv4Addr) -> bool {
    station.inside(|| TcpStream::connect_timeout(&(server, 2049).into(), SILENCE)).is_ok()
}

fn ipv6_of(netns: &Netns, name: &str) -> String {
    netns.run(&["cat", &format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6")]).trim().to_owned()
}

#[test]
fn an_interface_is_taken_followed_and_given_back() {
    let netns = Netns::new();
    let switch = crate::room::switch(&netns);
    // As many systems leave an unused interface: down.
    netns.run(&["ip", "link", "set", CABLE, "down"]);
    let options = Options { wrapper: netns.wrapper(), raw_device: Some(CABLE.into()), ..Options::default() };
    let mut server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let bridge = server.bridge();
    assert_eq!(link(&netns, CABLE)["master"], bridge.as_str());
    assert_eq!(ipv6_of(&netns, CABLE), "1");
    let own = server.address();
    let station = Netns::new();
    let identity = Station { mac: None, ip: Ipv4Addr::from_bits(own.to_bits() + 199), prefix: 24 };
    station.plug(Some(&switch), SWITCH, None, identity);
    until("a machine behind the cable to reach the server", SOON, || reaches(&station, own).then_some(()));
    let shown = until("the status to show the cable", SOON, || {
        let shown = cable(&server);
        (shown["carrier"] == true).then_some(shown)
    });
    assert_eq!(
        (&shown["device"], &shown["attached"], &shown["mtu"]),
        (&CABLE.into(), &true.into(), &1500.into())
    );
    let said = server.server_command(&["status"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("Cable:     cable0: connected, 10000 Mbit/s\n"), "{said}");

    switch.run(&["ip", "link", "set", "uplink", "down"]);
    until("the status to show that the cable is unplugged", SOON, || {
        (cable(&server)["carrier"] == false).then_some(())
    });
    assert_eq!(cable(&server)["attached"], true);
    switch.run(&["ip", "link", "set", "uplink", "up"]);
    until("the cable to work again", SOON, || reaches(&station, own).then_some(()));

    // An adapter that is pulled and plugged in again; the server is killed meanwhile, too.
    netns.run(&["ip", "link", "delete", CABLE]);
    let problem = until("the status to name the missing interface", SOON, || {
        cable(&server)["problem"].as_str().map(str::to_owned)
    });
    assert!(problem.contains("no network interface 'cable0'"), "{problem}");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(cable(&server)["attached"], false);
    plug_in(&netns, &switch);
    netns.run(&["ip", "link", "set", CABLE, "down"]);
    until("the interface to be in the bridge again", SOON, || reaches(&station, own).then_some(()));
    assert_eq!(cable(&server)["problem"], Value::Null);
    assert!(server.log().contains("the interface 'cable0' is back"), "{}", server.log());

    server.down();
    let left = link(&netns, CABLE);
    assert!(left["master"].is_null() && !is_up(&netns, CABLE), "{left}");
    assert_eq!(ipv6_of(&netns, CABLE), "0");
    assert!(!server.state_dir().join("interfaces.json").exists());
}

/// What an administrator gets wrong, and what the server says.
#[test]
fn an_interface_in_use_is_refused() {
    let netns = Netns::new();
    let switch = crate::room::switch(&netns);
    let options =
        || Options { wrapper: netns.wrapper(), raw_device: Some(CABLE.into()), ..Options::default() };
    let refused = |why: &str| {
        let server = TestServer::prepare(options());
        let checked = server.server_command(&["check-config"]).output().unwrap();
        let checked = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.contains(why), "{checked}");
        drop(server);
        let ended = TestServer::start_with(options()).err().expect("the interface is in use");
        assert!(ended.log.contains(why), "{}", ended.log);
    };
    netns.run(&["ip", "addr", "add", "192.0.2.5/24", "dev", CABLE]);
    refused("has the address 192.0.2.5/24");
    netns.run(&["ip", "route", "add", "default", "dev", CABLE]);
    refused("carries the default route");
    netns.run(&["ip", "addr", "flush", "dev", CABLE]);
    netns.run(&["ip", "link", "add", "br0", "type", "bridge"]);
    netns.run(&["ip", "link", "set", CABLE, "master", "br0"]);
    refused("belongs to the bridge 'br0'");
    assert_eq!(link(&netns, CABLE)["master"], "br0", "a refusal changes nothing");
    netns.run(&["ip", "link", "delete", "br0"]);
    let misspelt = Options { raw_device: Some("cabel0".into()), ..options() };
    let server = TestServer::start_with(misspelt).unwrap_or_else(|e| panic!("{e:?}"));
    let problem = cable(&server)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("no network interface 'cabel0' (the machine has cable0)"), "{problem}");
    drop(server);
    for (raw_device, why) in [
        ("cable0, vlan: 5000", "network.walt-net.vlan: 5000 must be 1 to 4094"),
        ("'not a name'", "cannot name a network interface"),
        // This kernel may have VLANs; then the server starts.
        ("lo", "loopback"),
    ] {
        let bad = Options { raw_device: Some(raw_device.into()), ..options() };
        let ended = TestServer::start_with(bad).err().unwrap_or_else(|| panic!("{raw_device}"));
        assert!(ended.log.contains(why), "{}", ended.log);
    }
    drop(switch);
}

/// A further network has its address while the server is up, and an interface that was configured before is given back.
#[test]
fn networks_of_another_configuration_are_given_back() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.cable(&other, CABLE, "eth0");
    netns.cable(&other, "adm0", "eth1");
    let networks = "  walt-adm: {raw-device: adm0, ip: 192.0.2.1/24}\n".to_owned();
    let options =
        Options { wrapper: netns.wrapper(), raw_device: Some(CABLE.into()), networks, ..Options::default() };
    let mut server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let addresses = |name: &str| link(&netns, name)["addr_info"].to_string();
    assert!(addresses("adm0").contains("192.0.2.1"), "{}", addresses("adm0"));
    server.kill();
    let text = std::fs::read_to_string(server.config()).unwrap();
    let text = text
        .replace(", raw-device: cable0", "")
        .replace("  walt-adm: {raw-device: adm0, ip: 192.0.2.1/24}\n", "");
    std::fs::write(server.config(), text).unwrap();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert!(!addresses("adm0").contains("192.0.2.1"), "{}", addresses("adm0"));
    assert!(link(&netns, CABLE)["master"].is_null() && is_up(&netns, CABLE));
    assert_eq!(cable(&server), Value::Null);
}

/// Ends with the test.
struct Background(std::process::Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A further network with a DHCP server of its own: the interface gets the address, keeps it while the server is
/// restarted, follows the DHCP server, and is given back.
#[test]
fn a_further_network_gets_its_address_by_dhcp() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.cable(&other, "adm0", "eth1");
    other.run(&["ip", "addr", "add", "198.51.100.1/24", "dev", "eth1"]);
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let serve = |address: &str| {
        let (conf, leases) = (dir.path().join("udhcpd.conf"), dir.path().join("leases"));
        std::fs::write(&leases, "").unwrap();
        let text = format!(
            "start {address}\nend {address}\ninterface eth1\nlease_file {}\noption subnet 255.255.255.0\n\
             option router 198.51.100.1\noption lease 3600\n",
            leases.display()
        );
        std::fs::write(&conf, text).unwrap();
        let wrapper = other.wrapper();
        let mut command = std::process::Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).args(["busybox", "udhcpd", "-f"]).arg(conf);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Background(command.spawn().unwrap())
    };
    let first = serve("198.51.100.7");
    let networks = "  walt-out: {raw-device: adm0, ip: dhcp}\n".to_owned();
    let options = Options { wrapper: netns.wrapper(), networks, ..Options::default() };
    let mut server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let addresses = || -> Vec<String> {
        let link = link(&netns, "adm0");
        let all = link["addr_info"].as_array().unwrap().iter().filter(|a| a["family"] == "inet");
        all.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect()
    };
    let become_ = |wanted: &[&str]| {
        until(&format!("the addresses {wanted:?}"), SOON, || (addresses() == wanted).then_some(()));
    };
    become_(&["198.51.100.7/24"]);
    assert!(netns.run(&["ip", "route", "show", "default"]).is_empty());
    drop(first);
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(addresses(), ["198.51.100.7/24"], "it stays until a DHCP server has answered");
    let _second = serve("198.51.100.8");
    become_(&["198.51.100.8/24"]);
    let text = std::fs::read_to_string(server.config()).unwrap();
    std::fs::write(server.config(), text.replace("  walt-out: {raw-device: adm0, ip: dhcp}\n", "")).unwrap();
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert!(addresses().is_empty(), "{:?}", addresses());
}

/// Two servers on one wire: each names the other.
#[test]
fn another_dhcp_server_is_named() {
    let first = room(Wiring::Cable, |_| ());
    let netns = Netns::new();
    netns.cable(first.switch.as_ref().unwrap(), CABLE, "second");
    first.switch.as_ref().unwrap().run(&["ip", "link", "set", "second", "master", SWITCH]);
    let options = Options { wrapper: netns.wrapper(), raw_device: Some(CABLE.into()), ..Options::default() };
    let second = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let named = |server: &TestServer, other: Ipv4Addr| {
        until("the other DHCP server to be named", SOON, || {
            let status = server.api(None).get("/api/v1/status").json();
            (status["dhcp_servers"][0]["ip"] == other.to_string()).then_some(status)
        })
    };
    named(&second, first.server.address());
    assert!(second.log().contains("another DHCP server answers on walt-net"), "{}", second.log());
    // The first one searched before the second one was there: it searches when its cable is plugged in again.
    first.switch.as_ref().unwrap().run(&["ip", "link", "set", "uplink", "down"]);
    until("the cable to be seen as unplugged", SOON, || {
        (cable(&first.server)["carrier"] == false).then_some(())
    });
    first.switch.as_ref().unwrap().run(&["ip", "link", "set", "uplink", "up"]);
    named(&first.server, second.address());
}

/// EtherTypes for experiments (IEEE 802, 0x88b5), and of a VLAN tag.
const EXPERIMENT: u16 = 0x88b5;
const TAG: u16 = 0x8100;

/// Whether a frame from one station arrives at another.
fn arrives(from: &Netns, to: &Netns, tag: Option<u16>) -> bool {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let heard = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let heard = &heard;
        scope.spawn(move || {
            to.inside(|| {
                runtime().block_on(async {
                    let socket = PacketSocket::open("eth0", EXPERIMENT).unwrap();
                    ready.send(()).unwrap();
                    let received = tokio::time::timeout(SILENCE, socket.receive(&mut [0; 64])).await;
                    heard.store(received.is_ok(), std::sync::atomic::Ordering::Relaxed);
                });
            });
        });
        is_ready.recv().unwrap();
        from.inside(|| {
            runtime().block_on(async {
                let (kind, head) = match tag {
                    Some(tag) => (TAG, [tag.to_be_bytes(), EXPERIMENT.to_be_bytes()].concat()),
                    None => (EXPERIMENT, Vec::new()),
                };
                let socket = PacketSocket::open("eth0", kind).unwrap();
                socket.send(&[&head[..], &[7; 46]].concat(), [0xff; 6]).unwrap();
            });
        });
    });
    heard.load(std::sync::atomic::Ordering::Relaxed)
}

/// Frames with a VLAN tag pass neither from the cable to ports of the bridge, nor the other way.
#[test]
fn tagged_frames_are_not_forwarded() {
    let room = room(Wiring::Cable, |_| ());
    let behind = room.station(None, room.on_net(200));
    let port = Netns::new();
    let identity = Station { mac: None, ip: room.on_net(201), prefix: 24 };
    port.plug(Some(&room.netns), &room.server.bridge(), None, identity);
    until("frames without a tag to pass", SOON, || arrives(&port, &behind, None).then_some(()));
    assert!(arrives(&behind, &port, None));
    assert!(!arrives(&behind, &port, Some(12)) && !arrives(&port, &behind, Some(12)));
    // It is the rule.
    room.netns.run(&["nft", "delete", "table", "bridge", &format!("walt-{}", room.server.bridge())]);
    assert!(arrives(&behind, &port, Some(12)) && arrives(&port, &behind, Some(12)), "the test is blind");
}

/// A machine behind the cable with the addresses of a virtual node, or of the server, is nobody.
#[test]
fn nobody_behind_the_cable_is_a_virtual_node_or_the_server() {
    let room: Room = with_nodes(Wiring::Cable);
    let node = room.node("vn1");
    let (free, own) = (room.on_net(200), room.address());
    let station = room.station(None, free);
    until("the server to answer", SOON, || reaches(&station, own).then_some(()));
    let own_mac = link(&station, "eth0")["address"].as_str().unwrap().to_owned();
    station.identity(Station { mac: Some(&node.mac), ip: node.ip, prefix: 24 });
    assert!(!reaches(&station, own), "it has all addresses of a virtual node");
    station.identity(Station { mac: Some(&own_mac), ip: free, prefix: 24 });
    until("the server to answer again", SOON, || reaches(&station, own).then_some(()));

    // Frames that claim the server's address do not reach the ports of the bridge.
    let port = Netns::new();
    let identity = Station { mac: None, ip: room.on_net(201), prefix: 24 };
    port.plug(Some(&room.netns), &room.server.bridge(), None, identity);
    let ear = port.inside(|| UdpSocket::bind("0.0.0.0:4242")).unwrap();
    ear.set_read_timeout(Some(SILENCE)).unwrap();
    let says = |ip: Ipv4Addr| {
        station.identity(Station { mac: Some(&own_mac), ip, prefix: 24 });
        let port_mac = link(&port, "eth0")["address"].as_str().unwrap().to_owned();
        let to = room.on_net(201).to_string();
        station.run(&["ip", "neigh", "replace", &to, "lladdr", &port_mac, "dev", "eth0"]);
        station.inside(|| {
            let mouth = UdpSocket::bind((ip, 0)).unwrap();
            let _ = mouth.send_to(b"hello", (room.on_net(201), 4242));
        });
        ear.recv_from(&mut [0; 16]).is_ok()
    };
    until("a machine behind the cable to be heard", SOON, || says(free).then_some(()));
    assert!(!says(own), "it speaks as the server");
}
