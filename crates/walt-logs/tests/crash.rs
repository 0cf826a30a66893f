//! The store under a process that is killed: each line that was acknowledged is there, once.
//!
//! 20 kills; 200 with WALT_TEST_LONG=1. WALT_TEST_SEED repeats the moments that a failed test has printed.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use walt_logs::{Chunk, Mark, Mode, Query, Retention, Store};

const DIRECTORY: &str = "WALT_LOGS_CRASH_DIRECTORY";
const WRITERS: u64 = 3;

/// A generator of moments (xorshift); what matters is that a seed repeats them.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Ends the process however the test ends.
struct Killed(Child);
impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process that is killed: three writers go on where their positions say, small and large calls alternate, segments
/// are closed and compressed. Each acknowledgement is a line `writer first end` on its output.
#[test]
#[ignore = "is run by the test below, in a process of its own"]
fn child() {
    let dir = PathBuf::from(std::env::var_os(DIRECTORY).expect("only the test below runs this"));
    let store = Store::open(&dir, Retention::default()).unwrap();
    let (send, acknowledgements) = mpsc::channel::<(u64, u64, u64)>();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, send) = (&store, send.clone());
            scope.spawn(move || {
                let stream = store.stream("node", &format!("writer {writer}"), Mode::Line).unwrap();
                let mut next = store.position(writer).unwrap_or(0);
                loop {
                    let first = next;
                    let mut chunk = Chunk::new();
                    for _ in 0..1 + (first % 7) * 10 {
                        // Clocks jump.
                        let timestamp =
                            if next % 1000 > 900 { 5 } else { 1_790_000_000_000_000 + next as i64 * 1000 };
                        chunk.push(stream, timestamp, format!("{writer} {next}").as_bytes()).unwrap();
                        next += 1;
                    }
                    let mark = Mark { source: writer, position: next };
                    let (send, end) = (send.clone(), next);
                    let done = move |result: Result<(), _>| {
                        result.unwrap();
                        // Nobody receives only when the process ends.
                        let _ = send.send((writer, first, end));
                    };
                    store.append(chunk, Some(mark), Box::new(done)).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                    if first % 50 == 0 {
                        store.flush().unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(15));
                store.rotate().unwrap();
                store.compress().unwrap();
            }
        });
        let mut out = std::io::stdout().lock();
        for (writer, first, end) in acknowledgements {
            writeln!(out, "acknowledged {writer} {first} {end}").unwrap();
            out.flush().unwrap();
        }
    });
}

/// Starts the process, kills it so many microseconds after its first acknowledgement, and gives all that it printed.
fn run(dir: &Path, microseconds: u64) -> Vec<(u64, u64, u64)> {
    let command = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(command);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap())
        .split(b'\n')
        .map(|l| String::from_utf8(l.unwrap()).unwrap());
    let parse = |line: String| {
        let mut words = line.split(' ').skip(1).map(|w| w.parse::<u64>());
        line.starts_with("acknowledged ").then_some(())?;
        // The last line may be cut.
        Some((words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?))
    };
    let first = lines.find_map(parse).expect("the process ended before it acknowledged anything");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(microseconds));
        child.0.kill().unwrap();
        child.0.wait().unwrap()
    });
    let mut all = vec![first];
    let mut rest: Vec<String> = lines.collect();
    killer.join().unwrap();
    // A number at the end of what was printed may have lost digits.
    rest.pop();
    all.extend(rest.into_iter().filter_map(parse));
    all
}

fn check(dir: &Path, acknowledged: &[u64]) -> u64 {
    let store = Store::open(dir, Retention::default()).unwrap();
    let report = store.check().unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    let mut seen = HashSet::new();
    let mut ends = vec![0; WRITERS as usize];
    for record in store.query(&Query::new(Arc::new(|_| true))) {
        let line = String::from_utf8(record.unwrap().line).unwrap();
        let (writer, number) = line.split_once(' ').unwrap();
        let (writer, number): (usize, u64) = (writer.parse().unwrap(), number.parse().unwrap());
        assert!(seen.insert((writer, number)), "line '{line}' is there twice");
        ends[writer] = ends[writer].max(number + 1);
    }
    for (writer, end) in ends.iter().enumerate() {
        assert!(
            acknowledged[writer] <= *end,
            "writer {writer}: {} acknowledged, {end} there",
            acknowledged[writer]
        );
        assert_eq!(store.position(writer as u64).unwrap_or(0), *end, "the position and the lines are one");
        let missing = (0..*end).find(|n| !seen.contains(&(writer, *n)));
        assert_eq!(missing, None, "writer {writer}: a line is missing below {end}");
    }
    assert_eq!(report.lines, seen.len() as u64);
    report.lines
}

#[test]
fn acknowledged_lines_survive_kills_and_are_there_once() {
    let kills = if std::env::var_os("WALT_TEST_LONG").is_some() { 200 } else { 20 };
    let seed = match std::env::var("WALT_TEST_SEED") {
        Ok(seed) => seed.parse().expect("WALT_TEST_SEED is a number"),
        Err(_) => u64::from(std::process::id()) * 0x9e37_79b9 + 1,
    };
    println!("WALT_TEST_SEED={seed}");
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut acknowledged = vec![0; WRITERS as usize];
    let (mut state, mut lines) = (seed, 0);
    for kill in 0..kills {
        let moment = random(&mut state) % 120_000;
        for (writer, _, end) in run(dir.path(), moment) {
            let known = &mut acknowledged[writer as usize];
            *known = end.max(*known);
        }
        // The store grows: looking at all of it each time would take most of the time.
        if kill % 5 == 4 || kill + 1 == kills {
            lines = check(dir.path(), &acknowledged);
        }
    }
    println!("{kills} kills, {lines} lines");
    assert!(lines >= acknowledged.iter().sum::<u64>());
}
