//! Log lines: what nodes send, what users ask for, and what is left of both when the server is killed.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use walt_testkit::{Options, Ran, Registered, TestServer, User, help, help::How, images, until};

pub const ANN: User = User::RootFor("ann");
pub const SOON: Duration = Duration::from_secs(60);
const NETCONSOLE_PORT: u16 = 12342;

/// A server with a node `n1`, and `n2` if there are two.
pub fn with_nodes(nodes: usize, config: &str) -> (TestServer, Vec<Registered>) {
    let options = Options { config: config.to_owned(), ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(images::TINY, &images::tiny(server.dir()));
    let nodes =
        (0..nodes).map(|i| Registered::plug(&server, &format!("n{}", i + 1), 100 + i as u8)).collect();
    (server, nodes)
}

pub fn show(server: &TestServer, more: &[&str]) -> Ran {
    let words = ["log", "show", "--issuers", "all-nodes", "--format", "{issuer}.{stream} {line}"];
    server.walt(ANN, &[&words[..], more].concat())
}

pub fn full(server: &TestServer) -> String {
    show(server, &["--history", "full"]).ok()
}

#[test]
fn lines_of_existing_images() {
    let (server, nodes) = with_nodes(2, "");
    nodes[0].log_line("app", "hello");
    nodes[1].send_log(
        "app",
        "NO_TIMESTAMPS",
        b"caf\xc3\xa9 \xff half \xe2\x82\nnul \0 byte\n\nCLOSE\nafter the end\n",
    );
    nodes[0].send_log("cut", "NO_TIMESTAMPS", b"whole\nrest");
    assert_eq!(
        full(&server),
        "n1.app hello\nn2.app caf\u{e9} \\xff half \\xe2\\x82\nn2.app nul \\x00 byte\nn2.app \n\
         n1.cut whole\nn1.cut rest\nn1.cut <disconnected!>\n"
    );
    // Times of the sender; those that cannot be right are replaced.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let lines = format!("{}.25 first\n5 old\n{} future\nnone\nCLOSE\n", now - 100, now + 100);
    nodes[0].send_log("timed", "TIMESTAMPS_INSIDE", lines.as_bytes());
    let timed = ["log", "show", "--issuers", "n1", "--streams", "timed", "--history", "full", "--json"];
    let text = server.walt(ANN, &timed).ok();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |i: usize| (lines[i]["line"].as_str().unwrap(), lines[i]["timestamp"].as_f64().unwrap());
    assert_eq!(of(0), ("first", (now - 100) as f64 + 0.25));
    for (i, text) in ["old", "future", "none"].iter().enumerate() {
        let (line, at) = of(i + 1);
        assert!(line == *text && at >= now as f64 && at < (now + 60) as f64, "{}", lines[i + 1]);
    }
    // Bytes that are not UTF-8 are there as they came.
    let text = server.walt(ANN, &["log", "show", "--issuers", "n2", "--history", "full", "--json"]).ok();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["line_base64"], "Y2Fmw6kg/yBoYWxmIOKC");
    assert_eq!((&first["issuer"], &first["stream"]), (&"n2".into(), &"app".into()));
    // A node that was renamed keeps its lines; one that is not a node has none.
    server.walt(ANN, &["node", "rename", "-y", "n2", "other"]).ok();
    assert!(full(&server).contains("other.app caf"));
    let stranger = Registered::stranger(&server, 222);
    stranger.log_line("app", "of a stranger");
    assert!(!full(&server).contains("stranger"));
}

#[test]
fn a_long_line_is_cut_at_a_limit_and_goes_on() {
    let (server, nodes) = with_nodes(1, "");
    let size = if std::env::var_os("WALT_TEST_LONG").is_some() { 1 << 30 } else { (1 << 20) * 5 / 2 };
    let mut bytes = vec![b'x'; size];
    bytes.extend_from_slice(b"\nnext\nCLOSE\n");
    nodes[0].send_log("long", "NO_TIMESTAMPS", &bytes);
    drop(bytes);
    let shown = full(&server);
    let lines: Vec<&str> = shown.lines().map(|line| line.strip_prefix("n1.long ").unwrap()).collect();
    assert_eq!(lines.last(), Some(&"next"));
    assert_eq!(lines.iter().map(|line| line.len()).sum::<usize>(), size + 4);
    assert!(lines.iter().all(|line| line.len() <= 1 << 20), "{}", lines.len());
}

