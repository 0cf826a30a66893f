//! Devices that are not nodes, by foreign DHCP clients and by a sender that makes addresses up; the trash.

use crate::leases::{register, udhcpc};
use crate::{has, ok};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;
use walt_testkit::newcomer::INTERFACE;
use walt_testkit::{Newcomer, TestServer, User, until};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
/// How long something that goes on in the background may take.
const SOON: Duration = Duration::from_secs(60);

fn list(server: &TestServer) -> Value {
    serde_json::from_str(&server.walt(ANN, &["device", "show", "--json"]).ok()).unwrap()
}

fn device(server: &TestServer, name: &str) -> Option<Value> {
    list(server)["devices"].as_array().unwrap().iter().find(|d| d["name"] == name).cloned()
}

/// `walt-dhcp-event commit` with these words.
fn commit(server: &TestServer, words: &[&str]) -> Output {
    let words = [&["dhcp-event", "commit"], words].concat();
    server.server_command(&words).output().unwrap()
}

fn dig(server: &TestServer, station: &Newcomer, name: &str) -> String {
    let words = [&format!("@{}", server.address()), "+short", "+time=10", "+tries=3", name];
    ok(&station.run("dig", &words)).trim_end().to_owned()
}

#[test]
fn a_machine_that_takes_an_address_is_a_device() {
    let mut server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let ip = udhcpc(&station, &["-V", "PXEClient:x"]).ip().to_string();
    let shown = server.walt(ANN, &["device", "show"]);
    assert!(shown.out.contains("unknown-574c01 ") && shown.out.contains("walt-server "), "{shown:?}");
    assert!(shown.err.contains("type=switch"), "{shown:?}");
    let found = device(&server, "unknown-574c01").unwrap();
    for (key, value) in
        [("type", "unknown"), ("ip", &ip), ("mac", station.mac()), ("vendor_class", "PXEClient:x")]
    {
        assert_eq!(found[key], value, "{key}");
    }
    let log = server.log();
    let line = log.lines().find(|l| l.contains("new device")).unwrap_or_else(|| panic!("{log}"));
    let said = format!("new device name=unknown-574c01 type=unknown mac={} ip={ip}", station.mac());
    assert!(line.contains(&said), "{line}");
    // It is not a node, and it answers.
    server
        .walt(ANN, &["node", "reboot", "unknown-574c01"])
        .fails(1, "is not a node, it is a device of unknown type.");
    let pinged = server.walt(ANN, &["device", "ping", "unknown-574c01"]).ok();
    assert!(pinged.contains(&format!("bytes from {ip}")) && pinged.contains("10 received"), "{pinged}");
    // Names are unique among nodes and devices.
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["node", "create", "UNKNOWN-574c01"]).fails(1, "already exists");
    server.walt(ANN, &["device", "rename", "unknown-574c01", "vn1"]).fails(1, "already exists");
    server.walt(ANN, &["device", "rename", "unknown-574c01", "9"]).fails(1, "not a valid node name");
    server.walt(ANN, &["device", "rename", "server", "x1"]).fails(1, "cannot be renamed");
    server.walt(ANN, &["device", "rename", "unknown-574c01", "printer"]).ok();
    if has("dig", "bind9-dnsutils") {
        assert_eq!(dig(&server, &station, "printer.walt"), ip);
        assert_eq!(dig(&server, &station, "unknown-574c01.walt"), "");
    }
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(udhcpc(&station, &["-x", "hostname:tv"]).ip().to_string(), ip);
    let found = device(&server, "printer").unwrap();
    // A name that a user gave stays, and what the firmware said is not forgotten.
    assert_eq!(
        (&found["host_name"], &found["vendor_class"]),
        (&"tv".into(), &"udhcp 1.35.0".into()),
        "{found}"
    );

    // What a user gave asks before it is lost.
    let config = server.walt(ANN, &["device", "config", "printer"]).ok();
    let applied = "expose=none\nnetsetup=LAN\ntype=unknown\n";
    assert_eq!(config, format!("Device printer has the following config applied:\n{applied}"));
    server.walt(ANN, &["device", "config", "printer", "type=router"]).fails(1, "must be 'switch'");
    server.walt(ANN, &["device", "config", "printer,vn1", "type=switch"]).fails(1, "vn1 is a node");
    server
        .walt(ANN, &["device", "config", "printer,vn1", "ram=1G"])
        .fails(1, "printer is a device of unknown type");
    let said = server.walt(ANN, &["device", "config", "printer", "type=switch"]).ok();
    assert_eq!(said, "Done.\n");
    assert_eq!(device(&server, "printer").unwrap()["type"], "switch");
    let all = server.walt(ANN, &["device", "config", "all-devices"]).ok();
    for part in ["Device walt-server has no config option available.", "type=switch", "ram=512M"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let asked = server.walt(ANN, &["device", "forget", "printer"]);
    assert!(asked.status == Some(1) && asked.err.contains("its name and its type"), "{asked:?}");
    assert_eq!(server.walt(ANN, &["device", "forget", "-y", "printer"]).ok(), "done.\n");
    assert!(device(&server, "printer").is_none());
    let absent = server.walt(ANN, &["device", "forget", "printer"]);
    assert_eq!(absent.status, Some(0), "{absent:?}");
    assert!(absent.err.contains("No device with name 'printer' found."), "{absent:?}");
    server.walt(ANN, &["device", "forget", "vn1"]).fails(1, "use 'walt node remove'");
    server.walt(ANN, &["device", "forget", "server"]).fails(1, "cannot be forgotten");
    // It is new when it comes back, with a name of its own.
    udhcpc(&station, &["-x", "hostname:tv.example.org"]);
    assert!(device(&server, "tv-574c01").is_some());
    // As a node, it keeps the name that does not say that it is unknown.
    assert_eq!(register(&station).get("hostname"), "tv-574c01");
    assert_eq!(device(&server, "tv-574c01").unwrap()["type"], "node");
}

