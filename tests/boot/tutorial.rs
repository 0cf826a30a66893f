//! The tutorial, as it stands in the help page, and the page about waiting for lines.

use super::{MINI, SOON, USER, on};
use std::time::Duration;
use walt_testkit::kills::Random;
use walt_testkit::{TestServer, help, help::How, images, until};

#[test]
fn the_tutorial_runs_as_written() {
    let mut server = TestServer::start();
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
    each_line_is_there_once(&mut server, "vn1");
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

/// The server is killed while a node logs by its own tool: each line is in the log once, and those that were logged while
/// the server was away come when the node has its link again.
fn each_line_is_there_once(server: &mut TestServer, node: &str) {
    let kills = if std::env::var_os("WALT_TEST_LONG").is_some() { 200 } else { 20 };
    let mut random = Random::seeded("kills of the server while a node logs");
    let writer = "{ i=0; while [ ! -e /tmp/enough ]; do echo line $i; i=$((i+1)); \
        [ $((i % 50)) != 0 ] || sleep 0.05; done; echo $i >/tmp/count; } | walt-log-cat numbered; mv /tmp/count /tmp/sent";
    on(server, node, &format!("setsid sh -c '{writer}' </dev/null >/dev/null 2>&1 & echo started"));
    let lines = |server: &TestServer| {
        let words = ["log", "show", "--issuers", node, "--streams", "^numbered$", "--history", "full"];
        server.walt(USER, &[&words[..], &["--format", "{line}", "^line"]].concat()).ok()
    };
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(100));
        random.sleep(1200);
        server.kill();
        random.sleep(300);
        server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    }
    // While the server is away, the node logs, and the tool ends.
    on(
        server,
        node,
        "setsid sh -c 'sleep 4; walt-log-echo away kept' </dev/null >/dev/null 2>&1 & echo started",
    );
    server.kill();
    std::thread::sleep(Duration::from_secs(8));
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("the line that the node kept", SOON, || {
        let words = ["log", "show", "--issuers", node, "--streams", "^away$", "--history", "full", "kept"];
        (!server.walt(USER, &words).ok().is_empty()).then_some(())
    });
    on(server, node, "touch /tmp/enough");
    let sent = until("the tool to have sent everything", SOON, || {
        let ran = server.walt(USER, &["node", "run", node, "cat /tmp/sent"]);
        (ran.status == Some(0)).then(|| ran.out.trim().parse::<u64>().unwrap())
    });
    let shown = lines(server);
    let mut numbers: Vec<u64> = shown.lines().map(|line| line["line ".len()..].parse().unwrap()).collect();
    // Those that waited have the time of the node, the others that of the server.
    numbers.sort_unstable();
    let found = numbers.len();
    assert!(numbers.into_iter().eq(0..sent), "{found} lines of {sent}");
    assert!(sent > 50 * kills / 2, "{sent} lines");
    println!("{kills} kills of the server, {sent} lines of a node");
}
