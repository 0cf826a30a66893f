//! The program of nodes on this machine, and on emulated CPUs, against a server that fails in all ways.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

mod scripts;
mod server;

use server::{Faults, Line, Server, now};
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use walt_testkit::Terminal;

/// Long enough for what should take no time.
const SOON: Duration = Duration::from_secs(20);

/// A node: a directory with the program, what says where the server is, and the spool.
struct Node {
    dir: TempDir,
    emulator: Option<&'static str>,
}

impl Node {
    fn new(server: &Server) -> Self {
        Self::with_cpu(server, "amd64", None)
    }

    fn with_cpu(server: &Server, cpu: &str, emulator: Option<&'static str>) -> Self {
        let dir = TempDir::new().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, walt_log_tools::program(cpu).unwrap()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let (ip, port) = (server.address.ip(), server.address.port());
        let env = format!(
            "# a comment\nwalt_server_ip={ip}\nwalt_server_logs_port={port}\nexport walt_server_ip\n"
        );
        fs::write(dir.path().join("env"), env).unwrap();
        Self { dir, emulator }
    }

    fn command(&self, words: &[&str]) -> Command {
        let program = self.dir.path().join("program");
        let mut command = match self.emulator {
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(words)
            .env("WALT_ENV_FILE", self.dir.path().join("env"))
            .env("WALT_LOG_SPOOL", self.spool());
        command
    }

    fn spool(&self) -> std::path::PathBuf {
        self.dir.path().join("spool")
    }

    /// Files with lines, and their sizes.
    fn kept(&self) -> Vec<u64> {
        let files = fs::read_dir(self.spool()).into_iter().flatten().map(Result::unwrap);
        let files = files.filter(|f| f.file_name().to_string_lossy().starts_with("lines-"));
        // one may be gone in between
        files.filter_map(|f| Some(f.metadata().ok()?.len())).collect()
    }

    fn start(&self, words: &[&str]) -> Child {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a tool to its end.
    fn run(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = self.start(words);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    fn ok(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let ran = self.run(words, input);
        assert!(ran.status.success(), "{words:?}: {ran:?}");
        assert_eq!(String::from_utf8_lossy(&ran.stderr), "", "{words:?}");
        ran.stdout
    }
}

fn bytes(lines: &[Line]) -> Vec<&[u8]> {
    lines.iter().map(|l| l.bytes.as_slice()).collect()
}

/// Lines as no protocol of text lines keeps them.
fn odd_input() -> (Vec<u8>, Vec<Vec<u8>>) {
    let long: Vec<u8> = (0..3u32 << 20).map(|i| b"0123456789abcde"[(i % 15) as usize]).collect();
    let mut input = b"CLOSE\n\n a\0b \xc3\n\xa9\r\nEND\nL 3 -\n".to_vec();
    input.extend(&long);
    input.extend(b"\nBYE 1\nno end");
    let mut lines: Vec<Vec<u8>> = ["CLOSE", "", " a\0b "].map(|l| l.as_bytes().to_vec()).into();
    lines[2].push(0xc3);
    lines.extend([b"\xa9\r".to_vec(), b"END".to_vec(), b"L 3 -".to_vec()]);
    lines.extend(long.chunks(1 << 20).map(<[u8]>::to_vec));
    lines.extend([b"BYE 1".to_vec(), b"no end".to_vec()]);
    (input, lines)
}

fn keeps_all_bytes(server: &Server, node: &Node) {
    let (input, lines) = odd_input();
    assert_eq!(node.ok(&["cat", "odd"], &input), b"");
    assert_eq!(node.ok(&["tee", "--ts-local", "odd two"], &input), input);
    let stored = server.lines();
    assert_eq!(stored.len(), 2 * lines.len());
    let (by_cat, by_tee) = stored.split_at(lines.len());
    assert!(bytes(by_cat) == lines && bytes(by_tee) == lines);
    assert!(by_cat.iter().all(|l| l.stream == "odd" && l.time.is_none()));
    assert!(by_tee.iter().all(|l| l.stream == "odd two" && (now() - l.time.unwrap()).abs() < 60.));
    assert_eq!(node.kept(), Vec::<u64>::new());
}

#[test]
fn all_bytes_are_kept() {
    let server = Server::new(Faults::default());
    keeps_all_bytes(&server, &Node::new(&server));
}

#[test]
fn other_cpus_keep_all_bytes_too() {
    for (cpu, emulator) in [("arm64", "qemu-aarch64-static"), ("arm", "qemu-arm-static")] {
        if Command::new(emulator).arg("--version").output().is_err() {
            eprintln!("skipped for {cpu}: {emulator} is not installed");
            continue;
        }
        let server = Server::new(Faults::default());
        let node = Node::with_cpu(&server, cpu, Some(emulator));
        keeps_all_bytes(&server, &node);
        node.ok(&["echo", "--ts", "1234567890.25", "e", "a", "b"], b"");
        let last = server.lines().pop().unwrap();
        assert_eq!((&last.bytes[..], last.time), (&b"a b"[..], Some(1234567890.25)));
        // the server is away, and comes back
        server.go();
        let ran = node.run(&["cat", "--ts-provided", "later"], b"1500000000.5 one\ntwo\n");
        assert!(ran.status.success(), "{ran:?}");
        let before = server.lines().len();
        server.come();
        let lines = server.wait(before + 2).split_off(before);
        assert_eq!(bytes(&lines), [b"one", b"two"]);
        assert_eq!(lines[0].time, Some(1500000000.5));
        let ran = node.run(&["monitor", "sh", "-c", "echo out; exit 3"], b"");
        assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(3), &b"out\r\n"[..]), "{cpu}: {ran:?}");
        assert_eq!(bytes(&server.lines()[before + 2..]), [&b"START"[..], b"out", b"END"]);
    }
}

#[test]
fn echo_is_a_line_for_each_line_of_its_words() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    node.ok(&["echo", "s", "a  b", "c", "\\n"], b"");
    node.ok(&["echo", "--timestamp", "1500000000.000007", "s", "two\nlines"], b"");
    node.ok(&["echo", "--ts", "1500000000", "s"], b"");
    let found = server.lines();
    assert_eq!(bytes(&found), [&b"a  b c \\n"[..], b"two", b"lines", b""]);
    let times: Vec<Option<f64>> = found.iter().map(|l| l.time).collect();
    assert_eq!(times, [None, Some(1500000000.000007), Some(1500000000.000007), Some(1500000000.)]);
    for wrong in
        [&["echo"][..], &["echo", "--ts", "soon", "s", "x"], &["echo", "", "x"], &["cat"], &["cat", "a", "b"]]
    {
        let ran = node.run(wrong, b"");
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.starts_with(b"walt-log-"), "{ran:?}");
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn tools_that_run_at_once_do_not_take_each_other_for_a_sign_that_the_server_is_away() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    for _ in 0..5 {
        let tools: Vec<Child> = (0..40).map(|_| node.start(&["echo", "s", "at once"])).collect();
        assert!(tools.into_iter().all(|tool| tool.wait_with_output().unwrap().stderr.is_empty()));
    }
    let lines = server.lines();
    assert_eq!(lines.len(), 200, "who has ended has delivered");
    assert!(lines.iter().all(|l| l.time.is_none()));
}

