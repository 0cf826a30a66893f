//! A server of WalT 10 comes here, and its nodes boot as those that they were.

use super::{MINI, SOON, wait};
use crate::station::{Station, Switch};
use std::fs;
use std::process::Command;
use walt_testkit::{Options, TestServer, User, images, repository, until};

const ANN: User = User::RootFor("ann");

/// The dump of the fixture with the network of this server, without the virtual node.
fn dump(server: &TestServer) -> String {
    let text = fs::read_to_string(repository().join("tests/fixtures/walt10/dump.sql")).unwrap();
    let address = server.address().to_string();
    let network = &address[..=address.rfind('.').unwrap()];
    let lines = text.lines().filter(|line| !line.contains("52:54:00:aa:bb:cc"));
    lines.map(|line| line.replace("192.168.152.", network) + "\n").collect()
}

#[test]
fn imported_nodes_boot_with_their_names_addresses_images_and_persist() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: two emulated machines boot, which takes minutes (WALT_TEST_LONG=1 runs it)");
        return;
    }
    let switch = Switch::new();
    let options = Options { raw_device: Some(switch.cable.clone()), ..Options::default() };
    let mut server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.kill();
    let file = server.dir().join("walt10.sql");
    fs::write(&file, dump(&server)).unwrap();
    let names = ["docker.io/ann/pc-tools:v2", "docker.io/waltplatform/pc-x86-64-default:latest"];
    let archive = images::saved(server.dir(), &images::built(MINI), &names);
    let own = server.dir().join("nodes/52:54:00:0a:0b:01/persist_dirs/ann");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("results"), "of last year\n").unwrap();
    let owned = Command::new("chown").args(["1000:1000"]).arg(own.join("results")).status().unwrap();
    assert!(owned.success());
    let mut words = vec!["import-walt10", "--yes"];
    let (nodes, file, archive) =
        (server.dir().join("nodes"), file.display().to_string(), archive.display().to_string());
    let nodes = nodes.display().to_string();
    words.extend([file.as_str(), "--images", &archive, "--persist", &nodes]);
    let ran = server.server_command(&words).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));

    let one = Station::with_bios(&server, Some(&switch), 1, "ACME");
    let two = Station::with_bios(&server, Some(&switch), 2, "ACME");
    let address = server.address().to_string();
    let network = &address[..=address.rfind('.').unwrap()];
    for (station, name, ip, image) in [
        (&one, "pc-one", "11", "ann/pc-tools:v2"),
        (&two, "pc-two", "12", "waltplatform/pc-x86-64-default:latest"),
    ] {
        let list = server.api(None).get("/api/v1/nodes").json();
        let node = list["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["mac"] == station.mac.as_str())
            .unwrap()
            .clone();
        assert_eq!((&node["name"], &node["image"]), (&name.into(), &image.into()), "{node}");
        wait(&server, name);
        let on = |command: &str| server.walt(ANN, &["node", "run", name, command]).ok();
        assert_eq!(on("uname -n"), format!("{name}\n"));
        assert!(on("ip -4 addr").contains(&format!("inet {network}{ip}/")), "{}", on("ip -4 addr"));
        let line = on("cat /proc/cmdline");
        assert!(line.contains(&format!("/var/lib/walt/nodes/{}/fs", station.mac)), "{line}");
    }
    let on = |command: &str| server.walt(ANN, &["node", "run", "pc-one", command]).ok();
    assert_eq!(on("cat /persist/results; stat -c %u:%g /persist/results"), "of last year\n1000:1000\n");
    on("echo more >>/persist/results && sync");
    let kept = server.state_dir().join("persist/52-54-00-0a-0b-01/ann/results");
    until("what the node has written", SOON, || {
        (fs::read_to_string(&kept).unwrap() == "of last year\nmore\n").then_some(())
    });
    // netsetup=NAT came with it: it has a default route.
    assert!(on("ip route").contains("default via"), "{}", on("ip route"));
}