#[test]
fn events_of_other_tools_register_devices() {
    let server = TestServer::start_tiny();
    let address = |last: u8| {
        let [a, b, c, _] = server.address().octets();
        Ipv4Addr::new(a, b, c, last).to_string()
    };
    ok(&commit(&server, &["", "", &address(9), "52:54:00:00:00:09", "", "0", "unknown"]));
    ok(&commit(&server, &["", "", &address(10), "6c:b0:ce:18:d5:5d", "", "0", "unknown"]));
    ok(&commit(&server, &["", "", &address(11), "52:54:00:00:00:0b", "tv.lan", "0", "unknown"]));
    let types = |name: &str| device(&server, name).map(|d| d["type"].clone());
    assert_eq!(types("unknown-000009"), Some("unknown".into()));
    assert_eq!(types("switch-18d55d"), Some("switch".into()));
    assert_eq!(types("tv-00000b"), Some("unknown".into()));
    assert!(
        server.log().contains("new switch name=switch-18d55d type=switch mac=6c:b0:ce:18:d5:5d"),
        "{}",
        server.log()
    );
    let said = server.walt(ANN, &["device", "config", "unknown-000009", "type=switch"]).ok();
    assert_eq!(said, "Device unknown-000009 was renamed to switch-000009 for clarity.\nDone.\n");
    // By its other name, with a name as it is.
    let link = server.dir().join("bin/walt-dhcp-event");
    std::os::unix::fs::symlink(walt_testkit::programs().join("walt-server"), &link).unwrap();
    let event = |words: &[&str]| {
        let mut command = Command::new(&link);
        command.arg("commit").args(words).arg("--config").arg(server.config()).output().unwrap()
    };
    let fake = [&address(12), "52:54:00:00:00:0c", "fake-node", "0", "unknown"];
    ok(&event(&[&["--force-name", "walt.node.pc-x86-64", ""][..], &fake].concat()));
    assert_eq!(types("fake-node"), Some("node".into()));
    assert!(server.log().contains("new node name=fake-node model=pc-x86-64 mac=52:54:00:00:00:0c"));
    ok(&event(&["--force-name", "", "", &address(13), "52:54:00:00:00:0d", "fake-tv", "0", "unknown"]));
    // Nothing was given to it by a user.
    assert_eq!(server.walt(ANN, &["device", "forget", "fake-tv"]).ok(), "done.\n");
    for (words, why) in [
        (["", "", &address(12), "52:54:00:00:00:0e", "x1", "0", "unknown"], "cannot have the address"),
        (["", "", "192.0.2.1", "52:54:00:00:00:0e", "x1", "0", "unknown"], "cannot have the address"),
        (["", "", "192.0.2", "52:54:00:00:00:0e", "x1", "0", "unknown"], "192.0.2"),
        (["", "", &address(14), "52:54:00:00:00:0e", "x1", "2", "unknown"], "0..=1"),
    ] {
        let refused = event(&words);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{words:?}: {said}");
    }
    // A switch that says it is a node stays what it is.
    ok(&commit(&server, &["walt.node.pc-x86-64", "", &address(10), "6c:b0:ce:18:d5:5d", "", "1", "switch"]));
    assert_eq!(types("switch-18d55d"), Some("switch".into()));
    assert!(server.log().contains("switch-18d55d is recorded as a switch"), "{}", server.log());
}

