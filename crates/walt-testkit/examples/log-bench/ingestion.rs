//! Lines from 100 connections at once, until all are durable; COPY of the same lines.

use crate::lines::{Lines, STREAMS};
use crate::rival::{CLIENTS, Postgres};
use crate::{CONNECTIONS_EACH, ROUND, median, shown};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use walt_testkit::Registered;

/// Lines of a write.
const BATCH: usize = 512;

/// Sends frames, and waits until the server has acknowledged them all.
fn send(mut stream: TcpStream, name: &str, source: u64, frames: &[Vec<u8>], count: usize) {
    write!(stream, "REQ_LOG_STREAM 1\nstream {name}\nsource {source:016x}\n\n").unwrap();
    let answers = BufReader::new(stream.try_clone().unwrap()).lines();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let last = answers.map(Result::unwrap).last().unwrap();
            assert_eq!(last, format!("BYE {count}"));
        });
        frames.iter().for_each(|frame| stream.write_all(frame).unwrap());
        stream.write_all(b"END\n").unwrap();
    });
}

/// The frames of each connection.
fn prepare(lines: &Lines, range: &Range<usize>) -> Vec<(Vec<Vec<u8>>, usize)> {
    (0..STREAMS)
        .map(|stream| {
            let own: Vec<usize> = range.clone().filter(|i| Lines::stream(*i) == stream).collect();
            let frame = |i: &usize| {
                let (text, at) = (Lines::text(*i), lines.at(*i));
                format!("L {} {}.{:06}\n{text}\n", text.len(), at / 1_000_000, at % 1_000_000)
            };
            let batch = |batch: &[usize]| batch.iter().map(frame).collect::<String>().into_bytes();
            (own.chunks(BATCH).map(batch).collect(), own.len())
        })
        .collect()
}

fn ours(lines: &Lines, range: &Range<usize>, machines: &[Registered]) -> f64 {
    let prepared = prepare(lines, range);
    let connections: Vec<TcpStream> =
        (0..STREAMS).map(|i| machines[i / CONNECTIONS_EACH].connect().expect("the server serves")).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (number, (stream, (frames, count))) in connections.into_iter().zip(&prepared).enumerate() {
            let source = (range.start as u64) << 8 | number as u64;
            scope.spawn(move || send(stream, &format!("app{number}"), source, frames, *count));
        }
    });
    start.elapsed().as_secs_f64()
}

/// Rounds in turns, and then the rest of the lines, which is not counted.
pub fn measure(lines: &Lines, rounds: usize, machines: &[Registered], rival: &Postgres, dir: &Path) {
    let round = ROUND.min(lines.total / (rounds + 1));
    println!(
        "\ningestion, {STREAMS} connections, {round} lines a round, each durable at its end, n={rounds}"
    );
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..=rounds {
        let range = number * round..(number + 1) * round;
        let files = rival.prepare(lines, range.clone(), dir);
        let mut figures = [0.0; 2];
        for side in 0..2 {
            let side = (side + number) % 2;
            figures[side] = match side {
                0 => ours(lines, &range, machines),
                _ => rival.load(&files),
            };
        }
        if number > 0 {
            mine.push(round as f64 / figures[0]);
            theirs.push(round as f64 / figures[1]);
        }
    }
    println!(
        "  ours   {}  (goal 300,000)\n           frames of 'REQ_LOG_STREAM 1', from {} machines",
        shown(&mine, "lines/s", 0),
        machines.len()
    );
    println!(
        "  rival  {}\n           {CLIENTS} times: psql -f FILE   (COPY logs FROM STDIN, 512 rows each)",
        shown(&theirs, "lines/s", 0)
    );
    println!("  ours/rival {:.2} (at least 2)", median(&mine) / median(&theirs));
    let mut from = (rounds + 1) * round;
    while from < lines.total {
        let range = from..(from + ROUND).min(lines.total);
        from = range.end;
        ours(lines, &range, machines);
        rival.load(&rival.prepare(lines, range, dir));
    }
}
