//! Settings of nodes and of other devices: what is said, what is stored, and when it counts.

use crate::room::{ANN, Room, with_machines};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;
use walt_testkit::{
    Netns,
    help::{self, How},
    until,
};

const SOON: Duration = Duration::from_secs(60);
const REBOOT: &str = "Done. Reboot node(s) to see new settings in effect.\n";

/// The room of the tests, and a device that is not a node.
fn prepared() -> Room {
    let room = with_machines();
    device(&room, "unknown-d327a0", "b8:27:eb:d3:27:a0", 40);
    room
}

fn device(room: &Room, name: &str, mac: &str, last: u8) {
    let ip = room.on_net(last).to_string();
    let event = ["dhcp-event", "commit", "--force-name", "", "", &ip, mac, name, "0", "unknown"];
    let made = room.server.server_command(&event).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

fn config(room: &Room, what: &str, name: &str) -> Value {
    let text = room.server.walt(ANN, &[what, "config", name, "--json"]).ok();
    let list: Value = serde_json::from_str(&text).unwrap();
    list[format!("{what}s")][0].clone()
}

/// A machine's end of the node link, which says that it has booted.
pub struct Link(TcpStream);

impl Link {
    pub fn open(room: &Room, station: &Netns, boot: u32) -> Self {
        let server = room.address();
        let mut stream =
            station.inside(|| TcpStream::connect_timeout(&(server, 12347).into(), SOON)).unwrap();
        let id = format!("00000000-0000-0000-0000-{boot:012}");
        write!(stream, "REQ_NODE_LINK\nHELLO 1 view=- boot_id={id} uptime=1 mode=network\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("WELCOME "), "{line}");
        stream.write_all(b"BOOTED\n").unwrap();
        Self(stream)
    }

    /// The next command of the server, which is acknowledged.
    fn command(&mut self) -> String {
        let mut reader = BufReader::new(self.0.try_clone().unwrap());
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the link was closed");
            if let Some(command) = line.strip_prefix("CMD ") {
                let (number, words) = command.trim().split_once(' ').unwrap();
                writeln!(self.0, "ACK {number} OK").unwrap();
                return words.to_owned();
            }
        }
    }
}

/// Of each setting that vn1 has: a value, and whether it waits for a reboot.
const OF_VIRTUAL: [(&str, &str, bool); 13] = [
    ("boot.delay", "1", false),
    ("boot.mode", "network", true),
    ("boot.retries", "3", false),
    ("boot.road", "pxe", true),
    ("boot.timeout", "none", false),
    ("cpu.cores", "1", true),
    ("disks", "1G", true),
    ("expose", "80:18080", false),
    ("kexec.allow", "false", false),
    ("mount.persist", "false", true),
    ("netsetup", "NAT", true),
    ("networks", "walt-net,lab", true),
    ("ram", "128M", true),
];

#[test]
fn every_setting_is_changed_counts_and_is_unset() {
    let room = prepared();
    let server = &room.server;
    let set = |name: &str, text: &str| server.walt(ANN, &["node", "config", name, text]).ok();
    let before = config(&room, "node", "vn1");
    assert_eq!(before["config"].as_object().unwrap().len(), OF_VIRTUAL.len(), "{before}");
    until("the virtual machine", SOON, || {
        (config(&room, "node", "vn1")["name"] == "vn1" && server.log().contains("started node=vn1"))
            .then_some(())
    });
    for (key, value, waits) in OF_VIRTUAL {
        let said = set("vn1", &format!("{key}={value}"));
        assert_eq!(said, if waits { REBOOT } else { "Done.\n" }, "{key}");
        let shown = server.walt(ANN, &["node", "config", "vn1"]).ok();
        assert!(shown.contains(&format!("\n{key}={value}\n")), "{shown}");
        let needed = config(&room, "node", "vn1")["reboot_needed"].clone();
        assert_eq!(needed, if waits { json!([key]) } else { json!([]) }, "{key}");
        // The value that is in effect needs no reboot.
        assert_eq!(set("vn1", &format!("{key}=")), "Done.\n", "{key}");
        assert_eq!(config(&room, "node", "vn1"), before, "{key}");
    }
    // What waits for the virtual machine is in effect after its next start.
    set("vn1", "ram=96M");
    set("vn1", "netsetup=nat");
    let shown = server.walt(ANN, &["node", "show"]).ok();
    assert!(shown.contains("vn1: reboot needed for netsetup, ram\n"), "{shown}");
    let row = shown.lines().find(|line| line.starts_with("vn1 ")).unwrap();
    assert!(row.contains(" NAT ") && row.contains("reboot needed"), "{shown}");
    server.walt(ANN, &["node", "reboot", "--hard", "vn1"]).ok();
    assert_eq!(config(&room, "node", "vn1")["reboot_needed"], json!([]));
    assert!(!server.walt(ANN, &["node", "show"]).ok().contains("reboot needed"));
    // A pause before the start: the node is off meanwhile.
    set("vn1", "boot.delay=2");
    let begun = std::time::Instant::now();
    server.walt(ANN, &["node", "reboot", "--hard", "vn1"]).ok();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_machine_boots_with_its_settings_and_is_told_how_to_reboot() {
    let mut room = prepared();
    let node = room.node("pc1");
    let station = room.station(Some(&node.mac), node.ip);
    let mut link = Link::open(&room, &station, 1);
    let set = |room: &Room, text: &str| room.server.walt(ANN, &["node", "config", "pc1", text]).ok();
    let needed = |room: &Room| config(room, "node", "pc1")["reboot_needed"].clone();
    for (key, value) in [("boot.mode", "network"), ("mount.persist", "false"), ("netsetup", "NAT")] {
        assert_eq!(set(&room, &format!("{key}={value}")), REBOOT, "{key}");
    }
    assert_eq!(needed(&room), json!(["boot.mode", "mount.persist", "netsetup"]));
    room.server.kill();
    room.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(needed(&room), json!(["boot.mode", "mount.persist", "netsetup"]), "after a kill -9");
    // The link comes back, and is the same boot: nothing has changed.
    drop(link);
    link = Link::open(&room, &station, 1);
    assert_eq!(needed(&room), json!(["boot.mode", "mount.persist", "netsetup"]));
    let reboot = |link: &mut Link| {
        std::thread::scope(|scope| {
            let said = scope.spawn(|| room.server.walt(ANN, &["node", "reboot", "pc1"]).ok());
            let words = link.command();
            assert_eq!(said.join().unwrap(), "Node pc1: rebooted ok.\n");
            words
        })
    };
    assert_eq!(reboot(&mut link), "REBOOT");
    assert_eq!(needed(&room), json!([]));
    link = Link::open(&room, &station, 2);
    assert_eq!(set(&room, "kexec.allow=false"), "Done.\n");
    assert_eq!(reboot(&mut link), "REBOOT firmware");
    // A boot that nobody here has ordered counts as well.
    link = Link::open(&room, &station, 3);
    assert_eq!(set(&room, "netsetup=lan"), REBOOT);
    drop(link);
    let _link = Link::open(&room, &station, 4);
    assert_eq!(needed(&room), json!([]));
    // A physical node has no memory to choose.
    let keys: Vec<String> =
        config(&room, "node", "pc1")["config"].as_object().unwrap().keys().cloned().collect();
    let wanted = [
        "boot.mode",
        "boot.retries",
        "boot.secure",
        "boot.timeout",
        "expose",
        "kexec.allow",
        "mount.persist",
        "netsetup",
    ];
    assert_eq!(keys, wanted);
}

#[test]
fn what_is_wrong_changes_nothing() {
    let room = prepared();
    let (vn1, unknown) = (config(&room, "node", "vn1"), config(&room, "device", "unknown-d327a0"));
    for (words, says) in [
        (
            "node config vn1 ram=1G cpu.cores=0",
            "'0' is not a value of 'cpu.cores': it must be a number from 1 to 64",
        ),
        (
            "node config vn1,pc1 netsetup=NAT ram=1G",
            "'ram' applies to virtual nodes only, and pc1 is a physical one",
        ),
        ("node config vn1 ram=1G ram=2G", "the setting 'ram' is given twice"),
        ("node config vn1 ram=1G nothing=1", "no setting is called 'nothing'; there are: boot.delay, "),
        ("node config vn1 netsetup", "'netsetup' is not of the form <setting>=<value>"),
        ("node config vn1,nope ram=1G", "No device with name 'nope' found."),
        ("node config vn1 snmp.version=2", "'snmp.version' is a setting of switches, and vn1 is a node"),
        ("device config vn1 poe.reboots=true", "'poe.reboots' is a setting of switches, and vn1 is a node"),
        (
            "node config vn1 expose=80:8080,80:8081",
            "cannot set 'expose': port 80 of the device is in it twice",
        ),
        ("node config vn1,vn2 expose=80:8080", "'expose' can be set for one device at a time"),
        ("node config vn1 expose=80:99999", "ports are numbers from 1 to 65535"),
        ("node config vn1 type=switch", "no setting is called 'type'"),
        (
            "device config vn1 type=switch",
            "'type' applies to devices of unknown type only, and vn1 is a node",
        ),
        (
            "device config unknown-d327a0 ram=1G",
            "'ram' applies to nodes only, and unknown-d327a0 is a device of unknown type",
        ),
        (
            "device config vn1,unknown-d327a0 netsetup=NAT boot.timeout=70",
            "'boot.timeout' applies to nodes only, and unknown-d327a0 is",
        ),
        (
            "device config server netsetup=NAT",
            "'netsetup' applies to devices of walt-net other than the server",
        ),
        (
            "device config unknown-d327a0 netsetup=NAT type=router",
            "'router' is not a value of 'type': it must be 'switch'",
        ),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        room.server.walt(ANN, &words).fails(1, says);
        assert_eq!(config(&room, "node", "vn1"), vn1, "{words:?}");
        assert_eq!(config(&room, "device", "unknown-d327a0"), unknown, "{words:?}");
    }
    room.server.walt(ANN, &["node", "config", "vn1", "--json", "ram=1G"]).fails(2, "--json");
}

#[test]
fn other_devices_have_settings() {
    let room = prepared();
    let server = &room.server;
    let run = |words: &str| server.walt(ANN, &words.split(' ').collect::<Vec<_>>()).ok();
    assert_eq!(
        run("device config unknown-d327a0"),
        "Device unknown-d327a0 has the following config applied:\nexpose=none\nnetsetup=LAN\ntype=unknown\n"
    );
    assert_eq!(
        run("device config unknown-d327a0 netsetup=nat type=switch"),
        "Device unknown-d327a0 was renamed to switch-d327a0 for clarity.\nDone. Reboot device(s) to see new settings in effect.\n"
    );
    let shown = run("device config switch-d327a0");
    assert!(shown.ends_with("expose=none\nnetsetup=NAT\ntype=switch\n"), "{shown}");
    let shown = run("device show");
    assert!(shown.lines().any(|l| l.starts_with("switch-d327a0 ") && l.ends_with(" NAT     ")), "{shown}");
    assert!(
        shown.lines().any(|l| l.starts_with("walt-server ") && l.ends_with(" server                   ")),
        "{shown}"
    );
    assert_eq!(run("device config server"), "Device walt-server has no config option available.\n");
    // Nodes and others in one set.
    assert_eq!(
        run("device config pc1,switch-d327a0 netsetup=lan"),
        "Done. Reboot device(s) to see new settings in effect.\n"
    );
    // A device that becomes a node keeps its settings.
    device(&room, "unknown-d327a1", "b8:27:eb:d3:27:a1", 41);
    run("device config unknown-d327a1 netsetup=NAT");
    let ip = room.on_net(41).to_string();
    let event =
        ["dhcp-event", "commit", "", "walt.node.pc-x86-64", &ip, "b8:27:eb:d3:27:a1", "", "0", "unknown"];
    assert!(server.server_command(&event).output().unwrap().status.success());
    assert_eq!(config(&room, "node", "node-d327a1")["config"]["netsetup"], "NAT");
}

/// The examples of the help pages, as they stand there.
#[test]
fn examples_of_the_help_pages() {
    let room = prepared();
    for topic in ["device-config", "node-config", "device-netsetup", "node-netsetup", "vnode-disks"] {
        help::run(&room.server, ANN, topic, |_| How::Ends);
    }
    // The node of the other pages has booted: here it is a machine.
    let node = room.node("pc1");
    let station = room.station(Some(&node.mac), node.ip);
    let _link = Link::open(&room, &station, 1);
    for (old, new) in [("vn1", "vn3"), ("pc1", "vn1")] {
        room.server.walt(ANN, &["node", "rename", old, new]).ok();
    }
    for topic in ["device-expose", "node-expose"] {
        help::run(&room.server, ANN, topic, |example| match example.command.contains(" config ") {
            true => How::Ends,
            false => How::UntilInterrupted,
        });
    }
}