#[test]
fn a_board_that_was_swapped_is_reported() {
    let server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    register(&station);
    udhcpc(&station, &["-V", "walt.node.rpi-4-b"]);
    let reports = || server.log().matches("but says that it is 'rpi-4-b'").count();
    assert_eq!(reports(), 1);
    udhcpc(&station, &["-V", "walt.node.rpi-4-b"]);
    assert_eq!(reports(), 1, "once");
    let found = device(&server, "apu-574c01").unwrap();
    assert_eq!((&found["model"], &found["claimed_model"]), (&"pc-x86-64".into(), &"rpi-4-b".into()));
    for show in [&["device", "show"][..], &["node", "show", "--all"]] {
        let shown = server.walt(ANN, show);
        assert!(shown.err.contains("says that it is 'rpi-4-b' now"), "{shown:?}");
    }
    // A system that does not say what it runs on changes nothing; the right model does.
    udhcpc(&station, &[]);
    assert_eq!(device(&server, "apu-574c01").unwrap()["claimed_model"], "rpi-4-b");
    register(&station);
    assert_eq!(device(&server, "apu-574c01").unwrap()["claimed_model"], Value::Null);
}

/// The directory of `/persist` of a station, and what a test keeps in it.
fn data(server: &TestServer, station: &Newcomer) -> std::path::PathBuf {
    server.state_dir().join("persist").join(station.mac().replace(':', "-")).join("ann/data")
}

