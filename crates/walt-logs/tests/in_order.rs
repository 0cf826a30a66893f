//! Sources that send their lines again.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

use std::sync::{Arc, mpsc};
use walt_logs::{Chunk, Error, Mark, Mode, Query, Retention, Store};

const SOURCE: u64 = 7;

/// Appends lines by their numbers; the outcome once it is known.
fn append(store: &Store, numbers: std::ops::Range<u64>) -> mpsc::Receiver<Result<(), Error>> {
    let stream = store.stream("n1", "app", Mode::Line).unwrap();
    let mut chunk = Chunk::new();
    for number in numbers.clone() {
        chunk.push(stream, number as i64, number.to_string().as_bytes()).unwrap();
    }
    let (send, outcome) = mpsc::channel();
    let mark = Mark { source: SOURCE, position: numbers.end };
    store.append_in_order(chunk, numbers.start, mark, Box::new(move |r| drop(send.send(r)))).unwrap();
    outcome
}

#[test]
fn two_connections_of_a_source_store_each_line_once() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(dir.path(), Retention::default()).unwrap();
    let is_gap =
        |outcome: mpsc::Receiver<Result<(), Error>>| matches!(outcome.recv().unwrap(), Err(Error::Gap));
    assert!(is_gap(append(&store, 0..1)), "it was not resumed");
    assert_eq!(store.resume(SOURCE).unwrap(), 0);
    // The first connection has lines on their way when the second one comes.
    let first = append(&store, 0..10);
    assert_eq!(store.resume(SOURCE).unwrap(), 10, "what was appended counts");
    assert!(first.recv().unwrap().is_ok());
    let second = append(&store, 10..20);
    assert!(is_gap(append(&store, 10..15)), "what the first connection still has");
    let third = append(&store, 20..30);
    assert!(second.recv().unwrap().is_ok() && third.recv().unwrap().is_ok());
    assert_eq!(store.position(SOURCE), Some(30));
    let all = Query::new(Arc::new(|_| true));
    let lines: Vec<_> = store.query(&all).map(|record| record.unwrap().line.to_vec()).collect();
    assert!(
        lines.iter().map(|l| String::from_utf8_lossy(l).into_owned()).eq((0..30).map(|n: u64| n.to_string()))
    );
}
