//! From a node to a terminal: how old a line is when `walt log show --realtime` prints it.

use crate::{ANN, shown};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};
use walt_testkit::{Registered, TestServer};

/// Lines a second, in so many writes.
const RATE: usize = 10_000;
const WRITES: usize = 100;
/// Seconds of a round.
const SECONDS: usize = 5;

fn microseconds(start: Instant) -> u128 {
    start.elapsed().as_micros()
}

/// Ages of the lines of a round, in milliseconds, sorted.
fn round(server: &TestServer, machine: &Registered, number: usize) -> Vec<f64> {
    let name = format!("beat{number}");
    let streams = format!("^{name}$");
    let words = ["log", "show", "--realtime", "--issuers", "n0", "--streams", &streams, "--format", "{line}"];
    let mut command = server.walt_command(ANN, &words);
    let mut shower = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(shower.stdout.take().unwrap());
    // It follows the stream from then on.
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    let reader = std::thread::spawn(move || {
        let age = |line: String| (microseconds(start) - line.parse::<u128>().unwrap()) as f64 / 1000.0;
        output.lines().take(RATE * SECONDS).map(|line| age(line.unwrap())).collect::<Vec<f64>>()
    });
    let mut stream = machine.connect().expect("the server serves");
    // As the tools of nodes do.
    stream.set_nodelay(true).unwrap();
    write!(stream, "REQ_LOG_STREAM 1\nstream {name}\nsource {:016x}\n\n", 0xffff_0000 + number as u64)
        .unwrap();
    let answers = stream.try_clone().unwrap();
    let drain = std::thread::spawn(move || BufReader::new(answers).lines().map_while(Result::ok).count());
    for write in 0..WRITES * SECONDS {
        let due = Duration::from_secs_f64(write as f64 / WRITES as f64);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let now = microseconds(start).to_string();
        let frame = format!("L {} -\n{now}\n", now.len());
        stream.write_all(frame.repeat(RATE / WRITES).as_bytes()).unwrap();
    }
    stream.write_all(b"END\n").unwrap();
    let mut ages = reader.join().unwrap();
    drain.join().unwrap();
    shower.kill().unwrap();
    shower.wait().unwrap();
    assert_eq!(ages.len(), RATE * SECONDS);
    ages.sort_by(f64::total_cmp);
    ages
}

/// Prints the medians of the rounds' p50 and p99.
pub fn measure(server: &TestServer, machine: &Registered, rounds: usize) {
    println!("\nnode to 'walt log show --realtime', {RATE} lines a second for {SECONDS} s, n={rounds}");
    let all: Vec<Vec<f64>> = (0..rounds).map(|number| round(server, machine, number)).collect();
    for (name, part) in [("p50", 50), ("p99", 99)] {
        let values: Vec<f64> = all.iter().map(|ages| ages[ages.len() * part / 100]).collect();
        println!("  {name}  {}{}", shown(&values, "ms", 1), if part == 99 { "  (goal 50 ms)" } else { "" });
    }
}
