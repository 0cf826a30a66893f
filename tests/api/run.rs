//! Commands on nodes, with stand-ins: an ssh that runs commands on this machine, and stations that speak the node link.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use walt_testkit::{Options, Registered, TestServer, User, images, until};

const ANN: User = User::RootFor("ann");
const SOON: Duration = Duration::from_secs(30);
/// The node that ssh does not reach.
const GONE: u8 = 13;

/// Masters go to the background; the node [`GONE`] is out of reach; commands run here, as many arguments as they may be.
const SSH: &str = r#"#!/bin/sh
case " $* " in
    *" -O "*) exit 0 ;;
    *".13 "*) echo "ssh: connect to host: No route to host" >&2; exit 255 ;;
    *" -N "*) exit 0 ;;
esac
for last; do :; done
exec sh -c "$last"
"#;

/// A server whose nodes are stand-ins.
struct Room {
    server: TestServer,
    nodes: Vec<Node>,
}

/// A station that is a node.
struct Node {
    machine: Registered,
    /// What the server has ordered.
    orders: Arc<Mutex<Vec<String>>>,
}

impl Room {
    fn new(numbers: &[u8]) -> Self {
        let mut server = TestServer::prepare(Options::default());
        let bin = server.dir().join("programs");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("ssh"), SSH).unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let path = [("PATH", path.as_str())];
        server.launch_with(&path).unwrap_or_else(|e| panic!("{e:?}"));
        let tiny = images::tiny(server.dir());
        server.import(images::TINY, &tiny);
        let nodes = numbers.iter().map(|&number| Node::new(&mut server, number)).collect();
        Self { server, nodes }
    }
}

impl Node {
    /// Registers `n<number>`, which says that it has booted.
    fn new(server: &mut TestServer, number: u8) -> Self {
        let machine = Registered::plug(server, &format!("n{number}"), number);
        let link = machine.connect().expect("the node link");
        let orders = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let orders = orders.clone();
            move || speak(link, number, &orders)
        });
        until("the node to be booted", SOON, || {
            let list = server.api(None).get("/api/v1/nodes").json();
            let nodes = list["nodes"].as_array().unwrap().clone();
            nodes.iter().any(|n| n["name"] == format!("n{number}") && n["booted"] == true).then_some(())
        });
        Self { machine, orders }
    }
}

