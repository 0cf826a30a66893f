//! The room of the tests about isolation and about the cable: the server's machine, and what is around it.
//!
//! The server runs in a network namespace of its own, so that its other addresses, its neighbours and foreign
//! firewalls are the test's to choose:
//!
//! ```text
//!  attacker ── bridge [ room: walt-server ] uplink ── outside
//!  attacker ── switch ── cable ── bridge [ room: walt-server ] uplink ── outside
//! ```
//! The second wiring is that of a platform with real machines: the cable is a veth pair, whose end in the room is the
//! server's `raw-device`.

use std::net::Ipv4Addr;
use std::process::Command;
use walt_testkit::{Netns, Options, Station, TestServer, User, images};

/// The user.
pub const ANN: User = User::RootFor("ann");

/// The server's machine, and what lies beyond it.
pub struct Room {
    pub server: TestServer,
    /// The machine beyond it.
    pub outside: Netns,
    pub netns: Netns,
    /// The switch at the other end of the cable, if there is one.
    pub switch: Option<Netns>,
}

/// How attackers reach the bridge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// Each is a port of the bridge, as a virtual node is.
    Ports,
    /// All are behind one physical port.
    Cable,
}

/// The room's end of the cable, and the bridge that plays the switch.
pub const CABLE: &str = "cable0";
pub const SWITCH: &str = "switch";

/// Addresses of the room's uplink and of the machine beyond it.
pub const UPLINK: &str = "198.51.100.1";
pub const OUTSIDE: &str = "198.51.100.2";
const UPLINK_V6: &str = "2001:db8::1";
const OUTSIDE_V6: &str = "2001:db8::2";

/// A switch, with a cable to the room.
pub fn switch(netns: &Netns) -> Netns {
    let switch = Netns::new();
    switch.run(&["ip", "link", "add", SWITCH, "type", "bridge", "forward_delay", "0"]);
    switch.run(&["ip", "link", "set", SWITCH, "up"]);
    plug_in(netns, &switch);
    switch
}

/// Connects the room with the switch.
pub fn plug_in(netns: &Netns, switch: &Netns) {
    netns.cable(switch, CABLE, "uplink");
    switch.run(&["ip", "link", "set", "uplink", "master", SWITCH]);
}

/// Makes the room; `before` may put rules into it before the server starts.
pub fn room(wiring: Wiring, before: impl FnOnce(&Netns)) -> Room {
    let (netns, outside) = (Netns::new(), Netns::new());
    netns.run(&["ip", "link", "set", "lo", "up"]);
    netns.cable(&outside, "uplink", "eth0");
    for (at, dev, v4, v6) in [(&netns, "uplink", UPLINK, UPLINK_V6), (&outside, "eth0", OUTSIDE, OUTSIDE_V6)]
    {
        at.run(&["ip", "addr", "add", &format!("{v4}/24"), "dev", dev]);
        at.run(&["ip", "-6", "addr", "add", &format!("{v6}/64"), "dev", dev, "nodad"]);
    }
    netns.run(&["ip", "route", "add", "default", "via", OUTSIDE]);
    before(&netns);
    let switch = (wiring == Wiring::Cable).then(|| switch(&netns));
    let raw_device = switch.as_ref().map(|_| CABLE.to_owned());
    let options = Options { wrapper: netns.wrapper(), raw_device, ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    Room { server, outside, netns, switch }
}

pub fn with_nodes(wiring: Wiring) -> Room {
    let room = room(wiring, |_| ());
    room.server.import(images::TINY, &images::tiny(room.server.dir()));
    other_image(&room.server);
    room.server.walt(ANN, &["node", "create", "vn1"]).ok();
    room.server.walt(ANN, &["image", "clone", "walt:waltplatform/pc-x86-64-other"]).ok();
    room.server.walt(ANN, &["node", "create", "vn2", "--image", OTHER]).ok();
    room
}

/// Name under which a user has the second image.
pub const OTHER: &str = "pc-x86-64-other";

/// A second image, with one more file: other views than those of the first.
fn other_image(server: &TestServer) {
    let dir = server.dir().join("other");
    let made = images::tiny(&dir);
    std::fs::write(made.join("rootfs/secret"), "of the second image\n").unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(made.join("rootfs")).arg("-cf").arg(made.join("rootfs.tar")).arg(".");
    assert!(tar.status().unwrap().success());
    let config =
        r#"{"Labels":{"walt.node.models":"pc-x86-64","walt.image.preferred-name":"pc-x86-64-other:latest"}}"#;
    std::fs::write(made.join("config.json"), config).unwrap();
    server.import(OTHER, &made);
}

impl Room {
    /// The server's address on walt-net.
    pub fn address(&self) -> Ipv4Addr {
        self.on_net(1)
    }

    pub fn on_net(&self, last: u8) -> Ipv4Addr {
        let number: u8 = self.server.bridge().trim_start_matches("wtest").parse().unwrap();
        Ipv4Addr::new(10, 210, number, last)
    }

    pub fn node(&self, name: &str) -> Node {
        let list = self.server.api(None).get("/api/v1/nodes").json();
        let nodes = list["nodes"].as_array().unwrap().clone();
        let node = nodes.iter().find(|n| n["name"] == name).unwrap_or_else(|| panic!("no {name}: {list}"));
        Node {
            mac: node["mac"].as_str().unwrap().to_owned(),
            ip: node["ip"].as_str().unwrap().parse().unwrap(),
        }
    }

    /// A station that is plugged into the bridge, or into the switch.
    pub fn station(&self, mac: Option<&str>, ip: Ipv4Addr) -> Netns {
        let station = Netns::new();
        let identity = Station { mac, ip, prefix: 24 };
        match &self.switch {
            Some(switch) => station.plug(Some(switch), SWITCH, None, identity),
            None => station.plug(Some(&self.netns), &self.server.bridge(), None, identity),
        }
        station
    }
}

pub struct Node {
    pub mac: String,
    pub ip: Ipv4Addr,
}

impl Node {
    pub fn paths(&self, name: &str) -> Vec<String> {
        let dashed = self.mac.replace(':', "-");
        [self.mac.as_str(), &dashed, &self.ip.to_string(), name]
            .iter()
            .flat_map(|n| ["fs", "persist"].map(|part| format!("/var/lib/walt/nodes/{n}/{part}")))
            .collect()
    }
}

/// A room whose nodes are machines behind the cable.
pub fn with_machines() -> Room {
    let room = with_nodes(Wiring::Cable);
    for (number, name) in [(11, "pc1"), (12, "pc2")] {
        let (ip, mac) = (room.on_net(number).to_string(), format!("02:00:00:00:01:{number}"));
        let event = [
            "dhcp-event",
            "commit",
            "--force-name",
            "",
            "walt.node.pc-x86-64",
            &ip,
            &mac,
            name,
            "0",
            "unknown",
        ];
        let made = room.server.server_command(&event).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    // No machine is there yet that could be rebooted.
    let told = room.server.walt(ANN, &["node", "boot", "pc2", OTHER]);
    assert!(told.out.contains("Node pc2 will now boot pc-x86-64-other."), "{told:?}");
    room
}
