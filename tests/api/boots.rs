//! Boots that fail before a node runs: their records, retries, and what says that a node needs a look.

use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use walt_testkit::{TestServer, User, images, until};

const ANN: User = User::RootFor("ann");
const SOON: Duration = Duration::from_secs(60);
/// An image whose boot scripts name a kernel that it does not have.
const BROKEN: &str = "pc-x86-64-broken";

fn import_broken(server: &TestServer) {
    let dir = server.dir().join("broken");
    let made = images::tiny(&dir);
    std::fs::remove_file(made.join("rootfs/boot/pc-x86-64/kernel")).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(made.join("rootfs")).arg("-cf").arg(made.join("rootfs.tar")).arg(".");
    assert!(tar.status().unwrap().success());
    let config = r#"{"Labels":{"walt.node.models":"pc-x86-64","walt.image.preferred-name":"pc-x86-64-broken:latest"}}"#;
    std::fs::write(made.join("config.json"), config).unwrap();
    server.import(BROKEN, &made);
    server.walt(ANN, &["image", "clone", &format!("walt:waltplatform/{BROKEN}")]).ok();
}

fn node(server: &TestServer) -> Value {
    server.api(None).get("/api/v1/nodes").json()["nodes"][0].clone()
}

fn boots(server: &TestServer) -> Vec<Value> {
    let list = server.walt(ANN, &["node", "boots", "vn1", "--json"]).ok();
    let list: Value = serde_json::from_str(&list).unwrap();
    list["boots"].as_array().unwrap().clone()
}

#[test]
fn a_node_that_cannot_be_started_needs_a_look() {
    let mut server = TestServer::start_tiny();
    import_broken(&server);
    server.walt(ANN, &["node", "create", "vn1", "--image", BROKEN]).ok();
    server.walt(ANN, &["node", "config", "vn1", "boot.retries=2"]).ok();
    // It ends although no limit is given, as soon as no try is left.
    server.walt(ANN, &["node", "wait", "vn1"]).fails(1, "node vn1 needs a look: not started: ");
    let reason = node(&server)["needs_look"].as_str().unwrap().to_owned();
    assert!(reason.contains("kernel") && reason.ends_with(" times)"), "{reason}");
    assert_eq!((&node(&server)["state"], &node(&server)["booted_text"]), (&"down".into(), &"NO".into()));
    let shown = server.walt(ANN, &["node", "show"]).ok();
    assert!(shown.contains(&format!("Node vn1 needs a look: {reason}\n")), "{shown}");
    assert_eq!(server.api(None).get("/api/v1/status").json()["nodes"]["needs_look"], 1);
    let log = server.log();
    assert!(log.contains("vn1: not started: ") && log.contains("trying hard-reboot (last try)."), "{log}");
    // All tries are one record.
    let all = boots(&server);
    assert_eq!((all.len(), &all[0]["cause"]), (1, &"ann (creation)".into()), "{all:?}");
    assert!(all[0]["attempts"].as_u64().unwrap() > 1 && all[0]["seconds"].is_null(), "{all:?}");
    let outcome = all[0]["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("not started (") && outcome.contains("kernel"), "{outcome}");

    // A new server knows it.
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(node(&server)["needs_look"], reason.as_str());
    server.walt(ANN, &["node", "wait", "vn1"]).fails(1, "needs a look");

    // A user gives it another image.
    server.walt(ANN, &["node", "boot", "vn1", "default"]).ok();
    assert!(node(&server)["needs_look"].is_null());
    let boot = until("the next boot", SOON, || boots(&server).get(1).cloned());
    assert_eq!(
        (&boot["number"], &boot["cause"], &boot["outcome"]),
        (&2.into(), &"ann (boot)".into(), &"boots".into())
    );
    assert_eq!(boot["kernel_line"], "panic=30");
    let names: Vec<&str> =
        boot["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(
        (names, &boot["stages"][1]["bytes"]),
        (vec!["script", "kernel", "start"], &4096.into()),
        "{boot}"
    );
    server.walt(ANN, &["node", "reboot", "--hard", "-y", "vn1"]).ok();
    assert_eq!(boots(&server)[1]["end"], "rebooted by ann (hard reboot requested)");
    server.walt(ANN, &["node", "remove", "-y", "vn1"]).ok();
}

/// Two minutes, since that is the least that can be set.
#[test]
fn a_node_that_hangs_is_rebooted_and_needs_a_look_at_last() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: two boots have to be overdue, a minute each; WALT_TEST_LONG=1 asks for it");
        return;
    }
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["node", "config", "vn1", "boot.timeout=60", "boot.retries=1"]).ok();
    let reason = "boot timeout reached, last stage: start (tried 2 times)";
    server.walt(ANN, &["node", "wait", "vn1"]).fails(1, &format!("node vn1 needs a look: {reason}"));
    let log = server.log();
    assert!(log.contains("vn1: boot timeout reached, trying hard-reboot (last try)."), "{log}");
    assert!(log.contains(&format!("vn1 needs a look: {reason}")), "{log}");
    let all = boots(&server);
    let shown: Vec<_> = all.iter().map(|boot| (&boot["outcome"], &boot["cause"])).collect();
    let timeout = Value::from("timeout");
    assert_eq!(
        shown,
        [(&timeout, &"ann (creation)".into()), (&timeout, &"the server (bootup timeout)".into())]
    );
}
