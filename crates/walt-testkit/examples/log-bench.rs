//! `log-bench ROUNDS LINES DIRECTORY`: log lines from 100 connections to a terminal, compared with PostgreSQL and `grep`.
//! `scripts/bench logs` runs it. Needs root; uses namespaces of its own, and a cluster of PostgreSQL in DIRECTORY.
//!
//! ```text
//!   ours:   10 namespaces × 10 connections, our framing ── walt-net ── walt-server ── walt log show
//!   rival:  4 psql, COPY in batches of 512 ── unix socket ── PostgreSQL, one table, one index ── psql
//! ```
//! Both get the same lines with the same times: LINES in an hour of 100 streams. The last 1,000 of them stand apart, so
//! that a range of times names them. Each round of ingestion ends when everything is durable.

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

#[path = "log-bench/ingestion.rs"]
mod ingestion;
#[path = "log-bench/latency.rs"]
mod latency;
#[path = "log-bench/lines.rs"]
mod lines;
#[path = "log-bench/rival.rs"]
mod rival;

use lines::{Lines, TAIL};
use rival::Postgres;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::{Options, Registered, TestServer, User, images};

const ANN: User = User::RootFor("ann");
/// Machines, each with as many connections.
const MACHINES: usize = 10;
const CONNECTIONS_EACH: usize = 10;
/// Lines of a round of ingestion.
const ROUND: usize = 2_000_000;
/// Lines that the regular expressions look at, at most.
const SEARCHED: usize = 10_000_000;
/// Longest time until all closed segments are compressed.
const COMPRESSION: Duration = Duration::from_secs(300);
const EXPRESSIONS: [&str; 3] =
    ["client 42 took", "client (17|42) took 39[0-9]+ us", "status=50[0-9] .*retry"];

/// Seconds of a command, and the lines that it printed.
fn timed(command: &mut Command) -> (f64, usize) {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    (seconds, output.stdout.iter().filter(|byte| **byte == b'\n').count())
}

fn shown(values: &[f64], unit: &str, digits: usize) -> String {
    let (low, middle, high) = (least(values), median(values), most(values));
    format!("median {middle:.digits$} {unit}  ({low:.digits$}..{high:.digits$})")
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// All commands `rounds` times in turns, after one time each that is not counted. All must print as many lines.
fn in_turns(rounds: usize, commands: &mut [Command]) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::new(); commands.len()];
    let mut expected = None;
    for round in 0..=rounds {
        for (command, figures) in commands.iter_mut().zip(&mut figures) {
            let (seconds, lines) = timed(command);
            assert_eq!(*expected.get_or_insert(lines), lines, "{command:?}");
            if round > 0 {
                figures.push(seconds * 1000.0);
            }
        }
    }
    println!("    {} lines each, n={rounds}", expected.unwrap_or_default());
    figures
}

/// A command as somebody would type it.
fn words(command: &Command) -> String {
    let quoted = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        if word.contains([' ', '(', '{', '\'']) { format!("\"{word}\"") } else { word.into_owned() }
    };
    let program = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
    std::iter::once(program).chain(command.get_args().map(quoted)).collect::<Vec<_>>().join(" ")
}

/// Ours first; what the ratio of the second to others means is printed behind each.
fn compare(rounds: usize, commands: &mut [Command]) {
    let figures = in_turns(rounds, commands);
    let ours = median(&figures[0]);
    for (i, (command, figures)) in commands.iter().zip(&figures).enumerate() {
        let ratio =
            if i == 0 { String::new() } else { format!("   ours/this {:.2}", ours / median(figures)) };
        println!("    {}{ratio}\n      {}", shown(figures, "ms", 1), words(command));
    }
}

/// `walt log show` of past lines.
fn show(server: &TestServer, more: &[&str]) -> Command {
    let words = ["log", "show", "--issuers", "all-nodes", "--format", "{line}"];
    server.walt_command(ANN, &[&words[..], more].concat())
}

fn checkpoint(server: &TestServer, name: &str, at: i64) {
    let date = Command::new("date").args(["-d", &format!("@{}", at / 1_000_000), "+%F %T"]).output().unwrap();
    let date = String::from_utf8(date.stdout).unwrap();
    server.walt(ANN, &["log", "add-checkpoint", name, "--date", date.trim()]).ok();
}

/// Bytes in a directory.
fn size(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.len(),
            // Compressed meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// Waits until closed segments are compressed: what is read from then on is what is read on most days.
fn wait_compressed(server: &TestServer, lines: usize) {
    let (dir, start) = (server.state_dir().join("logs"), Instant::now());
    let mut last = 0;
    while start.elapsed() < COMPRESSION {
        std::thread::sleep(Duration::from_secs(25));
        let now = size(&dir);
        if now == last {
            break;
        }
        last = now;
    }
    println!(
        "  {:.1} bytes on disk per line, {:.0} s after the last one",
        last as f64 / lines as f64,
        start.elapsed().as_secs_f64()
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| {
        arguments.next().map_or(default, |a| a.parse().expect("a number of rounds or lines"))
    };
    let (rounds, total) = (number(5), number(20_000_000));
    let parent = PathBuf::from(arguments.next().unwrap_or_else(|| "/var/tmp".into()));
    let files = tempfile::tempdir_in(&parent).unwrap();
    let options =
        Options { config: "logs: {max-rate: 10000000, max-size: 100G}\n".to_owned(), ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(images::TINY, &images::tiny(server.dir()));
    let machines: Vec<Registered> =
        (0..MACHINES).map(|i| Registered::plug(&server, &format!("n{i}"), 100 + i as u8)).collect();
    let rival = Postgres::start(files.path());
    let lines = Lines::ending_now(total);

    ingestion::measure(&lines, rounds, &machines, &rival, files.path());
    wait_compressed(&server, total);
    println!("  PostgreSQL: {:.1} bytes per line", rival.bytes() as f64 / total as f64);

    println!("\nthe last {TAIL} of {total} lines (goal 30 ms)");
    checkpoint(&server, "tail", lines.tail());
    compare(rounds, &mut [show(&server, &["--history", "tail:"]), rival.query(&lines.last_rows())]);

    println!("\none stream, one minute of those (goal 50 ms)");
    let (from, to) = lines.minute();
    checkpoint(&server, "from", from);
    checkpoint(&server, "to", to);
    let minute = ["--streams", "^app7$", "--history", "from:to"];
    compare(rounds, &mut [show(&server, &minute), rival.query(&lines.rows_of_minute(7))]);

    let searched = SEARCHED.min(total - TAIL);
    println!("\na regular expression over {searched} lines (at most 1.5 times grep)");
    let text = files.path().join("text");
    let bound = lines.write_text(&text, searched);
    checkpoint(&server, "start", lines.start() - 2_000_000);
    checkpoint(&server, "bound", bound);
    for expression in EXPRESSIONS {
        let grep = |locale: &str| {
            let mut grep = Command::new("env");
            grep.arg(format!("LC_ALL={locale}")).args(["grep", "-E", expression]).arg(&text);
            grep
        };
        let ours = show(&server, &["--history", "start:bound", expression]);
        let theirs = rival.query(&lines.rows_like(expression, bound));
        compare(rounds, &mut [ours, grep("C"), grep("C.UTF-8"), theirs]);
    }
    // What it still writes would be in the way of ours.
    drop(rival);
    assert!(Command::new("sync").status().unwrap().success());
    latency::measure(&server, &machines[0], rounds);
}
