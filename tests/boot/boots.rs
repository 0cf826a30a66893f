//! Records of real boots: the stages of a good one, and a kernel that panics.

use super::{MINI, USER, on, wait};
use serde_json::Value;
use std::process::Command;
use std::time::Instant;
use walt_testkit::{TestServer, images};

/// Name of an image whose init ends at once, which is a panic.
const BROKEN: &str = "pc-x86-64-broken";
/// Makes it from the small image.
const BREAK: &str = r#"
set -e
mkdir tree && tar --numeric-owner -xpf rootfs.tar -C tree
rm tree/sbin/init
printf '#!/bin/sh\nexit 1\n' >tree/sbin/init
chmod 755 tree/sbin/init
tar --numeric-owner -C tree -cf rootfs.tar . && rm -r tree
sed -i 's/pc-x86-64-mini:latest/pc-x86-64-broken:latest/' config.json
"#;

fn import_broken(server: &TestServer) {
    let mini = images::built(MINI);
    let dir = server.dir().join("broken");
    std::fs::create_dir(&dir).unwrap();
    for file in ["rootfs.tar", "config.json"] {
        std::fs::copy(mini.join(file), dir.join(file)).unwrap();
    }
    assert!(Command::new("sh").args(["-c", BREAK]).current_dir(&dir).status().unwrap().success());
    server.import(BROKEN, &dir);
    server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{BROKEN}")]).ok();
}

/// The boots of a node that are on record.
pub fn boots(server: &TestServer, node: &str) -> Vec<Value> {
    let list = server.walt(USER, &["node", "boots", node, "--json"]).ok();
    let list: Value = serde_json::from_str(&list).unwrap();
    list["boots"].as_array().unwrap().clone()
}

/// The stages of a boot, which are in their order, with plausible times.
#[track_caller]
pub fn stages(boot: &Value) -> Vec<&str> {
    let stages = boot["stages"].as_array().unwrap();
    let mut before = 0.0;
    for stage in stages {
        let (at, seconds) = (stage["at"].as_f64().unwrap(), stage["seconds"].as_f64().unwrap());
        assert!(seconds >= 0.0 && (at - before - seconds).abs() < 1e-6, "{boot}");
        before = at;
    }
    assert_eq!(boot["seconds"].as_f64(), Some(before), "{boot}");
    stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect()
}

/// Bytes that were loaded in a stage.
pub fn loaded(boot: &Value, stage: &str) -> u64 {
    let stages = boot["stages"].as_array().unwrap();
    let found = stages.iter().find(|known| known["stage"] == stage);
    found.and_then(|known| known["bytes"].as_u64()).unwrap_or_else(|| panic!("{stage}: {boot}"))
}

/// Runs the examples of a help page, as they stand there.
fn examples(server: &TestServer, topic: &str) {
    let page = server.walt(USER, &["help", "show", topic]).ok();
    let mut count = 0;
    for line in page.lines().filter_map(|line| line.trim().strip_prefix("$ walt ")) {
        let command = line.split('#').next().unwrap();
        server.walt(USER, &command.split_whitespace().collect::<Vec<_>>()).ok();
        count += 1;
    }
    assert!(count >= 3, "{topic}: {page}");
}

#[test]
fn boots_are_recorded_and_a_panic_needs_a_look() {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    import_broken(&server);
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    wait(&server, "vn1");
    a_good_boot(&server);
    for topic in ["node-bootup", "node-reboot"] {
        examples(&server, topic);
    }
    wait(&server, "vn1");
    let all = boots(&server, "vn1");
    let causes: Vec<&str> = all.iter().map(|boot| boot["cause"].as_str().unwrap()).collect();
    assert_eq!(
        causes,
        ["nobody (creation)", "nobody (reboot requested)", "nobody (hard reboot requested)"],
        "the examples of node-reboot"
    );
    assert_eq!(all[1]["end"], "rebooted by nobody (hard reboot requested)");

    server.walt(USER, &["node", "config", "vn1", "boot.retries=1"]).ok();
    server.walt(USER, &["node", "boot", "vn1", BROKEN]).ok();
    let start = Instant::now();
    let panic = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
    server
        .walt(USER, &["node", "wait", "vn1"])
        .fails(1, &format!("node vn1 needs a look: panic: {panic} (tried 2 times)"));
    println!("two boots that panic: {:?}", start.elapsed());
    let all = boots(&server, "vn1");
    assert_eq!(all.len(), 5, "{all:?}");
    for (boot, cause) in [(&all[3], "nobody (boot)"), (&all[4], "the server (kernel panic)")] {
        assert_eq!(
            (&boot["panic"], &boot["cause"], &boot["seconds"]),
            (&panic.into(), &cause.into(), &Value::Null)
        );
        assert_eq!(boot["outcome"], format!("panic: {panic}"));
        assert!(boot["stages"].as_array().unwrap().iter().any(|stage| stage["stage"] == "root"), "{boot}");
    }
    let shown = server.walt(USER, &["node", "boots", "vn1", "5"]).ok();
    assert!(shown.contains(&format!("Panic:       {panic}\n")), "{shown}");
    assert!(server.walt(USER, &["node", "show"]).ok().contains("Node vn1 needs a look: panic: "));
    let status = server.server_command(&["status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("1 needs a look"), "{status:?}");
    // Another image, and all is well.
    server.walt(USER, &["node", "boot", "vn1", MINI]).ok();
    wait(&server, "vn1");
    assert!(!server.walt(USER, &["node", "show"]).ok().contains("needs a look"));
}

fn a_good_boot(server: &TestServer) {
    let all = boots(server, "vn1");
    let boot = &all[0];
    println!("{}", server.walt(USER, &["node", "boots", "vn1", "1"]).ok());
    assert_eq!(stages(boot), ["script", "kernel", "initrd", "start", "root", "init", "ssh"], "{boot}");
    assert!(loaded(boot, "kernel") > 1_000_000 && loaded(boot, "initrd") > 100_000, "{boot}");
    let (calls, bytes) = (boot["nfs_calls"].as_u64().unwrap(), boot["nfs_bytes"].as_u64().unwrap());
    assert!(calls > 10 && bytes > 100_000, "{boot}");
    assert_eq!(
        (&boot["outcome"], &boot["mode"], &boot["end"]),
        (&"booted".into(), &"network".into(), &Value::Null)
    );
    let line = on(server, "vn1", "cat /proc/cmdline");
    assert_eq!(boot["kernel_line"], line.trim());
    assert!(boot["image_id"].as_str().unwrap().starts_with("sha256:"), "{boot}");
    let view = on(
        server,
        "vn1",
        "readlink /.walt-view; sed -n \"s/^view='\\(.*\\)'/\\1/p\" /run/walt/rootfs/etc/walt-node",
    );
    assert!(view.lines().any(|line| boot["view"] == line), "{view} {boot}");
    let list = server.api(None).get("/api/v1/nodes").json();
    assert_eq!(list["nodes"][0]["boot_seconds"], boot["seconds"]);
    // What the running system reads is not of the boot.
    on(server, "vn1", "cat /bin/busybox >/dev/null");
    assert_eq!(boots(server, "vn1")[0]["nfs_calls"], calls);
}
