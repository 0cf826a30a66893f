//! The log tools of nodes and the server: the program that nodes have, in a network namespace that is a node's.

use super::logs::{ANN, SOON, full, show, with_nodes};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use walt_testkit::kills::Random;
use walt_testkit::{Registered, TestServer};

/// The files of a node that the tools read and write.
struct Files(TempDir);

impl Files {
    fn new(server: &TestServer) -> Self {
        let dir = TempDir::new().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, walt_log_tools::program("amd64").unwrap()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("env"), format!("walt_server_ip={}\n", server.address())).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, node: &Registered, words: &[&str]) -> Child {
        let mut command = Command::new(self.at("program"));
        command.args(words).env("WALT_ENV_FILE", self.at("env")).env("WALT_LOG_SPOOL", self.at("spool"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        node.netns.inside(|| command.spawn()).unwrap()
    }

    fn run(&self, node: &Registered, words: &[&str], input: &[u8]) -> Output {
        let mut child = self.start(node, words);
        child.stdin.take().unwrap().write_all(input).unwrap();
        let ran = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stderr), "", "{words:?}");
        ran
    }
}

#[test]
fn the_server_has_what_the_tools_say() {
    let (server, nodes) = with_nodes(1, "");
    let files = Files::new(&server);
    let run = |words: &[&str], input: &[u8]| files.run(&nodes[0], words, input);
    let input = b"CLOSE\n\nnul \0\nhalf \xe2\x82\nEND\nno end";
    assert_eq!(run(&["tee", "odd"], input).stdout, input);
    // The tool has ended: its lines are durable, and shown.
    assert_eq!(
        full(&server),
        "n1.odd CLOSE\nn1.odd \nn1.odd nul \\x00\nn1.odd half \\xe2\\x82\nn1.odd END\nn1.odd no end\n"
    );
    run(&["echo", "--timestamp", "1700000000.000001", "timed", "a", "b"], b"");
    let words = ["log", "show", "--issuers", "n1", "--history", "full", "--streams", "timed", "--json"];
    let shown = server.walt(ANN, &words).ok();
    let line: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&line["line"], line["timestamp"].as_f64()), (&"a b".into(), Some(1_700_000_000.000_001)));
    let ran = run(&["monitor", "sh", "-c", "echo out; exit 3"], b"");
    assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(3), &b"out\r\n"[..]));
    let shown = show(&server, &["--history", "full", "--streams", r"^sh\.\d+\.monitor$"]).ok();
    let lines: Vec<&str> = shown.lines().filter_map(|line| line.split_once(' ')).map(|(_, l)| l).collect();
    assert_eq!(lines, ["START", "out", "END"]);
    // A line that is longer than a line may be.
    run(&["cat", "long"], &[&vec![b'x'; 3 << 20][..], b"\n"].concat());
    let shown = show(&server, &["--history", "full", "--streams", "^long$"]).ok();
    assert_eq!(shown.lines().map(|l| l.len() - "n1.long ".len()).collect::<Vec<_>>(), [1 << 20; 3]);
}

/// So many kills, and all lines that were sent until then are waited for.
const CATCH_UP: u64 = 20;

/// The lines of the stream that is checked.
fn text(server: &TestServer) -> Vec<String> {
    let all = show(server, &["--history", "full", "--streams", "^numbered$", "^line"]).ok();
    all.lines().map(|line| line.replace("n1.numbered ", "")).collect()
}

fn wait_for_lines(server: &TestServer, sent: u64) {
    let end = Instant::now() + SOON;
    loop {
        let found = text(server).len() as u64;
        if found >= sent {
            break;
        }
        assert!(Instant::now() < end, "{found} of {sent} lines within {SOON:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Kills of the server while a node logs. One run of 5 in CI: `logs::acknowledged_lines_are_there_once` has more.
#[test]
fn each_line_of_a_tool_is_there_once() {
    let kills = if std::env::var_os("WALT_TEST_LONG").is_some() { 200 } else { 5 };
    let (mut server, nodes) = with_nodes(1, "logs: {max-rate: 1000000}\n");
    let files = Files::new(&server);
    let mut random = Random::seeded("kills of the log server");
    let mut tool = files.start(&nodes[0], &["cat", "numbered"]);
    let mut stdin = tool.stdin.take().unwrap();
    let mut sent = 0;
    for kill in 1..=kills {
        for _ in 0..random.below(20) {
            let count = random.below(500);
            let lines: String = (sent..sent + count).map(|n| format!("line {n}\n")).collect();
            stdin.write_all(lines.as_bytes()).unwrap();
            sent += count;
            random.sleep(30);
        }
        server.kill();
        stdin.write_all(format!("line {sent}\n").as_bytes()).unwrap();
        sent += 1;
        server.launch().unwrap_or_else(|e| panic!("{e:?}"));
        // A server that dies sooner than lines are durable gets no further: the buffer of the node would be full.
        if kill % CATCH_UP == 0 {
            wait_for_lines(&server, sent);
        }
    }
    drop(stdin);
    assert!(tool.wait().unwrap().success());
    wait_for_lines(&server, sent);
    std::thread::sleep(Duration::from_millis(500));
    let mut numbers: Vec<u64> =
        text(&server).iter().map(|line| line["line ".len()..].parse().unwrap()).collect();
    // Those that waited have the time of the node, the others that of the server: near a kill, they may change places.
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent), "of {sent} lines, {} are there", numbers.len());
    eprintln!("{kills} kills, {sent} lines");
}