fn write_data(server: &TestServer, station: &Newcomer, text: &str) {
    let path = data(server, station);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn trash(server: &TestServer) -> Vec<Value> {
    list(server)["trash"].as_array().unwrap().clone()
}

#[test]
fn a_forgotten_node_comes_back_as_it_was() {
    let server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let ip = register(&station).ip();
    server.walt(ANN, &["node", "rename", "apu-574c01", "apu1"]).ok();
    server.walt(ANN, &["node", "acquire", "apu1"]);
    server.walt(ANN, &["node", "config", "apu1", "boot.timeout=300"]).ok();
    write_data(&server, &station, "1");
    server.walt(ANN, &["node", "remove", "apu1"]).fails(1, "is a real node (not virtual).");
    server.walt(ANN, &["node", "forget", "apu1"]).fails(1, "for 30 days, then lost");
    let asked = server.walt_with_input(BOB, &["device", "forget", "--force", "apu1"], "n\n");
    assert!(asked.status == Some(1) && asked.err.contains("seems to be used by another user"), "{asked:?}");
    assert_eq!(server.walt(ANN, &["device", "forget", "--force", "apu1"]).ok(), "done.\n");
    assert!(device(&server, "apu1").is_none() && !data(&server, &station).exists());
    let shown = server.walt(ANN, &["device", "show"]);
    assert!(shown.err.contains("In the trash: 1 node(s)"), "{shown:?}");
    let shown = server.walt(ANN, &["device", "show", "--trash"]).ok();
    assert!(shown.contains("apu1 ") && shown.contains("ann/pc-x86-64"), "{shown}");
    server.walt(ANN, &["device", "restore", "apu2"]).fails(1, "No node with name 'apu2' is in the trash.");
    // What is in the way is not lost; empty directories, which a mount can have left, are not.
    let way = data(&server, &station);
    fs::create_dir_all(way.parent().unwrap()).unwrap();
    fs::write(&way, "3").unwrap();
    let ran = server.walt(ANN, &["device", "restore", "apu1"]);
    assert!(ran.status == Some(1) || ran.status == Some(255), "{ran:?}");
    assert!(ran.err.contains("is in the way") && fs::read_to_string(&way).unwrap() == "3", "{ran:?}");
    fs::remove_file(&way).unwrap();
    assert_eq!(server.walt(ANN, &["device", "restore", "apu1"]).ok(), "Node apu1 was restored.\n");
    assert_eq!(fs::read_to_string(data(&server, &station)).unwrap(), "1");
    let config = server.walt(ANN, &["node", "config", "apu1"]).ok();
    assert!(config.contains("boot.timeout=300"), "{config}");
    assert!(trash(&server).is_empty());
    let told = udhcpc(&station, &[]);
    assert_eq!((told.ip(), told.get("hostname")), (ip, "apu1"));

    // Meanwhile, others have taken its name and its address, and its image is gone.
    server.walt(ANN, &["node", "forget", "-y", "apu1"]).ok();
    server.walt(ANN, &["node", "create", "apu1"]).ok();
    assert_eq!(device(&server, "apu1").unwrap()["ip"], ip.to_string(), "the lowest that is free");
    server.walt(ANN, &["node", "release", "apu1"]);
    server.walt(ANN, &["image", "remove", "-y", "pc-x86-64"]).ok();
    let restored = server.walt(ANN, &["device", "restore", "APU1"]);
    assert_eq!(restored.status, Some(0), "{restored:?}");
    for part in ["the node is called apu1-2.", "is taken: it has", "boots the default image of its model"] {
        assert!(restored.err.contains(part), "{part}: {restored:?}");
    }
    let told = udhcpc(&station, &[]);
    assert_eq!(told.get("hostname"), "apu1-2");
    assert_ne!(told.ip(), ip);
    assert_eq!(fs::read_to_string(data(&server, &station)).unwrap(), "1");

    // A machine that is forgotten while it runs is soon a node again. That one makes room, and is not lost either.
    server.walt(ANN, &["node", "forget", "-y", "apu1-2"]).ok();
    register(&station);
    assert!(!data(&server, &station).exists(), "a new node has nothing of the old one");
    write_data(&server, &station, "2");
    server.walt(ANN, &["device", "restore", "apu1-2"]).fails(1, "by the name apu-574c01");
    server.walt(ANN, &["device", "restore", "-y", "apu1-2"]).ok();
    assert_eq!(fs::read_to_string(data(&server, &station)).unwrap(), "1");
    let left = trash(&server);
    assert_eq!((left.len(), &left[0]["name"]), (1, &"apu-574c01".into()), "{left:?}");
}

#[test]
fn a_kill_loses_nothing_of_a_forgotten_node() {
    let mut server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    register(&station);
    server.walt(ANN, &["node", "rename", "apu-574c01", "apu1"]).ok();
    write_data(&server, &station, "1");
    for (point, words) in [
        ("trash-recorded", ["node", "forget", "-y", "apu1"]),
        ("trash-moved", ["node", "forget", "-y", "apu1"]),
        ("restore-begun", ["device", "restore", "-y", "apu1"]),
        ("restore-moved", ["device", "restore", "-y", "apu1"]),
    ] {
        if point.starts_with("trash") {
            // What the previous point has left in the trash is complete.
            if !trash(&server).is_empty() {
                server.walt(ANN, &["device", "restore", "apu1"]).ok();
            }
            assert_eq!(fs::read_to_string(data(&server, &station)).unwrap(), "1", "{point}");
        }
        server.kill();
        server.launch_with(&[("WALT_FAIL_STORE", point)]).unwrap_or_else(|e| panic!("{point}: {e:?}"));
        let ran = server.walt(ANN, &words);
        assert_ne!(ran.status, Some(0), "{point}: the server was to be killed: {ran:?}");
        server.wait_for_end();
        server.launch().unwrap_or_else(|e| panic!("{point}: {e:?}"));
        let found = trash(&server);
        assert_eq!((found.len(), &found[0]["name"]), (1, &"apu1".into()), "{point}: {found:?}");
        assert!(!data(&server, &station).exists() && device(&server, "apu1").is_none(), "{point}");
    }
    server.walt(ANN, &["device", "restore", "apu1"]).ok();
    assert_eq!(fs::read_to_string(data(&server, &station)).unwrap(), "1");

    // The trash is emptied, also by a server that was killed while it did that.
    server.walt(ANN, &["node", "forget", "-y", "apu1"]).ok();
    let short = fs::read_to_string(server.config()).unwrap() + "limits: {trash-keep: 1s}\n";
    fs::write(server.config(), short).unwrap();
    let bin = server.state_dir().join("trash");
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    server.kill();
    std::thread::sleep(Duration::from_secs(2));
    // It may end before it answers.
    let _ = server.launch_with(&[("WALT_FAIL_STORE", "trash-expired")]);
    server.wait_for_end();
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("the trash to be empty", SOON, || (fs::read_dir(&bin).unwrap().count() == 0).then_some(()));
    server.walt(ANN, &["device", "restore", "apu1"]).fails(1, "is in the trash");
}

/// A DHCP message of a client whose address is made up, with options 53, 50.
fn message(kind: u8, number: u32, ciaddr: Ipv4Addr, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0, 0, 0x80, 0]);
    bytes.extend(ciaddr.octets());
    bytes.resize(28, 0);
    bytes.extend([2, 0]);
    bytes.extend(number.to_be_bytes());
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    if let Some(ip) = requested {
        bytes.extend([50, 4]);
        bytes.extend(ip.octets());
    }
    bytes.push(255);
    bytes
}

