//! The state as it changes: `GET /api/v1/events`, by lines and by WebSocket; clients over the death of the server.
//!
//! The clients here are not ours: they are written for this test, from what the page says.

mod crowd;

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;
use walt_testkit::{Options, TestServer, User, until};

const ANN: User = User::RootFor("ann");
const SOON: Duration = Duration::from_secs(30);

/// Things of one kind by id, as the messages have made them.
type Things = BTreeMap<String, Map<String, Value>>;

/// What a client has seen.
#[derive(Default)]
struct Seen {
    things: BTreeMap<String, Things>,
    snapshots: usize,
    servers: BTreeSet<String>,
    /// Each message, without snapshots.
    messages: Vec<Value>,
}

impl Seen {
    fn apply(&mut self, message: Value) {
        let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
        match message["event"].as_str().unwrap() {
            "snapshot" => {
                self.snapshots += 1;
                self.servers.insert(text("server"));
                self.things.clear();
                let lists = [
                    ("nodes", "node", "mac"),
                    ("images", "image", "fullname"),
                    ("sessions", "session", "id"),
                    ("operations", "operation", "id"),
                    ("leases", "lease", "mac"),
                ];
                for (list, kind, id) in lists {
                    for thing in message[list].as_array().unwrap() {
                        let all = self.things.entry(kind.to_owned()).or_default();
                        all.insert(
                            thing[id].as_str().unwrap().to_owned(),
                            thing.as_object().unwrap().clone(),
                        );
                    }
                }
                return;
            }
            "changed" => {
                let thing = self.things.entry(text("kind")).or_default().entry(text("id")).or_default();
                thing.extend(message["fields"].as_object().unwrap().clone());
            }
            "gone" => {
                let gone = self.things.entry(text("kind")).or_default().remove(&text("id"));
                assert!(gone.is_some(), "{message}");
            }
            "heartbeat" | "resync" => {}
            other => panic!("{other}"),
        }
        self.messages.push(message);
    }

    fn nodes(&self) -> Vec<Value> {
        self.things.get("node").into_iter().flatten().map(|(_, node)| Value::Object(node.clone())).collect()
    }
}

/// A client that follows the state for as long as this lives, and connects again when it is cut off.
struct Follower {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
}