#[test]
fn what_users_ask_for() {
    let (server, nodes) = with_nodes(2, "");
    nodes[0].log_line("app.one", "alpha 1");
    nodes[1].log_line("app.two", "beta 2");
    nodes[0].log_line("other", "gamma 3");
    let log = |words: &[&str]| server.walt(ANN, &[&["log"], words].concat());
    let lines = |more: &[&str]| show(&server, &[&["--history", "full"], more].concat()).ok();
    // Patterns are searched for, not anchored; linear time.
    assert_eq!(lines(&["a [12]$"]), "n1.app.one alpha 1\nn2.app.two beta 2\n");
    assert_eq!(lines(&["--streams", "^app\\."]), "n1.app.one alpha 1\nn2.app.two beta 2\n");
    assert_eq!(lines(&["--streams", "o$", "x"]), "");
    for (words, message) in [
        (&["show"][..], "You must specify at least one of the options --realtime and --history."),
        (&["show", "--issuers", "n3", "--history", "full"], "No device with name 'n3' found."),
        (&["show", "--issuers", "n1", "--history", "half"], "Invalid HISTORY_RANGE: "),
        (&["show", "--issuers", "n1", "--history", "nope:"], "Invalid HISTORY_RANGE: "),
        (&["show", "--issuers", "n1", "--history", "-1s:-2s"], "Invalid HISTORY_RANGE: "),
        (&["show", "--issuers", "n1", "--history", "full", "a("], "'a(' cannot be used"),
        (&["show", "--issuers", "n1", "--history", "full", "--streams", "["], "'[' cannot be used"),
        (
            &["show", "--issuers", "n1", "--history", "full", "--format", "{lin}"],
            "Could not display the log record. Verify your format string.",
        ),
        (&["show", "--history", "full"], "No matching devices found!"),
    ] {
        log(words).fails(1, message);
    }
    for words in [
        &["show", "--platform", "--issuers", "n1", "--history", "full"][..],
        &["show", "--platform", "--server", "--history", "full"],
        &["show", "--json", "--format", "x", "--history", "full"],
        &["wait", "--mode", "SOME", "x"],
        &["wait"],
    ] {
        assert_eq!(log(words).status, Some(2), "{words:?}");
    }
    // The platform, and the server itself.
    let platform =
        log(&["show", "--platform", "--history", "full", "--format", "{issuer} {stream}: {line}"]).ok();
    assert!(
        platform.contains("walt-server platform.devices: new node name=n1 model=pc-x86-64 mac="),
        "{platform}"
    );
    let daemon = log(&["show", "--server", "--history", "full"]).ok();
    assert!(daemon.contains(" walt-server.daemon.info -> serving "), "{daemon}");
    server.walt(ANN, &["node", "rename", "-y", "n2", "nn2"]).ok();
    until("what ann did", SOON, || {
        let said = log(&["show", "--platform", "--history", "-1m:", "^ann "]).ok();
        said.contains("walt-server.platform.nodes -> ann renamed n2 to nn2").then_some(())
    });
    // The default format.
    let shown = log(&["show", "--nodes", "n1", "--history", "full", "gamma"]).ok();
    let (time, rest) = shown.split_once(' ').unwrap();
    assert_eq!((rest, time.len(), &time[8..9]), ("n1.other -> gamma 3\n", 15, "."));
}

