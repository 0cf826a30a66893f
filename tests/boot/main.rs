//! Nodes boot a real kernel in qemu; the demo runs from its start to its end.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod boots;
mod copy;
mod crash;
mod default;
mod demo;
mod firmware;
mod full;
mod hybrid;
mod isolation;
mod journey;
mod links;
mod machine;
mod mini;
mod nfs;
mod outside;
mod road;
mod run;
mod secure;
mod stages;
mod station;
mod tutorial;
mod upgrade;

use std::time::Duration;
use walt_testkit::{TestServer, User};

/// The image of a few megabytes.
const MINI: &str = "pc-x86-64-mini";
/// Tells one boot of a node from another.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
/// The normal user.
const USER: User = User::Account("nobody");
/// For what a person would call at once.
const SOON: Duration = Duration::from_secs(60);
/// For the boot of a node, in seconds as the command line takes it.
const BOOT_SECONDS: &str = "400";
/// For a node that still boots, until its shell answers.
const BOOT: Duration = Duration::from_secs(400);

/// Waits for a node as a user does. An emulated machine on a busy one gets all the time that there is.
#[track_caller]
fn wait(server: &TestServer, node: &str) {
    let _allowed = server.walt(USER, &["node", "config", node, "boot.timeout=none"]);
    let out = server.walt(USER, &["node", "wait", "--timeout", BOOT_SECONDS, node]);
    if out.status != Some(0) {
        eprintln!("{}", server.walt(USER, &["node", "show"]).out);
    }
    let out = out.ok();
    assert!(out.contains(&format!("Node {node}: booted in ")), "{out}");
}

/// Runs a command on the node, which must succeed.
#[track_caller]
fn on(server: &TestServer, node: &str, command: &str) -> String {
    server.walt(USER, &["node", "run", node, command]).ok()
}

/// The column `booted`.
fn booted(server: &TestServer, node: &str) -> String {
    let list = server.api(None).get("/api/v1/nodes").json();
    let nodes = list["nodes"].as_array().unwrap().clone();
    let node = nodes.iter().find(|n| n["name"] == node).unwrap();
    node["booted_text"].as_str().unwrap().to_owned()
}