impl Follower {
    fn start(socket: PathBuf, query: &str, hear: impl Fn(&Value) + Send + 'static) -> Self {
        let (seen, ended) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let query = query.to_owned();
        std::thread::spawn({
            let (seen, ended) = (seen.clone(), ended.clone());
            move || {
                while !ended.load(Ordering::SeqCst) {
                    // Cut off, or there is no server at the moment.
                    let _ = follow(&socket, &query, &ended, |message| {
                        hear(&message);
                        seen.lock().unwrap().apply(message);
                    });
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        });
        Self { seen, ended }
    }

    fn until<T>(&self, what: &str, condition: impl Fn(&Seen) -> Option<T>) -> T {
        until(what, SOON, || condition(&self.seen.lock().unwrap()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Opens the stream, and reads past the head of the answer.
fn open(socket: &Path, query: &str) -> std::io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET /api/v1/events{query} HTTP/1.1\r\nHost: walt\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let is_ok = head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: application/x-ndjson");
    assert!(is_ok, "{head}");
    Ok(reader)
}

fn follow(
    socket: &Path,
    query: &str,
    ended: &AtomicBool,
    mut hear: impl FnMut(Value),
) -> std::io::Result<()> {
    let mut reader = open(socket, query)?;
    let mut text = Vec::new();
    while !ended.load(Ordering::SeqCst) {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| std::io::ErrorKind::UnexpectedEof)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        text.extend_from_slice(&chunk[..size]);
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            hear(serde_json::from_slice(&line).unwrap());
        }
    }
    Ok(())
}

#[test]
fn changes_are_seen_as_they_happen() {
    let server = TestServer::start_tiny();
    let all = Follower::start(server.socket(), "", |_| {});
    all.until("a snapshot", |seen| (seen.snapshots == 1).then_some(()));
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let mac = all.until("the node", |seen| {
        let node = seen.things.get("node")?.values().find(|node| node["name"] == "vn1")?;
        Some(node["mac"].as_str().unwrap().to_owned())
    });
    // ann got her image by this, and it is in use.
    all.until("the image", |seen| {
        let image = seen.things.get("image")?.get("ann/pc-x86-64:latest")?;
        (image["in_use"] == true).then_some(())
    });
    server.walt(ANN, &["node", "config", "vn1", "boot.retries=7"]).ok();
    all.until("the setting", |seen| (seen.things["node"][&mac]["config"]["boot.retries"] == 7).then_some(()));
    server.walt(ANN, &["node", "rename", "vn1", "vn2"]).ok();
    all.until("the name", |seen| (seen.things["node"][&mac]["name"] == "vn2").then_some(()));
    server.walt(ANN, &["node", "lease", "vn2", "1h"]).ok();
    all.until("the lease", |seen| {
        let lease = seen.things.get("lease")?.get(&mac)?;
        (lease["user"] == "ann" && lease["node"] == "vn2" && lease["expired"] == false).then_some(())
    });
    // An operation that goes on is seen while it does.
    let waiting = json!({"action": "wait", "nodes": "vn2"});
    let api = server.api(Some("bob"));
    let waiter = std::thread::spawn(move || api.node(&waiting, None).status);
    all.until("the operation", |seen| {
        let operation = seen.things.get("operation")?.values().find(|one| one["what"] == "node wait vn2")?;
        (operation["user"] == "bob" && operation["label"] == "Waiting for bootup of Node vn2").then_some(())
    });
    // Only what was asked for.
    let one = Follower::start(server.socket(), "?kinds=node,lease&nodes=vn2", |_| {});
    one.until("a snapshot", |seen| (seen.snapshots == 1).then_some(()));
    server.walt(ANN, &["node", "create", "vn3"]).ok();
    all.until("the other node", |seen| (seen.things["node"].len() == 2).then_some(()));
    server.walt(ANN, &["node", "remove", "-y", "vn2"]).ok();
    one.until("the end", |seen| {
        (seen.things["node"].is_empty() && seen.things["lease"].is_empty()).then_some(())
    });
    all.until("no operation", |seen| seen.things["operation"].is_empty().then_some(()));
    assert_eq!(waiter.join().unwrap(), 200);
    let seen = one.seen.lock().unwrap();
    assert_eq!(seen.things.keys().collect::<Vec<_>>(), ["lease", "node"]);
    assert!(!seen.messages.iter().any(|m| m["id"] != mac), "{:?}", seen.messages);
    for (query, says) in [("?kinds=nodes", "unknown kind 'nodes' of events"), ("?nodes=nope", "nope")] {
        let refused = server.api(None).get(&format!("/api/v1/events{query}"));
        assert!(refused.status >= 400 && refused.body.contains(says), "{refused:?}");
    }
}

/// RFC 6455, as far as a server that sends text needs it.
#[test]
fn the_same_by_websocket() {
    let server = TestServer::start_tiny();
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = "GET /api/v1/events?kinds=node HTTP/1.1\r\nHost: walt\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        reader.read_line(&mut answer).unwrap();
    }
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{answer}"
    );
    let mut message = || -> Value {
        let mut start = [0; 2];
        reader.read_exact(&mut start).unwrap();
        assert_eq!(start[0], 0x81, "one whole text message");
        let length = match start[1] {
            126 => {
                let mut bytes = [0; 2];
                reader.read_exact(&mut bytes).unwrap();
                u16::from_be_bytes(bytes).into()
            }
            127 => panic!("a large message"),
            short => usize::from(short),
        };
        let mut text = vec![0; length];
        reader.read_exact(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let snapshot = message();
    assert_eq!((&snapshot["event"], &snapshot["nodes"]), (&json!("snapshot"), &json!([])));
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let new = message();
    assert_eq!(
        (&new["event"], &new["kind"], &new["fields"]["name"]),
        (&json!("changed"), &json!("node"), &json!("vn1"))
    );
    assert!(new["seq"].as_u64() > snapshot["seq"].as_u64());
    let refused = server.api(None).exchange(
        b"GET /api/v1/events HTTP/1.1\r\nHost: walt\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert!(refused.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&refused));
}

/// Reads lines of a program until one of them has this.
fn read_until(lines: &mut impl Iterator<Item = std::io::Result<String>>, what: &str) {
    let mut seen = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if line.contains(what) {
            return;
        }
        seen.push(line);
    }
    panic!("no '{what}' in {seen:?}");
}

#[test]
fn a_watch_goes_on_when_the_server_was_killed() {
    let mut server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let mut command: Command = server.walt_command(ANN, &["node", "show", "--watch"]);
    let mut watch =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(watch.stdout.take().unwrap()).lines();
    read_until(&mut out, "vn1: image ann/pc-x86-64:latest");
    server.walt(ANN, &["node", "config", "vn1", "netsetup=NAT"]).ok();
    read_until(&mut out, "vn1: netsetup NAT");
    // Of others, nothing is shown.
    server.walt(User::RootFor("bob"), &["node", "create", "vn2"]).ok();
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    server.walt(ANN, &["node", "rename", "vn1", "vn3"]).ok();
    read_until(&mut out, "vn3: was vn1");
    server.walt(ANN, &["node", "remove", "-y", "vn3"]).ok();
    read_until(&mut out, "vn3: not shown any more");
    let process = walt_sys::process::ProcessId::of(watch.id() as i32).unwrap();
    process.signal(2).unwrap();
    let (status, mut said) = (watch.wait().unwrap(), String::new());
    watch.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said, "The connection to the server broke: connecting again.\n");
}

#[test]
fn figures_for_prometheus() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let _follower = Follower::start(server.socket(), "", |_| {});
    let text = until("the figures", SOON, || {
        let reply = server.api(None).get("/metrics");
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body.contains("\nwalt_events_clients 1\n").then_some(reply.body)
    });
    promtool(&text);
    let families = checked(&text);
    for name in [
        "walt_nodes",
        "walt_boots_total",
        "walt_boot_duration_seconds",
        "walt_boot_stage_duration_seconds",
        "walt_nfs_operation_duration_seconds",
        "walt_image_store_bytes",
        "walt_sessions",
        "walt_api_request_duration_seconds",
        "walt_events_clients",
        "walt_log_lines_total",
    ] {
        assert!(families.contains(name), "no {name} in {text}");
    }
    let value = |sample: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        line.unwrap_or_else(|| panic!("no {sample} in {text}")).trim().parse().unwrap()
    };
    let nodes: f64 = ["off", "booting", "booted", "down"]
        .iter()
        .map(|state| value(&format!("walt_nodes{{state=\"{state}\"}}")))
        .sum();
    assert!(nodes == 1.0 && value("walt_image_store_layers") >= 1.0);
    let route = r#"route="/api/v1/actions/node",method="POST",status="200""#;
    assert_eq!(value(&format!("walt_api_request_duration_seconds_count{{{route}}}")), 1.0);
    // Routes are templates: what clients make up is not in the figures.
    server.api(None).get("/api/v1/made-up/by/me");
    server.api(None).get("/v2/made/up/manifests/latest");
    let text = server.api(None).get("/metrics").body;
    assert!(!text.contains("made") && text.contains("route=\"/v2/{*path}\""), "{text}");
}