#[test]
fn checkpoints_bound_a_history() {
    let (server, nodes) = with_nodes(1, "");
    let log = |words: &[&str]| server.walt(ANN, &[&["log"], words].concat());
    assert_eq!(log(&["list-checkpoints"]).err, "You own no checkpoints.\n");
    nodes[0].log_line("app", "before");
    let made = log(&["add-checkpoint", "start"]).ok();
    assert!(made.starts_with("New checkpoint start recorded at server time: 20"), "{made}");
    nodes[0].log_line("app", "between");
    log(&["add-checkpoint", "end"]).ok();
    nodes[0].log_line("app", "behind");
    let range = |range: &str| show(&server, &["--history", range]).ok();
    assert_eq!(range("start:end"), "n1.app between\n");
    assert_eq!(range("start:"), "n1.app between\nn1.app behind\n");
    assert_eq!(range(":start"), "n1.app before\n");
    assert_eq!(range("-1h:-30m"), "");
    show(&server, &["--history", "end:start"]).fails(1, "Invalid HISTORY_RANGE: ");
    log(&["add-checkpoint", "start"]).fails(1, "a checkpoint with this name already exists.");
    log(&["add-checkpoint", "full"]).fails(1, "'full' is a reserved word");
    log(&["add-checkpoint", "a b"]).fails(1, "'a b' is not a valid name of a checkpoint");
    log(&["add-checkpoint", "old", "--date", "2020-01-02 03:04:05"]).ok();
    log(&["add-checkpoint", "ago", "--date", "-2h"]).ok();
    log(&["add-checkpoint", "odd", "--date", "yesterday"]).fails(1, "'yesterday' is not a date");
    let list = log(&["list-checkpoints"]).ok();
    let names: Vec<&str> = list.lines().skip(2).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(names, ["old", "ago", "start", "end"], "{list}");
    assert!(list.contains("2020-01-02 03:04:05.000000"), "{list}");
    // Another user has none of them, and may use the same names.
    let other = User::RootFor("bob");
    server
        .walt(other, &["log", "show", "--issuers", "n1", "--history", "start:"])
        .fails(1, "Invalid HISTORY_RANGE");
    server.walt(other, &["log", "add-checkpoint", "start"]).ok();
    assert_eq!(log(&["remove-checkpoint", "start"]).ok(), "Done.\n");
    log(&["remove-checkpoint", "start"]).fails(1, "no checkpoint with this name");
    server.walt(other, &["log", "remove-checkpoint", "start"]).ok();
}

#[test]
fn waiting_for_lines() {
    let (server, nodes) = with_nodes(2, "");
    let wait = |more: &[&str]| {
        let words = ["log", "wait", "--issuers", "all-nodes", "--format", "{issuer} {line}"];
        let mut command = server.walt_command(ANN, &[&words[..], more].concat());
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let output = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    nodes[0].log_line("app", "ready 0");
    // What was there before does not count.
    let (any, all) = (wait(&["ready"]), wait(&["--mode", "all", "ready"]));
    std::thread::sleep(Duration::from_secs(1));
    nodes[0].log_line("app", "not it");
    nodes[0].log_line("app", "ready 1");
    assert_eq!(output(any), (Some(0), "n1 ready 1\n".into()));
    nodes[0].log_line("app", "ready 2");
    nodes[1].log_line("app", "ready 3");
    assert_eq!(output(all), (Some(0), "n1 ready 1\nn1 ready 2\nn2 ready 3\n".into()));
    // Unless it is asked for.
    let began = Instant::now();
    assert_eq!(output(wait(&["--time-margin", "60", "ready [13]"])), (Some(0), "n1 ready 1\n".into()));
    assert!(began.elapsed() < SOON);
    let words = ["log", "wait", "--issuers", "n1", "--timeout", "1", "never"];
    server.walt(ANN, &words).fails(1, "Timeout was reached.");
}

#[test]
fn history_and_live_lines_join() {
    let (mut server, nodes) = with_nodes(1, "");
    (0..500).for_each(|i| nodes[0].send_log("n", "NO_TIMESTAMPS", format!("{i}\nCLOSE\n").as_bytes()));
    let words = ["log", "show", "--realtime", "--history", "full", "--issuers", "n1", "--format", "{line}"];
    let mut command = server.walt_command(ANN, &words);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let reader = BufReader::new(child.stdout.take().unwrap());
    let sender = std::thread::spawn(move || {
        (500..1000).for_each(|i| nodes[0].send_log("n", "NO_TIMESTAMPS", format!("{i}\nCLOSE\n").as_bytes()));
    });
    let mut lines = reader.lines();
    for i in 0..1000 {
        assert_eq!(lines.next().unwrap().unwrap(), i.to_string());
    }
    sender.join().unwrap();
    // A lost connection is not an end. All lines are durable by then: 300 ms, and one write.
    std::thread::sleep(Duration::from_secs(2));
    server.kill();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("connection to the server is lost"), "{ended:?}");
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(full(&server).lines().count(), 1000);
}

