//! `scripts/demo`, as somebody does who has just cloned the project.

use super::SOON;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use walt_testkit::{Machine, Terminal, repository};

/// For everything up to the prompt: packages, build, image, boot.
const DEMO: Duration = Duration::from_secs(2400);
/// For `stop`.
const STOP: Duration = Duration::from_secs(180);
/// Where the test's demo keeps its state.
const DIR: &str = "/var/tmp/walt-test-demo";

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("scripts/demo"));
    command.args(arguments).env("WALT_DEMO_DIR", DIR);
    if !long() {
        // The programs of these tests: compiling with the demo's own profile takes minutes.
        command.env("WALT_DEMO_PROFILE", "dev");
    }
    command
}

fn long() -> bool {
    std::env::var_os("WALT_TEST_LONG").is_some()
}

#[test]
fn demo_from_start_to_clean() {
    if Path::new("/sys/class/net/walt-demo").exists() {
        eprintln!("skipped: a demo is running on this machine ('scripts/demo stop' ends it)");
        return;
    }
    let _ = fs::remove_dir_all(DIR);
    let before = Machine::now();
    // Another Debian takes minutes to install, and is a test of its own (default.rs).
    let image = if long() { "default" } else { "mini" };
    let (node, system) = if long() { ("demo", "ID=debian") } else { ("demo-mini", "ID=walt-mini") };
    let start = ["--image", image];
    let mut terminal = Terminal::spawn(demo(&start));
    let said = terminal.expect("Caution: changes outside /persist", DEMO);
    assert!(said.starts_with("A server, an image and a booted node in 7 steps: about "), "{said}");
    for step in ["build", "server", &format!("image pc-x86-64-{image}"), &format!("node {node} booted")] {
        assert!(said.contains(&format!(" s  {step}\n")), "the time of '{step}' is not said");
    }
    assert!(said.contains(&format!("\n== 7/7 node {node} booted (about ")), "{said}");
    assert!(said.contains("To go on by hand:"), "{said}");
    terminal.expect("# ", SOON);
    terminal.line("uname -n");
    terminal.expect(&format!("\n{node}\n"), SOON);
    terminal.line("exit");
    let (status, rest) = terminal.end(SOON);
    assert!(status.success() && rest.contains("closed."), "{status}: {rest}");

    // A second run uses what is there; without a terminal it runs two commands instead of a shell.
    let second = demo(&start).stdin(std::process::Stdio::null()).output().unwrap();
    let out = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(out.contains(&format!("Linux {node} ")) && out.contains(system), "{out}");

    let mut stop = Terminal::spawn(demo(&["stop"]));
    stop.send("");
    let (status, said) = stop.end(STOP);
    assert!(status.success(), "{said}");
    assert_eq!(Machine::now().changes_since(&before), "", "after scripts/demo stop");
    assert!(Path::new(DIR).join("state").is_dir(), "stop keeps the state");
    let (status, said) = Terminal::spawn(demo(&["clean"])).end(STOP);
    assert!(status.success() && !Path::new(DIR).exists(), "{said}");
}