/// `promtool check metrics`, where it is installed (Debian's package prometheus, which also starts a service).
fn promtool(text: &str) {
    let piped = |command: &mut Command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let mut child = match piped(Command::new("promtool").args(["check", "metrics"])) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("promtool is not installed: the text is checked by the rules of this test only");
            return;
        }
        started => started.unwrap(),
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Checks the text against the rules of the format and of names; the families in it. Stricter than `promtool check
/// metrics`, which takes it too.
fn checked(text: &str) -> BTreeSet<String> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let (mut name, mut kind, mut last) = (String::new(), String::new(), 0.0);
    assert!(text.ends_with('\n'));
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (family, help) = rest.split_once(' ').unwrap();
            assert!(
                help.ends_with('.') && families.insert(family.to_owned()),
                "twice, or without help: {line}"
            );
            let (of, is) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert_eq!(of, family);
            let plain = family.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(plain && family.starts_with("walt_"), "{family}");
            assert!(["counter", "gauge", "histogram"].contains(&is), "{is}");
            assert_eq!(family.ends_with("_total"), is == "counter", "{family}");
            (name, kind) = (family.to_owned(), is.to_owned());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && samples.insert(sample.to_owned()), "twice, or not a number: {line}");
        let bare = sample.split('{').next().unwrap();
        match kind.as_str() {
            "histogram" => {
                let part = bare.strip_prefix(&name).unwrap_or_else(|| panic!("{line} in {name}"));
                match part {
                    "_bucket" => {
                        let first = sample.contains("le=\"0.001\"")
                            || sample.contains("le=\"0.1\"")
                            || sample.contains("le=\"0.00001\"");
                        last = if first { 0.0 } else { last };
                        assert!(value >= last, "buckets grow: {line}");
                        last = value;
                    }
                    "_count" => assert_eq!(value, last, "{line}"),
                    "_sum" => {}
                    other => panic!("{other}"),
                }
            }
            _ => assert_eq!(bare, name, "{line}"),
        }
    }
    families
}

/// Options of a server whose network has room for this many nodes.
fn wide(prefix: u8) -> Options {
    Options { prefix: Some(prefix), ..Options::default() }
}