#[test]
fn netconsole_and_a_node_that_says_too_much() {
    let (server, nodes) = with_nodes(2, "logs: {max-rate: 100}\n");
    let socket = nodes[0].netns.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let to = (server.address(), NETCONSOLE_PORT);
    socket.send_to(b"[    0.1] one\n[    0.2] tw", to).unwrap();
    socket.send_to(b"o\n", to).unwrap();
    socket.send_to(b"6,1,5000000,-;extended\n SUBSYSTEM=x\n", to).unwrap();
    until("messages of the kernel", SOON, || full(&server).contains("extended").then_some(()));
    assert_eq!(
        full(&server),
        "n1.netconsole [    0.1] one\nn1.netconsole [    0.2] two\nn1.netconsole extended\n"
    );
    let many: String = (0..5000).map(|i| format!("{i}\n")).collect();
    nodes[0].send_log("flood", "NO_TIMESTAMPS", format!("{many}CLOSE\n").as_bytes());
    nodes[1].log_line("app", "is not disturbed");
    let shown = full(&server);
    let flood =
        shown.lines().filter(|line| line.starts_with("n1.flood ") && !line.contains("dropped")).count();
    assert!((100..1000).contains(&flood), "{flood}");
    assert!(shown.contains(" dropped: more than 100 lines per second>"), "{shown}");
    assert!(shown.contains("n2.app is not disturbed\n"));
}

/// The examples of the help pages, as they stand there; those that need nodes with a system are in `tests/boot/tutorial.rs`.
#[test]
fn examples_of_the_help_pages() {
    let (server, _nodes) = with_nodes(0, "");
    for name in ["vn1", "vn2"] {
        server.walt(ANN, &["node", "create", name]).ok();
    }
    for topic in ["log-show", "log-history", "log-realtime", "log-format", "log-issuers", "log-checkpoint"] {
        help::run(&server, ANN, topic, |example| match example.command.contains("--realtime") {
            true => How::UntilAborted,
            false => How::Ends,
        });
    }
}

/// What the framing of our own tools promises: each line that was acknowledged is there once, in order.
#[test]
fn acknowledged_lines_are_there_once() {
    let kills = if std::env::var_os("WALT_TEST_LONG").is_some() { 200 } else { 20 };
    let (mut server, nodes) = with_nodes(1, "logs: {max-rate: 1000000}\n");
    let mut sender = Sender { node: &nodes[0], acknowledged: 0, sent: 0 };
    for kill in 0..kills {
        // Some while it idles, some while it receives.
        sender.send(300 + kill % 7 * 100, kill % 3 == 0);
        server.kill();
        server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    }
    sender.send(10, true);
    let text =
        server.walt(ANN, &["log", "show", "--issuers", "n1", "--history", "full", "--format", "{line}"]).ok();
    let lines: Vec<&str> = text.lines().filter(|line| *line != "<disconnected!>").collect();
    let expected: Vec<String> = (1..=sender.acknowledged).map(line).collect();
    assert_eq!(lines.len(), expected.len());
    assert!(lines.iter().zip(&expected).all(|(line, expected)| line == expected));
    // Beside a server, and without one.
    for _ in 0..2 {
        let checked = server.server_command(&["check-logs"]).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success() && text.ends_with(": no problems found.\n"), "{checked:?}");
        server.kill();
    }
    eprintln!("{kills} kills, {} lines", expected.len());
}

fn line(number: u64) -> String {
    format!("line {number} {}", "x".repeat((number % 200) as usize))
}

struct Sender<'a> {
    node: &'a Registered,
    acknowledged: u64,
    sent: u64,
}

impl Sender<'_> {
    /// Sends lines from where the server is; waits until they are acknowledged, or not.
    fn send(&mut self, count: u64, waits: bool) {
        let mut stream = self.node.connect().expect("the server serves");
        write!(stream, "REQ_LOG_STREAM 1\nstream numbered\nsource 00000000000000aa\n\n").unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let number = |reader: &mut BufReader<TcpStream>, word: &str| -> u64 {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let (first, rest) = line.trim().split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(first == word || first == "ACK", "{line}");
            rest.parse().unwrap()
        };
        let known = number(&mut reader, "OK");
        assert!(
            (self.acknowledged..=self.sent).contains(&known),
            "{} {known} {}",
            self.acknowledged,
            self.sent
        );
        self.acknowledged = known;
        self.sent = known + count;
        let frames: String =
            (known + 1..=self.sent).map(|n| format!("L {} -\n{}\n", line(n).len(), line(n))).collect();
        stream.write_all(frames.as_bytes()).unwrap();
        while waits && self.acknowledged < self.sent {
            self.acknowledged = number(&mut reader, "ACK");
        }
    }
}
