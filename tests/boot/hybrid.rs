//! Hybrid boot: a node copies its image to its disk and runs from there. What needs no machine is in
//! `tests/api/hybrid.rs`.

use super::{BOOT, BOOT_ID, MINI, SOON, USER, booted, on, wait};
use std::fs;
use std::process::Command;
use walt_testkit::{TestServer, until};

/// Kinds of disks, by what is in `walt_hybrid` on them.
const VOLATILE: &str = "disks=1G[template=hybrid-boot-v]";
const PERSISTENT: &str = "disks=1G[template=hybrid-boot-p]";
/// What a test adds to the image, so that the copy takes some seconds: MiB.
const BALLAST: u32 = 48;

fn server() -> TestServer {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    let ballast = server.dir().join("ballast");
    let random = format!("head -c {BALLAST}M /dev/urandom >'{}'", ballast.display());
    assert!(Command::new("sh").args(["-c", &random]).status().unwrap().success());
    fs::set_permissions(&ballast, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    server.walt(USER, &["image", "cp", ballast.to_str().unwrap(), &format!("{MINI}:/root/")]).ok();
    server
}

/// A node that boots from such a disk for the first time.
fn create(server: &TestServer, name: &str, disks: &str) {
    server.walt(USER, &["node", "create", name, "--image", MINI]).ok();
    server.walt(USER, &["node", "config", name, disks]).ok();
    server.walt(USER, &["node", "reboot", "--hard", name]).ok();
}

fn node(server: &TestServer, name: &str) -> serde_json::Value {
    let list = server.api(None).get("/api/v1/nodes").json();
    list["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone()
}

fn mode(server: &TestServer, name: &str) -> String {
    node(server, name)["boot_mode"].as_str().unwrap_or_default().to_owned()
}

fn console(server: &TestServer, name: &str) -> String {
    let mac = node(server, name)["mac"].as_str().unwrap().replace(':', "-");
    let log = fs::read(server.state_dir().join("nodes").join(mac).join("console.log")).unwrap();
    String::from_utf8_lossy(&log).into_owned()
}

/// What the console has since the last boot began.
fn last_boot(server: &TestServer, name: &str) -> String {
    let all = console(server, name);
    all.rsplit("*** Initializing...").next().unwrap().to_owned()
}

fn reboot(server: &TestServer, name: &str) {
    let before = on(server, name, BOOT_ID);
    server.walt(USER, &["node", "reboot", name]).ok();
    wait(server, name);
    assert_ne!(on(server, name, BOOT_ID), before);
}

#[test]
fn a_node_runs_from_its_disk() {
    let mut server = server();
    create(&server, "vn1", VOLATILE);
    wait(&server, "vn1");
    println!("{}", last_boot(&server, "vn1"));
    assert_eq!(mode(&server, "vn1"), "hybrid-volatile");
    assert_eq!(on(&server, "vn1", ". /bin/walt-env; echo $walt_boot_mode"), "hybrid-volatile\n");
    assert!(server.walt(USER, &["node", "show"]).ok().contains(" hybrid-volatile "));
    assert_eq!(on(&server, "vn1", "grep -c nfsroot /proc/mounts || true"), "0\n");

    // Its files are its own: it goes on without the server.
    on(&server, "vn1", "echo volatile >/root/volatile; echo local >/local/file; sync");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("the node's link to the new server", SOON, || (booted(&server, "vn1") == "yes").then_some(()));

    reboot(&server, "vn1");
    let told = last_boot(&server, "vn1");
    assert!(!told.contains("Copying the image"), "{told}");
    assert_eq!(on(&server, "vn1", "ls /root /local"), "/local:\n\n/root:\nballast\n");
}
