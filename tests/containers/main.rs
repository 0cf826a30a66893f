//! Image shells: a real image, a real runtime, a terminal.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod arm;
mod build;
mod copy;
mod crash;
mod escape;
mod fetch;
mod gone;
mod history;
mod hooks;
mod mini;
mod services;
mod trees;
mod users;

use std::process::Command;
use std::time::Duration;
use walt_testkit::{TestServer, User, repository};

/// The normal user.
const USER: User = User::Account("nobody");
/// For what a person would call at once.
const SOON: Duration = Duration::from_secs(60);

/// Lines of a script that write `tests/containers/<name>.c`, compiled, to `path`: static, since the mini image has no
/// libc.
fn unpack(server: &TestServer, name: &str, path: &str) -> String {
    let program = server.dir().join(name);
    let source = repository().join("tests/containers").join(name).with_extension("c");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-Wall", "-s", "-o"]).arg(&program).arg(source);
    let done = cc.output().unwrap();
    assert!(done.status.success(), "cc: {}", String::from_utf8_lossy(&done.stderr));
    let coded = Command::new("base64").arg(program).output().unwrap();
    let coded = String::from_utf8(coded.stdout).unwrap();
    format!("base64 -d >{path} <<'END'\n{coded}END\nchmod 755 {path}\n")
}
