//! `walt node run` on several nodes at once, by connections that stay.

use super::{BOOT_ID, BOOT_SECONDS, MINI, SOON, USER, on, wait};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::{TestServer, until};

/// Runs that are timed.
const RUNS: usize = 7;
/// A second command on a node takes no longer than this, in the median, on a machine that is not idle.
const SECOND_RUN_MAX: Duration = Duration::from_millis(500);
/// Nodes of the long test.
const MANY: usize = 20;

fn server_with_nodes(names: &[&str]) -> TestServer {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    for name in names {
        server.walt(USER, &["node", "create", name, "--image", MINI]).ok();
    }
    server
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Processes of ssh that hold connections of this server.
fn masters(server: &TestServer) -> Vec<String> {
    let path = server.dir().join("run/ssh");
    let found =
        Command::new("pgrep").args(["-f", &format!("^ssh .*{}/.* -N", path.display())]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_command_runs_on_several_nodes() {
    let mut server = server_with_nodes(&["vn1", "vn2", "Long-name"]);
    // Nobody waits for the nodes: the command does.
    let ran = server.walt(
        USER,
        &["node", "run", "my-nodes", "uname -n; printf half; echo err >&2; test $(uname -n) != vn2"],
    );
    assert_eq!(ran.status, Some(1), "the worst one: {ran:?}");
    assert_eq!(
        sorted(&ran.out),
        [
            "Long-name | Long-name",
            "Long-name | half",
            "vn1       | half",
            "vn1       | vn1",
            "vn2       | half",
            "vn2       | vn2"
        ]
    );
    assert_eq!(sorted(&ran.err), ["Long-name | err", "vn1       | err", "vn2       | err"]);
    assert_eq!(masters(&server).len(), 3, "a connection to each node stays");

    words_stay_words(&server);
    results_as_json(&server);
    a_second_command_is_quick(&server);
    ctrl_c_ends_what_runs_on_the_nodes(&server);
    a_client_that_is_killed_leaves_nothing(&server);
    on_terminals(&server);
    connections_survive_what_nodes_and_servers_do(&mut server);
    server.down();
    assert_eq!(masters(&server), Vec::<String>::new(), "down ends the connections");
    assert!(!server.dir().join("run/ssh").exists());
}

fn words_stay_words(server: &TestServer) {
    let words = ["a b", "it's", "\"q\"", "$HOME", "*", "", "a;b", "-n", "x\ny"];
    let ran = server.walt(USER, &[&["node", "run", "vn1", "printf", "<%s>"][..], &words].concat());
    assert_eq!(ran.ok(), "<a b><it's><\"q\"><$HOME><*><><a;b><-n><x\ny>");
    assert_eq!(on(server, "vn1", "cd /; echo $HOME 'a  b' | tr r R"), "/Root a  b\n");
    // The input goes to the first node, and the others have none.
    let ran = server.walt_with_input(USER, &["node", "run", "vn1,vn2", "wc", "-c"], "12345");
    assert_eq!(sorted(&ran.ok()), ["vn1 | 5", "vn2 | 0"]);
}

fn results_as_json(server: &TestServer) {
    let ran = server.walt(USER, &["node", "run", "--json", "VN2,vn1", "uname -n; echo err >&2; exit 3"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(3), ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["status"], 3);
    let node = |name: &str| {
        serde_json::json!({"node": name, "status": 3, "error": null, "stdout": format!("{name}\n"), "stderr": "err\n",
            "stdout_bytes": 4, "stderr_bytes": 4})
    };
    assert_eq!(json["nodes"], serde_json::json!([node("vn1"), node("vn2")]));
}

fn a_second_command_is_quick(server: &TestServer) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            on(server, "vn1", "true");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    println!("a second command on a node: {ms:?} ms");
    assert!(times[RUNS / 2] < SECOND_RUN_MAX, "{ms:?}");
}

/// Whether a process of this command line runs on one of these nodes.
fn runs(server: &TestServer, nodes: &str, what: &str) -> bool {
    let ran =
        server.walt(USER, &["node", "run", nodes, &format!("ps | grep '{what}' | grep -v grep || true")]);
    ran.ok().contains(what)
}

fn ctrl_c_ends_what_runs_on_the_nodes(server: &TestServer) {
    let command = "trap 'echo got INT; exit 9' INT; echo ready; sleep 1234; echo after";
    let mut terminal = server.terminal(USER, &["node", "run", "vn1,vn2", command]);
    terminal.expect("vn1 | ready", SOON);
    terminal.send("\x03");
    let (status, text) = terminal.end(SOON);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("vn1 | got INT") && !text.contains("after") && text.contains("Aborted."), "{text}");
    assert!(!runs(server, "vn1,vn2", "sleep 1234"));
    // What does not listen is ended all the same.
    let mut terminal =
        server.terminal(USER, &["node", "run", "vn1", "trap '' INT; echo ready; sleep 1235; sleep 1235"]);
    terminal.expect("ready", SOON);
    terminal.send("\x03");
    assert_eq!(terminal.end(SOON).0.code(), Some(1));
    assert!(!runs(server, "vn1", "sleep 1235"));
}

fn a_client_that_is_killed_leaves_nothing(server: &TestServer) {
    let mut command = server.walt_command(USER, &["node", "run", "vn1,vn2", "echo ready; sleep 1236"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    until("the command to run", SOON, || runs(server, "vn1,vn2", "sleep 1236").then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the end of the command", SOON, || (!runs(server, "vn1,vn2", "sleep 1236")).then_some(()));
}

fn on_terminals(server: &TestServer) {
    let ran = server.walt(USER, &["node", "run", "--term", "vn1,vn2", "tty >/dev/null && stty size"]);
    let out = ran.ok();
    let lines = sorted(&out);
    assert!(lines.len() == 2 && lines[0].starts_with("vn1 | ") && !out.contains('\r'), "{out:?}");
    let mut terminal = server.terminal(USER, &["node", "run", "--term", "vn1", "sleep 1237"]);
    until("the command to run", SOON, || runs(server, "vn1", "sleep 1237").then_some(()));
    terminal.send("\x03");
    let (_, text) = terminal.end(SOON);
    assert!(text.contains("closed."), "{text}");
    assert!(!runs(server, "vn1", "sleep 1237"));
}

fn connections_survive_what_nodes_and_servers_do(server: &mut TestServer) {
    let (boot_id, before) = (on(server, "vn1", BOOT_ID), masters(server));
    // Another server takes them over.
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    on(server, "vn2", "true");
    assert_eq!(masters(server), before, "adopted");
    // One that ended is replaced, and so is one to a boot that is over.
    let killed = Command::new("kill").args(["-KILL"]).args(&before).status().unwrap();
    assert!(killed.success());
    assert_eq!(on(server, "vn1", BOOT_ID), boot_id);
    let mut asked = server.terminal(USER, &["node", "run", "vn1", "echo ready; sleep 1238"]);
    asked.expect("ready", SOON);
    server.walt(USER, &["node", "reboot", "--hard", "vn1"]).ok();
    let (status, text) = asked.end(SOON);
    assert!(!status.success(), "a command on a node that is gone ends soon: {text}");
    wait(server, "vn1");
    let start = Instant::now();
    assert_ne!(on(server, "vn1", BOOT_ID), boot_id);
    println!("the first command after a reboot: {} ms", start.elapsed().as_millis());
}

#[test]
fn many_nodes_boot_together_and_run_a_command_each() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        println!("skipped: {MANY} nodes at once; WALT_TEST_LONG=1 asks for it");
        return;
    }
    let names: Vec<String> = (1..=MANY).map(|n| format!("vn{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = server_with_nodes(&names);
    let waited = |step: &str, start: Instant| println!("{step}: {} s", start.elapsed().as_secs());
    let start = Instant::now();
    server.walt(USER, &["node", "wait", "--timeout", BOOT_SECONDS, "my-nodes"]).ok();
    waited("boot", start);
    let start = Instant::now();
    let out = server.walt(USER, &["node", "reboot", "my-nodes"]).ok();
    assert_eq!(out, format!("{MANY} nodes: rebooted ok.\n"));
    // The command waits for the boots.
    let ran = server.walt(USER, &["node", "run", "my-nodes", "uname -n"]);
    waited("reboot and a command", start);
    assert_eq!(ran.err, "");
    let expected: Vec<String> = names.iter().map(|name| format!("{name} | {name}")).collect();
    assert_eq!(sorted(&ran.ok()), expected);
    let start = Instant::now();
    assert_eq!(server.walt(USER, &["node", "run", "my-nodes", "uname -n"]).ok().lines().count(), MANY);
    waited("the same command again", start);
    let log = server.log();
    assert!(!log.contains("does not end") && !log.contains("did not reboot"), "{log}");
}
