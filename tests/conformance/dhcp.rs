//! DHCP, by busybox udhcpc.

use crate::leases::{register, udhcpc};
use crate::ok;
use serde_json::Value;
use std::process::Command;
use walt_testkit::{Newcomer, Options, TestServer, User, until};

fn nodes(server: &TestServer) -> Vec<Value> {
    let text = server.walt(User::RootFor("ann"), &["node", "show", "--all", "--json"]).ok();
    serde_json::from_str::<Value>(&text).unwrap()["nodes"].as_array().unwrap().clone()
}

#[test]
fn an_unknown_device_keeps_its_address_and_is_no_node() {
    let mut server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let told = udhcpc(&station, &[]);
    let (own, ip) = (server.address().to_string(), told.ip());
    assert_ne!(ip, server.address());
    for (name, value) in [
        ("serverid", own.as_str()),
        ("siaddr", &own),
        ("tftp", &own),
        ("dns", &own),
        ("subnet", "255.255.255.0"),
        ("domain", "walt"),
        ("search", "walt"),
        ("router", ""),
        ("hostname", ""),
    ] {
        assert_eq!(told.get(name), value, "{name}");
    }
    let neighbours =
        ok(&Command::new("ip").args(["neigh", "show", "dev", &server.bridge()]).output().unwrap());
    let entry = format!("{ip} lladdr {} PERMANENT", station.mac());
    assert!(neighbours.contains(&entry), "{entry}: {neighbours}");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(udhcpc(&station, &[]).ip(), ip, "after a kill -9");
    assert_eq!(nodes(&server).len(), 0);
    // Virtual nodes get other addresses.
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).ok();
    assert_ne!(nodes(&server)[0]["ip"], ip.to_string());
    // The same machine, now with a boot loader that knows us: the address stays.
    assert_eq!(register(&station).ip(), ip);
    assert_eq!(nodes(&server).len(), 2);
}

#[test]
fn a_machine_that_says_so_becomes_a_physical_node() {
    let mut server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 0xab);
    let told = register(&station);
    assert_eq!(told.get("hostname"), "apu-574cab");
    let shown = server.walt(User::RootFor("ann"), &["node", "show", "--all"]).ok();
    let line = shown.lines().find(|l| l.starts_with("apu-574cab ")).unwrap_or_else(|| panic!("{shown}"));
    for word in ["physical", "pc-x86-64", &told.ip().to_string(), "booting"] {
        assert!(line.contains(word), "{word}: {shown}");
    }
    let node = &nodes(&server)[0];
    assert_eq!(node["image"], "waltplatform/pc-x86-64-default:latest");
    assert_eq!(node["mac"], station.mac());
    // Its name is what users call it, from the next lease on; its address is for ever.
    server.walt(User::RootFor("ann"), &["node", "rename", "apu-574cab", "apu1"]).ok();
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let again = udhcpc(&station, &[]);
    assert_eq!((again.get("hostname"), again.ip()), ("apu1", told.ip()));
    assert_eq!(nodes(&server).len(), 1);
    // It can be used like any other.
    server.walt(User::RootFor("ann"), &["node", "acquire", "apu1"]);
    assert_eq!(nodes(&server)[0]["owner"], "ann");
}

#[test]
fn a_model_without_image_is_told_to_the_admin() {
    let options = Options { config: "registries: []\n".into(), ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let station = Newcomer::plug(&server, 1);
    let told = udhcpc(&station, &["-V", "walt.node.rpi-4-b"]);
    assert_eq!(told.get("hostname"), "");
    assert_eq!(nodes(&server).len(), 0);
    let log = until("the server to name the image", std::time::Duration::from_secs(30), || {
        Some(server.log()).filter(|log| log.contains("rpi-4-b"))
    });
    assert!(log.contains("Device unknown-574c01 is a walt node of type 'rpi-4-b'."), "{log}");
    let log = until("the server to say what to do", std::time::Duration::from_secs(30), || {
        Some(server.log()).filter(|log| log.contains("is not a node yet"))
    });
    // It is the recipe of 64-bit boards that makes it.
    for part in
        ["waltplatform/rpi-4-b-default", "default-image build rpi64-default", "no registry is configured"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
    let shown = server.walt(User::RootFor("ann"), &["device", "show"]);
    assert!(shown.err.contains("says that it is a node of model 'rpi-4-b'"), "{shown:?}");
}

/// An address from elsewhere is refused, so that the client does not go on with it.
#[test]
fn a_foreign_address_is_refused() {
    let server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let other = std::net::Ipv4Addr::new(192, 0, 2, 7);
    let told = udhcpc(&station, &["-r", &other.to_string()]);
    assert_eq!(told.ip().octets()[..3], server.address().octets()[..3]);
}

/// The server is the router of those with `netsetup=NAT`, whether they are nodes or not; others have none.
#[test]
fn the_router_is_for_those_who_reach_out() {
    let server = TestServer::start_tiny();
    let (device, node) = (Newcomer::plug(&server, 1), Newcomer::plug(&server, 0xab));
    udhcpc(&device, &[]);
    assert_eq!(register(&node).get("router"), "");
    let ann = User::RootFor("ann");
    let listed: Value = serde_json::from_str(&server.walt(ann, &["device", "show", "--json"]).ok()).unwrap();
    let named = |mac: &str| {
        let all = listed["devices"].as_array().unwrap();
        all.iter().find(|d| d["mac"] == mac).unwrap()["name"].as_str().unwrap().to_owned()
    };
    let own = server.address().to_string();
    for station in [&device, &node] {
        let set = |value: &str| {
            server.walt(ann, &["device", "config", &named(station.mac()), &format!("netsetup={value}")]).ok()
        };
        set("NAT");
        assert_eq!(udhcpc(station, &[]).get("router"), own);
        set("LAN");
        assert_eq!(udhcpc(station, &[]).get("router"), "");
    }
    // The packet filter has the address of the device, which is a lease.
    server.walt(ann, &["device", "config", &named(device.mac()), "netsetup=NAT"]).ok();
    let set = ["list", "set", "inet", &format!("walt-{}", server.bridge()), "nat"];
    let listed = ok(&Command::new("nft").args(set).output().unwrap());
    assert!(listed.contains(&udhcpc(&device, &[]).ip().to_string()), "{listed}");
    server.walt(ann, &["device", "forget", "-y", &named(device.mac())]).ok();
    let listed = ok(&Command::new("nft").args(set).output().unwrap());
    assert!(!listed.contains("elements"), "{listed}");
}