/// The kind of a reply: option 53.
fn kind(reply: &[u8]) -> Option<u8> {
    let mut options = reply.get(240..)?;
    loop {
        let (code, length) = (*options.first()?, usize::from(*options.get(1)?));
        match code {
            53 => return options.get(2).copied(),
            255 => return None,
            _ => options = options.get(2 + length..)?,
        }
    }
}

/// Sends a message and waits for its reply: its kind, or none within some time.
fn ask(socket: &UdpSocket, bytes: &[u8]) -> Option<u8> {
    socket.send_to(bytes, "255.255.255.255:67").unwrap();
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        if buffer[4..8] == bytes[4..8] {
            return kind(&buffer[..length]);
        }
    }
}

#[test]
fn strangers_that_make_addresses_up_do_no_harm() {
    const STRANGERS: u32 = 10_000;
    const DEVICES_MAX: usize = 1024;
    let server = TestServer::start_tiny();
    let node = Newcomer::plug(&server, 1);
    let ip = register(&node).ip();
    let printer = Newcomer::plug(&server, 2);
    udhcpc(&printer, &[]);
    server.walt(ANN, &["device", "rename", "unknown-574c02", "printer"]).ok();
    let stranger = Newcomer::plug(&server, 3);
    udhcpc(&stranger, &[]);
    ok(&stranger.run("ip", &["route", "add", "default", "dev", INTERFACE]));
    let socket = stranger.udp("0.0.0.0:68");
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let [a, b, c, _] = server.address().octets();
    let station = |number: u32| Ipv4Addr::new(a, b, c, 5 + (number % 240) as u8);
    // First, those that give their address back, so that the next one gets it: more than are kept on record.
    let mut given = 0;
    for number in 0..DEVICES_MAX as u32 + 100 {
        let ip = station(number);
        if ask(&socket, &message(3, number, Ipv4Addr::UNSPECIFIED, Some(ip))) == Some(5) {
            given += 1;
        }
        socket.send_to(&message(7, number, ip, None), "255.255.255.255:67").unwrap();
    }
    assert!(given > DEVICES_MAX, "{given} got an address");
    let devices = list(&server)["devices"].as_array().unwrap().len();
    // The server and the node are not in the table.
    assert_eq!(devices, DEVICES_MAX + 2);
    // Then, those that keep it, and those for which there is none.
    for number in 100_000..100_000 + STRANGERS {
        socket.send_to(&message(1, number, Ipv4Addr::UNSPECIFIED, None), "255.255.255.255:67").unwrap();
        ask(&socket, &message(3, number, Ipv4Addr::UNSPECIFIED, Some(station(number))));
    }
    assert_eq!(list(&server)["devices"].as_array().unwrap().len(), DEVICES_MAX + 2);
    assert!(device(&server, "printer").is_some());
    // A node is served meanwhile, and so is a device that had its address before.
    assert_eq!(udhcpc(&node, &[]).ip(), ip);
    udhcpc(&printer, &[]);
    assert_eq!(server.walt(ANN, &["node", "show", "--all", "--names-only"]).ok(), "apu-574c01\n");
}