#[test]
fn provided_times_are_taken_and_lines_without_one_are_lines() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    let input = b"1500000000.5 a b\n1500000001 \n1500000002\nno time\n1.5x y\n1500000003.123456789  z\n";
    node.ok(&["cat", "--ts-provided", "s"], input);
    let found: Vec<(String, Option<f64>)> =
        server.lines().into_iter().map(|l| (String::from_utf8(l.bytes).unwrap(), l.time)).collect();
    let line = |text: &str, time| (text.to_owned(), time);
    let (a, b, c) = (Some(1500000000.5), Some(1500000001.), Some(1500000002.));
    let wanted = [
        line("a b", a),
        line("", b),
        line("", c),
        line("no time", None),
        line("1.5x y", None),
        line(" z", Some(1500000003.123456)),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_server_that_is_killed_has_each_line_once() {
    let server = Server::new(Faults { dies_after: Some(700), ..Faults::default() });
    let node = Node::new(&server);
    let input: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    let mut tool = node.start(&["cat", "killed"]);
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(tool.wait_with_output().unwrap().status.success());
    // what was left when the tool ended comes by the drainer
    let lines = server.wait(20_000);
    let got: String = lines.iter().map(|l| format!("{}\n", String::from_utf8_lossy(&l.bytes))).collect();
    assert!(got == input, "lines are missing, twice there, or out of their order");
    assert!(server.deaths() > 40, "{}", server.deaths());
}

#[test]
fn lines_wait_in_ram_with_their_times_and_without_blocking() {
    let server = Server::away();
    let node = Node::new(&server);
    let start = Instant::now();
    let begun = now();
    // not more than fits into memory, and more than that
    for (stream, lines) in [("few", 5), ("many", 20_000)] {
        let input: String = (0..lines).map(|i| format!("{stream} {i}\n")).collect();
        let ran = node.run(&["tee", stream], input.as_bytes());
        assert!(ran.status.success() && ran.stdout == input.as_bytes());
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.contains("does not answer: lines are kept in RAM"), "{said}");
    }
    let ran = node.run(&["echo", "few", "by echo"], b"");
    assert!(ran.status.success(), "{ran:?}");
    let ran = node.run(&["echo", "few", "by echo again"], b"");
    assert!(ran.status.success(), "{ran:?}");
    assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
    let ended = now();
    assert!(!node.kept().is_empty());
    std::thread::sleep(Duration::from_millis(1500));
    server.come();
    let lines = server.wait(20_007);
    assert!(lines.iter().all(|l| l.time.is_some_and(|t| t > begun - 1. && t < ended + 1.)));
    let of = |stream: &str| lines.iter().filter(|l| l.stream == stream).cloned().collect::<Vec<_>>();
    let few = of("few");
    assert_eq!(bytes(&few)[5..], [&b"by echo"[..], b"by echo again"]);
    assert!(of("many").iter().enumerate().all(|(i, l)| l.bytes == format!("many {i}").as_bytes()));
    // nothing is left, neither a file nor a process that waits
    let start = Instant::now();
    while !node.kept().is_empty() {
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_running_tool_goes_on_when_the_server_is_back() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    let mut tool = node.start(&["cat", "on"]);
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(b"before\n").unwrap();
    server.wait(1);
    server.go();
    let block: String = (0..10_000).map(|i| format!("{i:0100}\n")).collect();
    stdin.write_all(block.as_bytes()).unwrap();
    let from = Instant::now();
    while node.kept().iter().sum::<u64>() < 1_000_000 {
        assert!(from.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    server.come();
    server.wait(10_001);
    stdin.write_all(b"after\n").unwrap();
    let lines = server.wait(10_002);
    assert!(
        (0..10_000)
            .all(|i| lines[i + 1].bytes == format!("{i:0100}").as_bytes() && lines[i + 1].time.is_some())
    );
    assert_eq!((&lines[10_001].bytes[..], lines[10_001].time), (&b"after"[..], None));
    assert_eq!(node.kept(), Vec::<u64>::new());
    drop(stdin);
    assert!(tool.wait().unwrap().success());
}

#[test]
fn what_does_not_fit_into_the_spool_is_one_line() {
    let server = Server::away();
    let node = Node::new(&server);
    let line = [b'x'; 999];
    let write = |to: &mut dyn Write, n: usize| {
        (0..n).for_each(|_| to.write_all(&[&line[..], b"\n"].concat()).unwrap())
    };
    let mut tool = node.start(&["cat", "--ts-local", "full"]);
    let mut stdin = tool.stdin.take().unwrap();
    let start = Instant::now();
    write(&mut stdin, 12_000);
    assert!(start.elapsed() < SOON / 4, "{:?}", start.elapsed());
    let sum: u64 = node.kept().iter().sum();
    assert!((7 << 20..=8 << 20).contains(&sum), "{sum}");
    // the limit is for all tools together
    let ran = node.run(&["echo", "other", &"y".repeat(100_000)], b"");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(node.kept().iter().sum::<u64>() <= (8 << 20) + 1000);
    server.come();
    let from = Instant::now();
    while server.lines().iter().filter(|l| l.dropped.is_some()).count() < 2 {
        assert!(from.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    write(&mut stdin, 10);
    drop(stdin);
    assert!(tool.wait().unwrap().success());
    let all = server.lines();
    let (full, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|l| l.stream == "full");
    assert_eq!(other.iter().filter_map(|l| l.dropped).collect::<Vec<_>>(), [1]);
    let at = full.iter().position(|l| l.dropped.is_some()).unwrap();
    let dropped = full[at].dropped.unwrap();
    assert_eq!(full.len() as u64 - 1 + dropped, 12_010, "each line is there or counted");
    assert_eq!(full.len() - 1 - at, 10, "the newest are dropped");
    assert!(dropped > 3000 && full[at].time >= full[at - 1].time);
}

#[test]
fn a_server_that_stalls_blocks_for_some_seconds_only() {
    let server = Server::new(Faults { stalls: true, ..Faults::default() });
    let node = Node::new(&server);
    let input: String = (0..100_000).map(|i| format!("stalled {i}\n")).collect();
    let start = Instant::now();
    let ran = node.run(&["tee", "s"], input.as_bytes());
    let took = start.elapsed();
    assert!(ran.status.success() && ran.stdout == input.as_bytes(), "{:?}", ran.status);
    assert!(took < Duration::from_secs(13), "{took:?}");
    server.go();
    server.faults(Faults::default());
    server.come();
    let lines = server.wait(100_000);
    assert!(lines.iter().enumerate().all(|(i, l)| l.bytes == format!("stalled {i}").as_bytes()));
}

#[test]
fn a_server_that_cannot_store_is_as_good_as_none() {
    let server = Server::new(Faults { troubled: true, ..Faults::default() });
    let node = Node::new(&server);
    let input: String = (0..20_000).map(|i| format!("in trouble {i}\n")).collect();
    let start = Instant::now();
    let ran = node.run(&["cat", "s"], input.as_bytes());
    assert!(ran.status.success() && start.elapsed() < Duration::from_secs(10), "{:?}", ran.status);
    let connections = server.connections();
    assert!((3..30).contains(&connections), "{connections}");
    server.faults(Faults::default());
    let lines = server.wait(20_000);
    assert!(lines.iter().enumerate().all(|(i, l)| l.bytes == format!("in trouble {i}").as_bytes()));
}

#[test]
fn a_server_that_refuses_does_not_break_the_pipe() {
    let server = Server::new(Faults { refuses: Some("127.0.0.1 is not a node"), ..Faults::default() });
    let node = Node::new(&server);
    let input = b"line\n".repeat(300_000);
    let ran = node.run(&["tee", "s"], &input);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stdout == input);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(said, "walt-log-tee: the server does not take stream s: 127.0.0.1 is not a node\n");
    assert_eq!(node.kept(), Vec::<u64>::new());
}

#[test]
fn tee_ends_with_its_reader_and_with_ctrl_c_and_its_lines_are_there() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    let mut tool = node.start(&["tee", "s"]);
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    server.wait(1);
    drop(tool.stdout.take());
    stdin.write_all(b"two\n").unwrap();
    assert_eq!(tool.wait().unwrap().code(), Some(128 + 13));
    assert_eq!(bytes(&server.lines()), [b"one", b"two"]);

    let mut tool = node.start(&["cat", "s"]);
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(b"three\n").unwrap();
    server.wait(3);
    let pid = rustix::process::Pid::from_child(&tool);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    // what ctrl-C ends has last words
    std::thread::sleep(Duration::from_millis(300));
    stdin.write_all(b"last words").unwrap();
    drop(stdin);
    assert_eq!(tool.wait().unwrap().code(), Some(128 + 2));
    assert_eq!(bytes(&server.lines()[3..]), [b"last words"]);
}

#[test]
fn a_tool_that_is_killed_while_the_server_is_away_leaves_its_lines() {
    let server = Server::away();
    let node = Node::new(&server);
    let mut tool = node.start(&["cat", "killed"]);
    let mut stdin = tool.stdin.take().unwrap();
    let block: String = (0..10_000).map(|i| format!("{i:0100}\n")).collect();
    stdin.write_all(block.as_bytes()).unwrap();
    let from = Instant::now();
    while node.kept().iter().sum::<u64>() < 1_000_000 {
        assert!(from.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    tool.kill().unwrap();
    tool.wait().unwrap();
    server.come();
    // as the node link does when the server is back
    node.ok(&["drain"], b"");
    let lines = server.lines();
    assert!(lines.len() > 9_000);
    assert!(lines.iter().enumerate().all(|(i, l)| l.bytes == format!("{i:0100}").as_bytes()));
    assert_eq!(node.kept(), Vec::<u64>::new());
}

/// The stream of the only monitor that ran.
fn monitored(server: &Server) -> (String, Vec<String>) {
    let lines = server.lines();
    let stream = lines[0].stream.clone();
    assert!(lines.iter().all(|l| l.stream == stream));
    (stream, lines.iter().map(|l| String::from_utf8_lossy(&l.bytes).into_owned()).collect())
}

fn monitor(node: &Node, script: &str) -> Terminal {
    Terminal::spawn(node.command(&["monitor", "/bin/sh", "-c", script]))
}

#[test]
fn a_monitored_command_has_a_terminal_of_the_right_size() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    let script = "trap 'stty size; exit 7' WINCH; stty size; test -t 0 && test -t 1 && test -t 2 && echo ready; \
                  while :; do sleep 0.1; done";
    let mut terminal = monitor(&node, script);
    terminal.expect("40 240", SOON);
    terminal.expect("ready", SOON);
    terminal.resize(33, 77);
    terminal.expect("33 77", SOON);
    let (status, _) = terminal.end(SOON);
    assert_eq!(status.code(), Some(7));
    let (stream, lines) = monitored(&server);
    let pid = stream.strip_prefix("sh.").and_then(|s| s.strip_suffix(".monitor")).unwrap();
    assert!(pid.parse::<u32>().is_ok(), "{stream}");
    assert_eq!(lines, ["START", "40 240", "ready", "33 77", "END"]);
}

#[test]
fn keys_and_ctrl_c_reach_a_monitored_command() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    let script = "trap 'echo interrupted; kill -TERM $$' INT; echo go; read a; echo got $a; while :; do sleep 0.1; done";
    let mut terminal = monitor(&node, script);
    terminal.expect("go", SOON);
    terminal.line("typed");
    terminal.expect("got typed", SOON);
    terminal.send("\x03");
    terminal.expect("interrupted", SOON);
    let (status, _) = terminal.end(SOON);
    assert_eq!(status.code(), Some(128 + 15));
    let (_, lines) = monitored(&server);
    assert_eq!(lines[0], "START");
    assert_eq!(lines.last().unwrap(), "END");
    assert!(
        lines.iter().any(|l| l == "got typed") && lines.iter().any(|l| l.contains("interrupted")),
        "{lines:?}"
    );
}

#[test]
fn a_monitored_command_without_terminal_reads_the_input_of_the_tool() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    let input = b"x".repeat(100_000);
    let ran = node.run(&["monitor", "sh", "-c", "wc -c; tty <&1; echo no end >&2; printf end"], &input);
    assert!(ran.status.success(), "{ran:?}");
    let out = String::from_utf8(ran.stdout).unwrap();
    assert!(out.starts_with("100000\r\n/dev/pts/") && out.ends_with("\r\nno end\r\nend"), "{out:?}");
    let (_, lines) = monitored(&server);
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[3..], ["no end", "end", "END"]);

    let ran = node.run(&["monitor", "no-such-command"], b"");
    assert_eq!(ran.status.code(), Some(127), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("cannot run no-such-command"), "{ran:?}");
}

#[test]
fn all_that_a_monitored_command_prints_is_logged() {
    let server = Server::new(Faults::default());
    let node = Node::new(&server);
    for _ in 0..20 {
        let ran = node.run(&["monitor", "seq", "1", "5000"], b"");
        assert!(ran.status.success(), "{ran:?}");
        let wanted: String = (1..=5000).map(|i| format!("{i}\r\n")).collect();
        assert!(String::from_utf8(ran.stdout).unwrap() == wanted);
    }
    assert_eq!(server.lines().len(), 20 * 5002);
    // a command that leaves somebody on its terminal ends all the same
    let start = Instant::now();
    let ran = node.run(&["monitor", "sh", "-c", "trap '' HUP; sleep 30 & echo done"], b"");
    assert!(ran.status.success() && start.elapsed() < SOON / 2, "{ran:?}");
    assert_eq!(ran.stdout, b"done\r\n");
}

#[test]
fn the_drainer_holds_nothing_of_who_has_started_it() {
    let server = Server::away();
    let node = Node::new(&server);
    // reads until all copies of its output are closed
    let mut command = Command::new("sh");
    command.args(["-c", "x=$(\"$0\" echo s words 2>&1); echo \"<$x>\""]).arg(node.dir.path().join("program"));
    command.env("WALT_ENV_FILE", node.dir.path().join("env")).env("WALT_LOG_SPOOL", node.spool());
    let start = Instant::now();
    let out = command.stdout(Stdio::piped()).output().unwrap();
    assert!(start.elapsed() < SOON / 2);
    assert!(out.stdout.starts_with(b"<walt-log-echo: the server ("), "{out:?}");
    server.come();
    server.wait(1);
}

#[test]
fn a_machine_that_is_not_a_node_is_told_so() {
    let server = Server::away();
    let node = Node::new(&server);
    fs::remove_file(node.dir.path().join("env")).unwrap();
    let ran = node.run(&["echo", "s", "x"], b"");
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("this is not a node"), "{ran:?}");
}
