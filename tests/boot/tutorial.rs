//! The tutorial, as it stands in the help page, and the page about waiting for lines.

use super::{MINI, SOON, USER};
use walt_testkit::{TestServer, help, help::How, images, until};

#[test]
fn the_tutorial_runs_as_written() {
    let server = TestServer::start();
    // The small image in the place of the default one: it boots in a third of the time.
    server.import("pc-x86-64-default", &images::built(MINI));
    let is_cleaning = |command: &str| command.contains(" remove");
    help::run(&server, USER, "tutorial", |example| match is_cleaning(&example.command) {
        true => How::ElsewhereIn("the end of this test"),
        false => How::Ends,
    });
    let range = ["log", "show", "--issuers", "ping,pong", "--history", "ping-pong-start:ping-pong-end"];
    let shown = |more: &[&str]| server.walt(USER, &[&range[..], more].concat()).ok();
    let of_experiment = ["--streams", "heard", "--format", "{issuer} {line}"];
    let mut lines: Vec<String> = shown(&of_experiment).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["ping pong", "pong ping"]);
    let mut objects: Vec<String> = shown(&["--streams", "heard", "--json"])
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| format!("{} {}", line["issuer"].as_str().unwrap(), line["line"].as_str().unwrap()))
        .collect();
    objects.sort_unstable();
    assert_eq!(objects, lines);
    // The console is a stream of bytes, and what the platform says names both.
    let console =
        server.walt(USER, &["log", "show", "--issuers", "ping", "--streams", "console", "--history", "full"]);
    assert!(console.ok().contains(" ping.virtualconsole -> "));
    let platform =
        server.walt(USER, &["log", "show", "--platform", "--history", "full", "--format", "{line}"]).ok();
    for said in ["node ping is booted\n", "node pong is booted\n", "nobody created ping\n"] {
        assert!(platform.contains(said), "{said}: {platform}");
    }
    // Another page with the same nodes.
    for (old, new) in [("ping", "vn1"), ("pong", "vn2")] {
        server.walt(USER, &["node", "rename", old, new]).ok();
    }
    server.walt(USER, &["node", "run", "my-nodes", "walt-log-echo app done"]).ok();
    help::run(&server, USER, "logging", |_| How::Ends);
    help::run(&server, USER, "log-wait", |_| How::Ends);
    // A reboot is said, with who wanted it.
    server.walt(USER, &["node", "reboot", "vn1"]).ok();
    until("what the log says of the reboot", SOON, || {
        let said =
            server.walt(USER, &["log", "show", "--platform", "--history", "full", "--format", "{line}"]).ok();
        let all =
            ["node vn1 is down (cause: reboot requested, method: soft-reboot)", "nobody rebooted vn1 (soft)"];
        all.iter().all(|line| said.contains(line)).then_some(())
    });
    for (old, new) in [("vn1", "ping"), ("vn2", "pong")] {
        server.walt(USER, &["node", "rename", old, new]).ok();
    }
    help::run(&server, USER, "tutorial", |example| match is_cleaning(&example.command) {
        true => How::Ends,
        false => How::ElsewhereIn("the beginning of this test"),
    });
}
