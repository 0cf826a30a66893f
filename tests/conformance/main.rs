//! What a server speaks on its network, heard by foreign clients: each in a network namespace that is plugged
//! into the bridge of a real server. No node boots.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod boots;
mod devices;
mod dhcp;
mod dns;
mod firmware;
mod leases;
mod logs;
mod router;
mod servers;
mod tftp;

use std::process::{Command, Output};

/// Standard output of a program that must have succeeded.
#[track_caller]
fn ok(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?}: {out}{}", output.status, String::from_utf8_lossy(&output.stderr));
    out
}

/// Whether a foreign program is there; if not, it says that the test skips.
fn has(program: &str, package: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: {program} is not installed (package {package})");
    }
    found
}
