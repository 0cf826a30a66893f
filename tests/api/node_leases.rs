//! Leases of nodes: their end, who may take a node then, the queue, and holders that die.

use crate::ownership::image_of;
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::{TestServer, User, until};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
const EVE: User = User::RootFor("eve");
/// What happens without waiting for anything but the machine.
const SOON: Duration = Duration::from_secs(20);

/// A client that runs while the test does other things.
struct Running {
    child: Child,
    said: PathBuf,
}

impl Running {
    fn start(server: &TestServer, user: User, words: &[&str]) -> Self {
        let said =
            server.dir().join(format!("said-{}", words.join("-").replace('/', "_") + &format!("{user:?}")));
        let file = File::create(&said).unwrap();
        let mut command = server.walt_command(user, words);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), said }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Waits until it has said something.
    fn says(&self, what: &str) {
        until(&format!("{what:?} in {}", self.said.display()), SOON, || {
            self.text().contains(what).then_some(())
        });
    }

    fn signal(&self, number: i32) {
        let process = walt_sys::process::ProcessId::of(self.child.id() as i32).unwrap();
        process.signal(number).unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        until("the client to end", SOON, || self.child.try_wait().unwrap())
    }

    /// Waits until it has succeeded.
    fn succeeds(&mut self) -> String {
        let status = self.end();
        assert!(status.success(), "{status}: {}", self.text());
        self.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with nodes of ann.
fn server_with(nodes: &[&str]) -> TestServer {
    let server = TestServer::start_tiny();
    for node in nodes {
        server.walt(ANN, &["node", "create", node]).ok();
    }
    server
}

/// What the API says about a node.
fn node(server: &TestServer, name: &str) -> Value {
    let list = server.api(None).get("/api/v1/nodes").json();
    list["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone()
}

fn waiting(server: &TestServer, name: &str) -> Vec<String> {
    let node = node(server, name);
    node["waiting"].as_array().unwrap().iter().map(|w| w["user"].as_str().unwrap().to_owned()).collect()
}

fn expires(server: &TestServer, name: &str) {
    until(&format!("the lease of {name} to end"), SOON, || {
        (node(server, name)["lease"]["expired"] == true).then_some(())
    });
}

#[test]
fn a_lease_that_has_ended_takes_nothing_away() {
    let server = server_with(&["vn1"]);
    server.walt(ANN, &["node", "release", "vn1"]).ok();
    server.walt(ANN, &["node", "acquire", "--for", "2h", "vn1"]).ok();
    let shown = server.walt(ANN, &["node", "show"]).ok();
    assert!(shown.contains("lease") && shown.contains("1h 59m left"), "{shown}");
    let lease = node(&server, "vn1")["lease"].clone();
    let left = lease["seconds_left"].as_u64().unwrap();
    assert!((7100..=7200).contains(&left) && lease["expired"] == false && lease["held"] == false, "{lease}");
    // Others are asked, and told until when.
    let asked = server.walt(BOB, &["node", "acquire", "vn1"]);
    assert!(asked.err.contains("seems to be used by another user"), "{asked:?}");
    assert!(asked.err.contains("Node vn1 is leased to ann until "), "{asked:?}");
    assert_eq!(asked.status, Some(1));

    server.walt(ANN, &["node", "lease", "vn1", "1s"]).ok();
    expires(&server, "vn1");
    assert_eq!(image_of(&server, "vn1"), "ann/pc-x86-64:latest", "the node stays as it is");
    let shown = server.walt(ANN, &["node", "show"]);
    assert!(shown.out.contains("expired"), "{shown:?}");
    assert!(shown.err.contains("Your lease of node vn1 has ended"), "{shown:?}");
    // What still runs there is not disturbed without a question.
    let asked = server.walt(BOB, &["node", "reboot", "vn1"]);
    assert!(asked.status == Some(1) && asked.err.contains("seems to be used by another user"), "{asked:?}");

    let taken = server.walt(BOB, &["node", "acquire", "vn1"]);
    assert!(taken.err.contains("Node vn1 belonged to ann; the lease ended at "), "{taken:?}");
    taken.ok();
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
    assert_eq!(node(&server, "vn1")["lease"], Value::Null, "a lease is not inherited");
    let told = server.walt(ANN, &["node", "show"]).err;
    assert!(told.contains("Node vn1 was yours until ") && told.contains("when bob took it."), "{told}");
    assert_eq!(node(&server, "vn1")["taken"]["by"], "bob");
    assert!(server.log().contains("node taken from its owner"));
    // Once it is back, there is nothing more to say.
    server.walt(ANN, &["node", "acquire", "-y", "vn1"]).ok();
    let told = server.walt(ANN, &["node", "show"]).err;
    assert!(!told.contains("was yours"), "{told}");
}

#[test]
fn the_end_of_a_lease_is_moved() {
    let mut server = server_with(&["vn1", "vn2"]);
    let left = |server: &TestServer| node(server, "vn1")["lease"]["seconds_left"].as_u64();
    let near = |value: Option<u64>, wanted: u64| {
        let value = value.unwrap();
        assert!((wanted - 60..=wanted).contains(&value), "{value} is not {wanted}");
    };
    server.walt(ANN, &["node", "lease", "vn1", "+1h"]).fails(1, "Node vn1 has a lease without an end.");
    server.walt(ANN, &["node", "lease", "vn1", "2h"]).ok();
    near(left(&server), 7200);
    server.walt(ANN, &["node", "lease", "vn1", "+1h"]).ok();
    near(left(&server), 10800);
    let out = server.walt(ANN, &["node", "lease", "vn1", "-150m"]).ok();
    assert!(out.contains("Node vn1 belongs to ann until "), "{out}");
    near(left(&server), 1800);
    // All or none: vn2 has no end that could be moved.
    server.walt(ANN, &["node", "lease", "my-nodes", "+1h"]).fails(1, "Node vn2 has a lease without an end.");
    near(left(&server), 1800);
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{}", e.log));
    near(left(&server), 1800);
    server.walt(ANN, &["node", "lease", "vn1", "none"]).ok();
    assert_eq!(left(&server), None);
    let out = server.walt(BOB, &["node", "lease", "vn1"]).ok();
    assert_eq!(out, "Node vn1 belongs to ann, without an end.\n");

    server.walt(BOB, &["node", "lease", "vn1", "2h"]).fails(1, "Node vn1 does not belong to you.");
    server.walt(ANN, &["node", "lease", "vn1", "2x"]).fails(2, "'2x' must be +1h (later), -30m (earlier)");
    server.walt(ANN, &["node", "lease", "vn1", "9999d"]).fails(1, "cannot be leased for more than 366d");
    server.walt(BOB, &["node", "acquire", "--for", "0s", "vn1"]).fails(1, "can be leased for 1s to 366d");
    server.walt(BOB, &["node", "acquire", "--for", "1w", "vn1"]).fails(2, "must be a time span");
    assert_eq!(image_of(&server, "vn1"), "ann/pc-x86-64:latest");
}

#[test]
fn a_queue_is_served_in_order() {
    let server = server_with(&["vn1"]);
    let acquire = ["node", "acquire", "--queue", "vn1"];
    let mut bob = Running::start(&server, BOB, &acquire);
    bob.says("You are number 1 in the queue for Node vn1.");
    bob.says("Node vn1 belongs to ann, without an end.");
    let eve = Running::start(&server, EVE, &acquire);
    eve.says("You are number 2 in the queue for Node vn1. Before you: bob.");
    let mut zoe = Running::start(&server, User::RootFor("zoe"), &acquire);
    zoe.says("You are number 3 in the queue for Node vn1. Before you: bob and eve.");
    assert_eq!(waiting(&server, "vn1"), ["bob", "eve", "zoe"]);
    assert!(server.walt(ANN, &["node", "show"]).err.contains("In the queue for node vn1: bob, eve, zoe."));
    let out = server.walt(ANN, &["node", "lease", "vn1"]).ok();
    assert!(out.contains("  2. eve waits for it since "), "{out}");

    // Who is killed is out, and those behind move up.
    eve.kill();
    zoe.says("You are number 2 in the queue for Node vn1. Before you: bob.");
    assert_eq!(waiting(&server, "vn1"), ["bob", "zoe"]);
    server.walt(ANN, &["node", "release", "vn1"]).ok();
    assert!(bob.succeeds().contains("Node vn1 will now boot pc-x86-64."), "{}", bob.text());
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
    assert_eq!(waiting(&server, "vn1"), ["zoe"]);
    // ctrl-C, too.
    zoe.signal(2);
    assert_eq!(zoe.end().code(), Some(1), "{}", zoe.text());
    until("zoe to be out", SOON, || waiting(&server, "vn1").is_empty().then_some(()));
    // Nobody waits for himself.
    server.walt(BOB, &acquire).fails(1, "Node vn1 already belongs to you.");
}

#[test]
fn sets_are_given_whole_and_nobody_is_overtaken() {
    let server = server_with(&["vn1", "vn2"]);
    server.walt(ANN, &["node", "release", "vn1"]).ok();
    let mut bob = Running::start(&server, BOB, &["node", "acquire", "--queue", "--for", "1h", "vn2,vn1"]);
    bob.says("Node vn2 belongs to ann");
    assert_eq!(image_of(&server, "vn1"), "waltplatform/pc-x86-64-default:latest", "all or none");
    // vn1 is free, but bob waits for it, who came first.
    let mut eve = Running::start(&server, EVE, &["node", "acquire", "--queue", "vn1"]);
    eve.says("You are number 2 in the queue for Node vn1. Before you: bob.");
    let asked = server.walt(User::RootFor("zoe"), &["node", "acquire", "vn1"]);
    let warning = "Warning: bob and eve wait for node vn1 in the queue.";
    assert!(asked.status == Some(1) && asked.err.contains(warning), "{asked:?}");
    server.walt(ANN, &["node", "lease", "vn2", "1s"]).ok();
    bob.succeeds();
    for name in ["vn1", "vn2"] {
        assert_eq!(image_of(&server, name), "bob/pc-x86-64:latest");
        assert!(node(&server, name)["lease"]["seconds_left"].as_u64().unwrap() > 3500);
    }
    eve.says("You are number 1 in the queue for Node vn1.");
    server.walt(BOB, &["node", "remove", "vn1"]).ok();
    assert_eq!(eve.end().code(), Some(1));
    eve.says("a node was removed while waiting for it");
}

#[test]
fn the_queue_outlives_the_server() {
    let mut server = server_with(&["vn1"]);
    let acquire = ["node", "acquire", "--queue", "vn1"];
    let mut bob = Running::start(&server, BOB, &acquire);
    bob.says("You are number 1");
    let mut eve = Running::start(&server, EVE, &acquire);
    eve.says("You are number 2");
    server.kill();
    eve.says("The connection to the server broke");
    server.launch().unwrap_or_else(|e| panic!("{}", e.log));
    server.walt(ANN, &["node", "release", "vn1"]).ok();
    bob.succeeds();
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
    // One that dies with the server is awaited for some seconds only.
    let zoe = Running::start(&server, User::RootFor("zoe"), &acquire);
    zoe.says("You are number 2");
    server.kill();
    zoe.kill();
    server.launch().unwrap_or_else(|e| panic!("{}", e.log));
    until("zoe to be given up", SOON, || (waiting(&server, "vn1") == ["eve"]).then_some(()));
    server.walt(BOB, &["node", "release", "vn1"]).ok();
    eve.succeeds();
}

#[test]
fn nodes_that_were_given_when_the_server_died_are_not_lost() {
    let mut server = server_with(&["vn1"]);
    server.kill();
    server.launch_with(&[("WALT_FAIL_STORE", "node-granted")]).unwrap_or_else(|e| panic!("{}", e.log));
    let mut bob = Running::start(&server, BOB, &["node", "acquire", "--queue", "--for", "1h", "vn1"]);
    bob.says("You are number 1");
    // The server dies while it does this, and may not say how it ended.
    server.walt(ANN, &["node", "release", "vn1"]);
    server.wait_for_end();
    server.launch().unwrap_or_else(|e| panic!("{}", e.log));
    assert!(bob.succeeds().contains("Node vn1 belongs to you now."), "{}", bob.text());
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
    assert!(node(&server, "vn1")["lease"]["seconds_left"].as_u64().unwrap() > 3500);
    assert!(waiting(&server, "vn1").is_empty());
}

#[test]
fn a_holder_that_dies_is_missed() {
    let server = server_with(&["vn1"]);
    let holder = Running::start(&server, ANN, &["node", "lease", "--hold", "--grace", "4s", "vn1"]);
    holder.says("ctrl-C ends the lease.");
    let lease = node(&server, "vn1")["lease"].clone();
    assert!(lease["held"] == true && lease["seconds_left"] == Value::Null, "{lease}");
    let mut bob = Running::start(&server, BOB, &["node", "acquire", "--queue", "vn1"]);
    bob.says("Node vn1 belongs to ann as long as a program holds it.");
    std::thread::sleep(Duration::from_secs(5));
    assert!(server.walt(ANN, &["node", "show"]).ok().contains("held"), "heartbeats keep it");
    holder.kill();
    let killed = Instant::now();
    bob.succeeds();
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
    assert!(killed.elapsed() > Duration::from_secs(2), "not before the grace has passed");
    assert!(
        server.log().contains(r#"node taken from its owner node=vn1 from="ann" by=bob lease_was_over=true"#)
    );
}

#[test]
fn a_holder_that_ends_lets_go_at_once() {
    let server = server_with(&["vn1", "vn2"]);
    let mut holder = Running::start(&server, ANN, &["node", "lease", "--hold", "my-nodes"]);
    holder.says("ctrl-C ends the lease.");
    let other = server.walt(ANN, &["node", "lease", "--hold", "vn1"]);
    other.fails(1, "Node vn1 is held by another program of yours already");
    holder.signal(2);
    assert!(holder.succeeds().contains("Nodes vn1 and vn2 are not held any more"), "{}", holder.text());
    assert_eq!(node(&server, "vn1")["lease"]["expired"], true);
    // With a command, it is the command's status.
    let command = ["node", "lease", "--hold", "my-nodes", "--", "sh", "-c", "echo works; exit 7"];
    let ran = server.walt(ANN, &command);
    assert!(ran.status == Some(7) && ran.out.contains("works\n"), "{ran:?}");
    assert_eq!(node(&server, "vn2")["lease"]["expired"], true);
    assert_eq!(image_of(&server, "vn2"), "ann/pc-x86-64:latest");
    // What is acquired may be held from the start.
    let mut bob = Running::start(&server, BOB, &["node", "acquire", "--hold", "vn2"]);
    bob.says("ctrl-C ends the lease.");
    assert_eq!(node(&server, "vn2")["owner"], "bob");
    assert_eq!(node(&server, "vn2")["lease"]["held"], true);
    bob.signal(15);
    assert_eq!(bob.end().code(), Some(128 + 15), "{}", bob.text());
    assert_eq!(node(&server, "vn2")["lease"]["expired"], true);
}

#[test]
fn any_http_client_can_hold_nodes() {
    let mut server = server_with(&["vn1"]);
    let (ann, bob) = (server.api(Some("ann")), server.api(Some("bob")));
    let hold = json!({"name": "job-7", "silence": "4s"});
    assert_eq!(ann.node(&json!({"action": "lease", "nodes": "vn1", "hold": hold}), None).status, 200);
    let beat = json!({"action": "beat", "hold": "job-7"});
    assert_eq!(bob.node(&beat, None).status, 412, "bob has no hold of this name");
    bob.node(&json!({"action": "end-hold", "hold": "job-7"}), None);
    assert_eq!(node(&server, "vn1")["lease"]["held"], true, "bob cannot end that of ann");
    // The server is away for longer than it tolerates silence: that is not the holder's fault.
    server.kill();
    std::thread::sleep(Duration::from_secs(5));
    server.launch().unwrap_or_else(|e| panic!("{}", e.log));
    let events = ann.node(&beat, None).events();
    assert_eq!(events[0], json!({"event": "out", "text": "vn1"}), "{events:?}");
    expires(&server, "vn1");
    assert_eq!(ann.node(&beat, None).status, 412);
    // What has ended stays so, once the server has noticed it.
    until("the end on record", SOON, || server.log().contains("the holder has gone").then_some(()));
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{}", e.log));
    assert_eq!(node(&server, "vn1")["lease"]["expired"], true);
    for bad in
        [json!({"name": "a b"}), json!({"name": "x", "silence": "1d"}), json!({"name": "x", "silence": "0s"})]
    {
        let reply = ann.node(&json!({"action": "lease", "nodes": "vn1", "hold": bad}), None);
        assert_eq!(reply.status, 400, "{reply:?}");
    }
}

/// The lines `<user>$ walt …` of the help page, in order; those that end with `&` in the background.
#[test]
fn the_examples_of_the_help_page_work() {
    let page = include_str!("../../docs/help/node-ownership.md");
    let server = server_with(&["vn1", "vn2"]);
    server.walt(ANN, &["node", "release", "my-nodes"]).ok();
    let measure = server.dir().join("measure.sh");
    std::fs::write(&measure, "#!/bin/sh\necho measured\n").unwrap();
    std::fs::set_permissions(&measure, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut background = Vec::new();
    let mut lines = 0;
    for line in page.lines() {
        let Some((user @ ("ann" | "bob"), command)) = line.split_once("$ walt ") else { continue };
        let user = if user == "ann" { ANN } else { BOB };
        let mut words: Vec<&str> = command.split_whitespace().collect();
        lines += 1;
        if words.last() == Some(&"&") {
            words.pop();
            let running = Running::start(&server, user, &words);
            running.says("You are number 1");
            background.push(running);
            continue;
        }
        let mut walt = server.walt_command(user, &words);
        let ran = walt.current_dir(server.dir()).stdin(Stdio::null()).output().unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
        let out = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(line.contains("measure.sh"), out.contains("measured\n"), "{line}: {out}");
    }
    assert_eq!(lines, 11, "examples of the page");
    for mut running in background {
        running.succeeds();
    }
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");

    let script = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let script = script
        .replace("/run/walt/walt.sock", &server.socket().display().to_string())
        .replace("sleep 20", "sleep 1")
        .replace("./measure.sh\n", "./measure.sh; sleep 2; test \"$(walt_lease)\" = held || exit 9\n");
    let list = format!("curl -s --unix-socket {} http://walt/api/v1/nodes", server.socket().display());
    let script = format!(
        "walt_lease() {{ {list} | grep -o '\"expired\":false,\"held\":true' | grep -q . && echo held; }}\n{script}"
    );
    let mut shell = std::process::Command::new("sh");
    let ran = shell.arg("-c").arg(&script).current_dir(server.dir()).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success() && ran.stdout == b"measured\n", "{ran:?}: {script}");
    assert_eq!(image_of(&server, "vn2"), "root/pc-x86-64:latest");
    assert_eq!(node(&server, "vn2")["lease"]["expired"], true);
}
