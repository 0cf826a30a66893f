//! What nodes and disks do to the store of log lines: it goes on, and its log says what happened.

use super::logs::{ANN, SOON, full, show, with_nodes};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use walt_testkit::{Options, Registered, TestServer, images, until};

/// Bytes of the disk that is full.
const SMALL_DISK: usize = 24 << 20;

/// What the server says in its own log, as its users read it.
fn daemon(server: &TestServer) -> String {
    server.walt(ANN, &["log", "show", "--server", "--history", "full"]).ok()
}

/// Sends lines in the framing of our tools, and returns what the server answers last: they are durable, or why they are
/// not.
fn send_framed(node: &Registered, name: &str, lines: &[String]) -> String {
    let mut stream = node.connect().expect("the server serves");
    // The source of a stream is not that of another one.
    write!(stream, "REQ_LOG_STREAM 1\nstream {name}\nsource {:016x}\n\n", name.len()).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let position = answers.next().unwrap().unwrap();
    let position: usize = position.strip_prefix("OK ").unwrap().parse().unwrap();
    let frames = lines[position..].iter().map(|line| format!("L {} -\n{line}\n", line.len()));
    // A server that refuses a line does not read the rest.
    let _ = stream.write_all((frames.collect::<String>() + "END\n").as_bytes());
    answers.map_while(Result::ok).last().unwrap_or_default()
}

#[test]
fn a_full_disk() {
    let mut server = TestServer::prepare(Options::default());
    let logs = server.state_dir().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let size = format!("size={SMALL_DISK}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "walt-test"]).arg(&logs).status();
    assert!(mounted.unwrap().success());
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    server.import(images::TINY, &images::tiny(server.dir()));
    let node = Registered::plug(&server, "n1", 100);
    assert_eq!(send_framed(&node, "early", &["before".to_owned()]), "BYE 1");
    // All but a little is taken.
    let filler = logs.join("filler");
    std::fs::write(&filler, vec![0; SMALL_DISK - (3 << 20)]).unwrap();
    let lines: Vec<String> =
        (0..3000).map(|i| format!("{i} {}", format!("{:x}", i * 7919).repeat(600))).collect();
    let answer = send_framed(&node, "framed", &lines);
    assert!(answer.starts_with("ERROR ") && answer.contains("free space there"), "{answer}");
    // Everything else goes on.
    assert!(server.walt(ANN, &["node", "show", "--all"]).ok().contains("n1"));
    assert!(full(&server).contains("n1.early before\n"));
    let said = || server.log().contains("No space left on device");
    until("the server to say it", SOON, || said().then_some(()));
    std::fs::remove_file(&filler).unwrap();
    // The sender has kept its lines, and goes on where the store is.
    let answer = send_framed(&node, "framed", &lines);
    assert_eq!(answer, format!("BYE {}", lines.len()));
    let shown = show(&server, &["--history", "full", "--streams", "^framed$"]).ok();
    let numbers: Vec<usize> = shown
        .lines()
        .filter(|line| !line.contains("<disconnected!>"))
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(numbers.iter().copied().eq(0..lines.len()), "{} lines", numbers.len());
    until("the end of it to be logged", SOON, || {
        node.log_line("app", "again");
        daemon(&server).contains("log lines are stored again").then_some(())
    });
    server.down();
    assert!(Command::new("umount").arg(&logs).status().unwrap().success());
}

#[test]
fn many_streams_of_a_node() {
    let streams = if std::env::var_os("WALT_TEST_LONG").is_some() { 10_000 } else { 1000 };
    let (server, nodes) = with_nodes(2, "");
    for i in 0..streams {
        nodes[0].log_line(&format!("s{i}"), "one of many");
    }
    nodes[1].log_line("app", "is not disturbed");
    let shown = full(&server);
    assert_eq!(shown.lines().filter(|line| line.ends_with(" one of many")).count(), streams);
    assert!(shown.contains("n2.app is not disturbed\n"));
    let words = ["--history", "full", "--streams", "^s77$"];
    assert_eq!(show(&server, &words).ok(), "n1.s77 one of many\n");
    eprintln!("{streams} streams");
}

/// A server whose clock the test sets: a library between it and the kernel reads an offset from a file.
#[test]
fn the_clock_of_the_server_jumps() {
    let found =
        Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).output().unwrap();
    let library = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    if library.is_empty() {
        println!("skipped: libfaketime is not installed");
        return;
    }
    let server = TestServer::prepare(Options::default());
    let offset = server.dir().join("offset");
    let set = |text: &str| std::fs::write(&offset, text).unwrap();
    set("+0");
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    server.launch_with(&environment).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(images::TINY, &images::tiny(server.dir()));
    let node = Registered::plug(&server, "n1", 100);
    let words = ["log", "show", "--realtime", "--issuers", "n1", "--format", "{line}"];
    let mut follower = server.walt_command(ANN, &words);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();
    // It follows from its first line on.
    let mut tries = 0..100;
    let first = std::thread::spawn(move || (followed.next().unwrap().unwrap(), followed));
    while !first.is_finished() && tries.next().is_some() {
        node.log_line("app", "hello");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (line, mut followed) = first.join().unwrap();
    assert_eq!(line, "hello");
    for (at, way, times) in [("-2d", "back", 1), ("+3d", "forward", 1), ("+0", "back", 2)] {
        set(at);
        let text = format!("the clock of the server was set {way} by ");
        until("the server to say it", SOON, || {
            (daemon(&server).matches(&text).count() == times).then_some(())
        });
        node.log_line("app", &format!("at {at}"));
    }
    // Who follows gets all lines in the order in which they came; a history has them by their times.
    let live: Vec<String> =
        followed.by_ref().map(Result::unwrap).filter(|line| line != "hello").take(3).collect();
    assert_eq!(live, ["at -2d", "at +3d", "at +0"]);
    follower.kill().unwrap();
    follower.wait().unwrap();
    let shown = show(&server, &["--history", "full", "^at "]).ok();
    assert_eq!(shown, "n1.app at -2d\nn1.app at +0\nn1.app at +3d\n");
    // A node whose clock is off.
    node.send_log("timed", "TIMESTAMPS_INSIDE", b"5 old\n99999999999 new\nCLOSE\n");
    assert!(full(&server).contains("n1.timed old\n"));
    until("the clock of the node", SOON, || {
        daemon(&server).contains("the clock of a node is ").then_some(())
    });
}