/// The node's side of its link, until the server closes it.
fn speak(mut link: TcpStream, number: u8, orders: &Mutex<Vec<String>>) {
    let id = format!("01234567-89ab-cdef-0123-4567890000{number:02x}");
    let hello = format!("REQ_NODE_LINK\nHELLO 1 view=- boot_id={id} uptime=1 mode=network\nBOOTED\n");
    let lines = BufReader::new(link.try_clone().unwrap()).lines();
    if link.write_all(hello.as_bytes()).is_err() {
        return;
    }
    for line in lines.map_while(Result::ok) {
        let mut words = line.splitn(3, ' ');
        let answer = match (words.next(), words.next(), words.next()) {
            (Some("BEAT"), ..) => "BEAT\n".to_owned(),
            (Some("CMD"), Some(order), Some(what)) => {
                orders.lock().unwrap().push(what.to_owned());
                let verdict = if number == GONE { "KO /bin/blink is not in this image" } else { "OK" };
                format!("ACK {order} {verdict}\n")
            }
            _ => continue,
        };
        if link.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Seconds to sleep that no other process here sleeps.
fn unique(number: u32) -> String {
    format!("{}", 1_000_000 * number + std::process::id())
}

/// Whether a process sleeps for so long here.
fn runs(argument: &str) -> bool {
    Command::new("pgrep").args(["-fx", &format!("sleep {argument}")]).output().unwrap().status.success()
}

#[test]
fn a_command_on_several_nodes() {
    let room = Room::new(&[11, 12, GONE]);
    let server = &room.server;
    let ran = server.walt(ANN, &["node", "run", "all-nodes", "echo out; echo err >&2; printf last; exit 4"]);
    assert_eq!(ran.status, Some(255), "{ran:?}");
    assert_eq!(sorted(&ran.out), ["n11 | last", "n11 | out", "n12 | last", "n12 | out"]);
    let failed =
        "Error: n13: Could not reach this node. Try again later. (ssh: connect to host: No route to host)";
    assert_eq!(sorted(&ran.err), [failed, "n11 | err", "n12 | err"]);

    let ran = server.walt(ANN, &["node", "run", "--json", "n12,n13,N11", "cat; exit 4"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let status: Vec<_> = json["nodes"].as_array().unwrap().iter().map(|n| n["status"].clone()).collect();
    assert_eq!(
        (json["status"].clone(), status),
        (255.into(), vec![4.into(), 4.into(), serde_json::Value::Null])
    );

    // One node: as the command itself.
    let ran = server.walt_with_input(ANN, &["node", "run", "n11", "cat; echo err >&2; exit 4"], "in");
    assert_eq!((ran.status, ran.out.as_str(), ran.err.as_str()), (Some(4), "in", "err\n"));
    let ran = server.walt(ANN, &["node", "run", "n11,", "printf", "<%s>", "a b", "it's", "$HOME", ""]);
    assert_eq!(ran.ok(), "<a b><it's><$HOME><>");
    let much = "x".repeat(3 << 20);
    assert_eq!(server.walt_with_input(ANN, &["node", "run", "n11", "cat"], &much).ok().len(), much.len());
    server.walt(ANN, &["node", "run", "n13", "true"]).fails(255, "Could not reach this node.");
    let long = "x".repeat(101 << 10);
    server.walt(ANN, &["node", "run", "n11", &long]).fails(1, "the command is longer than 100 KiB");

    // The owner is asked about all nodes at once.
    server.walt(ANN, &["node", "acquire", "n11,n12"]).ok();
    let warning = "Warning: Nodes n11 and n12 seem to be used by another user.";
    server.walt(User::RootFor("bob"), &["node", "run", "all-nodes", "true"]).fails(1, warning);
}

#[test]
fn ctrl_c_and_a_killed_client_end_the_command() {
    let room = Room::new(&[11, 12]);
    let server = &room.server;
    let long = unique(1);
    let command = format!("echo ready; sleep {long}; echo after");
    let mut terminal = server.terminal(ANN, &["node", "run", "n11,n12", &command]);
    terminal.expect("| ready", SOON);
    until("the command on both nodes", SOON, || runs(&long).then_some(()));
    terminal.send("\x03");
    let (status, text) = terminal.end(SOON);
    assert!(status.code() == Some(1) && text.contains("Aborted.") && !text.contains("after"), "{text}");
    assert!(!runs(&long));
    // What does not listen to it is ended all the same.
    let long = unique(2);
    let command = format!("trap '' INT; echo ready; sleep {long}; sleep {long}");
    let mut terminal = server.terminal(ANN, &["node", "run", "n11", &command]);
    terminal.expect("ready", SOON);
    terminal.send("\x03");
    assert_eq!(terminal.end(SOON).0.code(), Some(1));
    assert!(!runs(&long));
    let long = unique(3);
    let command = ["node", "run", "n11,n12", &format!("sleep {long}")];
    let mut client = server.walt_command(ANN, &command).stdin(Stdio::null()).spawn().unwrap();
    until("the command", SOON, || runs(&long).then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    until("the end of the command", SOON, || (!runs(&long)).then_some(()));
}

#[test]
fn a_node_blinks_as_long_as_somebody_looks() {
    let room = Room::new(&[11, GONE]);
    let (server, node) = (&room.server, &room.nodes[0]);
    let orders = || node.orders.lock().unwrap().clone();
    assert_eq!(server.walt(ANN, &["node", "blink", "N11", "1"]).ok(), "blinking for 1s...\ndone.\n");
    assert_eq!(orders(), ["BLINK 1", "BLINK 0"]);
    let mut client = server
        .walt_command(ANN, &["node", "blink", "n11"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the node to blink", SOON, || (orders().len() == 3).then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    until("the node to stop", SOON, || (orders().last().is_some_and(|o| o == "BLINK 0")).then_some(()));
    let mut terminal = server.terminal(ANN, &["node", "blink", "n11", "600"]);
    terminal.expect("blinking for 600s...", SOON);
    terminal.send("\x03");
    let (status, text) = terminal.end(SOON);
    assert!(status.code() == Some(1) && text.contains("Aborted."), "{text}");
    until("the node to stop", SOON, || (orders().len() == 6).then_some(()));
    server
        .walt(ANN, &["node", "blink", "n13"])
        .fails(1, "Blink request to n13 failed: /bin/blink is not in this image.");
    server.walt(ANN, &["node", "blink", "n11", "0"]).fails(1, "the duration must be 1 to 86400 seconds.");
    server.walt(ANN, &["node", "blink", "n11", "x"]).fails(2, "");
    // It is one node's business.
    server.walt(ANN, &["node", "blink", "all-nodes"]).fails(1, "this command must target 1 node only.");
    assert!(room.nodes[1].machine.netns.path().exists());
}

#[test]
fn sets_and_shells_of_other_devices() {
    let room = Room::new(&[11]);
    let server = &room.server;
    let [a, b, c, _] = server.address().octets();
    let words = [
        "dhcp-event",
        "commit",
        "acme",
        "",
        &format!("{a}.{b}.{c}.20"),
        "52:54:00:18:d5:5d",
        "",
        "0",
        "unknown",
    ];
    assert!(server.server_command(&words).output().unwrap().status.success());
    server.walt(ANN, &["device", "config", "unknown-18d55d", "type=switch"]).ok();
    for command in [&["node", "reboot"][..], &["node", "wait"], &["node", "config"], &["node", "blink"]] {
        for (set, name, what) in [
            ("N11,Switch-18d55d", "switch-18d55d", "a switch"),
            ("all-switches", "switch-18d55d", "a switch"),
            ("n11,server", "walt-server", "the server"),
        ] {
            let says = format!("Error: {name} is not a node, it is {what}.\nsee 'walt device show'");
            server.walt(ANN, &[command, &[set]].concat()).fails(1, &says);
        }
        let none = "No matching devices found! (tip: walt help show node-ownership)";
        server.walt(ANN, &[command, &["explorable-switches"]].concat()).fails(1, none);
    }
    server
        .walt(ANN, &["node", "run", "all-devices", "true"])
        .fails(1, "switch-18d55d is not a node, it is a switch.");
    server.walt(ANN, &["node", "shell", "server"]).fails(1, "walt-server is not a node, it is the server.");
    assert!(server.walt(ANN, &["device", "config", "ALL-switches,Server"]).ok().contains("type=switch"));

    // The stand-in runs the last word, which is the address: it is enough that ssh is asked.
    let ran = server.walt(ANN, &["device", "shell", "--user", "admin", "switch-18d55d"]);
    assert!(ran.err.contains(&format!("{a}.{b}.{c}.20")), "{ran:?}");
    server
        .walt(ANN, &["device", "shell", "--user=-oProxyCommand=x", "switch-18d55d"])
        .fails(1, "is not a user name");
    server.walt(ANN, &["device", "shell", "server"]).fails(1, "walt-server is the server itself");
    server.walt(ANN, &["device", "shell", "nope"]).fails(1, "No device with name 'nope' found.");
    server.walt(ANN, &["device", "shell", "--user", "bob", "n11"]).fails(1, "n11 is a node");
    let ran = server.walt_with_input(ANN, &["device", "shell", "switch-18d55d"], "\n");
    assert!(ran.err.contains("SSH user name: "), "{ran:?}");
}
