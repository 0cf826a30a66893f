//! The store as its users see it.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use walt_logs::{
    Chunk, Error, Mark, Mode, Pattern, Query, Record, Retention, Selector, Store, StreamId, limits,
};

const WAIT: Duration = Duration::from_secs(20);

fn open(dir: &Path) -> Store {
    Store::open(dir, Retention::default()).unwrap()
}

fn chunk(stream: StreamId, lines: &[&[u8]]) -> Chunk {
    let mut chunk = Chunk::new();
    lines.iter().for_each(|line| chunk.push(stream, 1_000_000, line).unwrap());
    chunk
}

fn all() -> Query {
    Query::new(Arc::new(|_| true))
}

fn lines(store: &Store) -> Vec<Vec<u8>> {
    store.query(&all()).map(|r| r.unwrap().line).collect()
}

fn text(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.line.clone()).unwrap()).collect()
}

#[test]
fn any_bytes_come_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec![b'x'; limits::MAX_LINE];
    let odd: [&[u8]; 7] = [b"", b"\0", b"\n\n", b"\xff\xfe", b"h\xc3", b"CLOSE", &long];
    {
        let store = open(dir.path());
        let stream = store.stream("node", "s", Mode::Line).unwrap();
        store.append_wait(chunk(stream, &odd), None).unwrap();
        assert_eq!(lines(&store), odd);
        store.rotate().unwrap();
        store.compress().unwrap();
        assert_eq!(store.status().compressed, 1);
        assert_eq!(lines(&store), odd);
    }
    let store = open(dir.path());
    assert_eq!(lines(&store), odd);
    assert_eq!(store.check().unwrap().lines, odd.len() as u64);
    let too_long = Chunk::new().push(StreamId(0), 0, &vec![0; limits::MAX_LINE + 1]);
    assert!(matches!(too_long, Err(Error::LineTooLong(_))));
}

#[test]
fn lines_are_durable_within_the_time_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    let (send, receive) = mpsc::channel();
    let start = Instant::now();
    for i in 0..3 {
        let send = send.clone();
        store
            .append(chunk(stream, &[b"x"]), None, Box::new(move |r| send.send((i, r.is_ok())).unwrap()))
            .unwrap();
    }
    assert_eq!(lines(&store).len(), 3, "lines are visible before they are durable");
    let done: Vec<_> = (0..3).map(|_| receive.recv_timeout(WAIT).unwrap()).collect();
    assert_eq!(done, [(0, true), (1, true), (2, true)]);
    assert!(start.elapsed() >= limits::BATCH_TIME, "a batch waits for more lines");
}

#[test]
fn handles_may_go_to_other_threads() {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    shareable::<Store>();
    shareable::<Query>();
    sendable::<walt_logs::Records>();
    sendable::<walt_logs::Tail>();
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(dir.path(), Retention::default()).err().unwrap();
    assert!(matches!(second, Error::InUse(_)), "{second}");
    drop(store);
    open(dir.path());
}

#[test]
fn positions_of_sources_are_durable_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let stream = store.stream("node", "s", Mode::Line).unwrap();
        assert_eq!(store.position(7), None);
        for position in 1..=3 {
            store.append_wait(chunk(stream, &[b"x"]), Some(Mark { source: 7, position })).unwrap();
        }
        store.append_wait(Chunk::new(), Some(Mark { source: 8, position: 80 })).unwrap();
        assert_eq!(store.position(7), Some(3));
        // They survive the segment in which they were written.
        store.rotate().unwrap();
        store.compress().unwrap();
    }
    let store = open(dir.path());
    assert_eq!((store.position(7), store.position(8), store.position(9)), (Some(3), Some(80), None));
    // Those that were silent the longest are forgotten.
    for source in 0..limits::MAX_SOURCES as u64 {
        store
            .append(Chunk::new(), Some(Mark { source: 100 + source, position: 1 }), Box::new(|_| ()))
            .unwrap();
    }
    store.flush().unwrap();
    assert_eq!((store.position(7), store.position(100)), (None, Some(1)));
}

#[test]
fn a_tail_joins_history_and_new_lines_without_gap_or_double() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let streams: Vec<_> =
        (0..WRITERS).map(|w| store.stream("node", &w.to_string(), Mode::Line).unwrap()).collect();
    std::thread::scope(|scope| {
        for (w, stream) in streams.iter().enumerate() {
            let store = &store;
            scope.spawn(move || {
                for i in 0..EACH {
                    store
                        .append(
                            chunk(*stream, &[format!("{w} {i}").as_bytes()]),
                            None,
                            Box::new(|r| r.unwrap()),
                        )
                        .unwrap();
                    if i % 500 == 0 {
                        store.rotate().unwrap();
                    }
                }
            });
        }
        let tails: Vec<_> = (0..6)
            .map(|t| {
                let store = &store;
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(t * 40));
                    let mut tail = store.tail(&all(), true);
                    let mut got = Vec::new();
                    while got.len() < (WRITERS * EACH) as usize {
                        let page = tail.next(WAIT).unwrap();
                        assert!(!page.is_empty(), "after {} lines, none came for 20 s", got.len());
                        got.extend(text(&page));
                    }
                    assert_eq!(tail.next(Duration::from_millis(1)).unwrap(), []);
                    assert!(tail.is_live());
                    got.sort();
                    got
                })
            })
            .collect();
        let mut expected: Vec<String> =
            (0..WRITERS).flat_map(|w| (0..EACH).map(move |i| format!("{w} {i}"))).collect();
        expected.sort();
        for tail in tails {
            assert!(tail.join().unwrap() == expected);
        }
    });
}

#[test]
fn a_tail_that_is_slow_reads_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    let other = store.stream("node", "other", Mode::Line).unwrap();
    store.append_wait(chunk(stream, &[b"before"]), None).unwrap();
    let mut tail = store.tail(&Query::new(Arc::new(|info| &*info.name == "s")), false);
    let line = vec![b'x'; 1 << 20];
    let count = 3 * limits::TAIL_BYTES / line.len();
    for _ in 0..count {
        store.append(chunk(other, &[b"no"]), None, Box::new(|r| r.unwrap())).unwrap();
        store.append(chunk(stream, &[&line]), None, Box::new(|r| r.unwrap())).unwrap();
    }
    store.flush().unwrap();
    store.rotate().unwrap();
    store.compress().unwrap();
    store.append(chunk(stream, &[b"last"]), None, Box::new(|r| r.unwrap())).unwrap();
    let mut got = Vec::new();
    while got.last().is_none_or(|r: &Record| r.line != b"last") {
        let page = tail.next(WAIT).unwrap();
        assert!(!page.is_empty());
        got.extend(page);
    }
    assert_eq!(got.len(), count + 1);
    assert!(got.iter().map(|r| r.seq).is_sorted());
    drop(store);
    assert!(matches!(tail.next(WAIT), Err(Error::Closed)));
}

#[test]
fn a_tail_has_streams_that_are_new_and_filters() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let woken = Arc::new(AtomicUsize::new(0));
    let hook = Arc::clone(&woken);
    store.set_hook(Arc::new(move || {
        hook.fetch_add(1, Ordering::Relaxed);
    }));
    let query = Query {
        pattern: Some(Pattern::new("^a").unwrap()),
        ..Query::new(Arc::new(|info| &*info.issuer == "node"))
    };
    let mut tail = store.tail(&query, true);
    let new = store.stream("node", "new", Mode::Line).unwrap();
    let other = store.stream("other", "new", Mode::Line).unwrap();
    store.append(chunk(other, &[b"a0"]), None, Box::new(|_| ())).unwrap();
    store.append(chunk(new, &[b"a1", b"b", b"a2"]), None, Box::new(|_| ())).unwrap();
    assert_eq!(text(&tail.next(WAIT).unwrap()), ["a1", "a2"]);
    assert_eq!(tail.next(Duration::ZERO).unwrap(), []);
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    drop(tail);
    store.append(chunk(new, &[b"a3"]), None, Box::new(|_| ())).unwrap();
    assert_eq!(woken.load(Ordering::Relaxed), 2, "nobody is to be woken");
}

#[test]
fn whole_segments_expire_by_age_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    for i in 0..4 {
        store.append_wait(chunk(stream, &[format!("{i}").as_bytes()]), None).unwrap();
        store.rotate().unwrap();
    }
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    let hour = 3_600_000_000;
    store.set_retention(Retention { keep: Some(Duration::from_secs(3600)), max_size: None });
    store.expire(now());
    assert_eq!(lines(&store).len(), 4);
    // A query that has begun still reads what expires.
    let reading = store.query(&all());
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = files();
    store.expire(now() + 2 * hour);
    assert_eq!(lines(&store).len(), 0);
    assert_eq!(reading.collect::<Result<Vec<_>, _>>().unwrap().len(), 4);
    assert_eq!(files(), before - 4);
    assert_eq!(store.status().expired_lines, 4);

    store.append_wait(chunk(stream, &[&[b'x'; 100_000]]), None).unwrap();
    store.rotate().unwrap();
    store.append_wait(chunk(stream, &[b"newest"]), None).unwrap();
    store.rotate().unwrap();
    store.set_retention(Retention { keep: None, max_size: Some(50_000) });
    store.expire(now());
    assert_eq!(lines(&store), [b"newest"]);
    assert_eq!(store.check().unwrap().findings, Vec::<String>::new());
    drop(store);
    assert_eq!(lines(&open(dir.path())), [b"newest"]);
}

#[test]
fn small_segments_become_one_and_a_crash_in_between_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    for i in 0..5 {
        store.append_wait(chunk(stream, &[format!("{i}").as_bytes()]), None).unwrap();
        store.rotate().unwrap();
    }
    let logs = || -> Vec<_> {
        let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
        names.filter(|p| p.extension().is_some_and(|e| e == "log")).collect()
    };
    let before: Vec<_> = logs().into_iter().map(|p| (std::fs::read(&p).unwrap(), p)).collect();
    store.compress().unwrap();
    assert_eq!((store.status().segments, store.status().compressed), (2, 1));
    assert_eq!(logs().len(), 1);
    drop(store);
    // As if the server had died before it removed the old ones, and while it made another one.
    before.iter().for_each(|(bytes, path)| std::fs::write(path, bytes).unwrap());
    std::fs::write(dir.path().join("0000000000000000-0000000000000009.tmp"), b"half").unwrap();
    let store = open(dir.path());
    assert_eq!(lines(&store), [b"0", b"1", b"2", b"3", b"4"]);
    assert_eq!(logs().len(), 1);
    assert_eq!(store.check().unwrap().findings, Vec::<String>::new());
}

#[test]
fn a_compressed_segment_without_its_index_is_read_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    store.append_wait(chunk(stream, &[b"one", b"two"]), None).unwrap();
    store.rotate().unwrap();
    store.compress().unwrap();
    drop(store);
    let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let path = names.into_iter().find(|p| p.extension().is_some_and(|e| e == "zst")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len() - 40;
    bytes[end] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = open(dir.path());
    assert_eq!(lines(&store), [b"one", b"two"]);
    let findings = store.check().unwrap().findings;
    assert!(findings.len() == 1 && findings[0].ends_with("its index is not intact"), "{findings:?}");
}

#[test]
fn a_forgotten_issuer_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let gone = store.stream("gone", "s", Mode::Line).unwrap();
    let stays = store.stream("stays", "s", Mode::Line).unwrap();
    store.append_wait(chunk(gone, &[b"secret"]), None).unwrap();
    store.append_wait(chunk(stays, &[b"kept"]), None).unwrap();
    store.forget_issuer("gone").unwrap();
    assert_eq!(lines(&store), [b"kept"]);
    assert_eq!(store.check().unwrap().findings, Vec::<String>::new());
    assert_ne!(store.stream("gone", "s", Mode::Line).unwrap(), gone);
    store.rotate().unwrap();
    store.compress().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(lines(&store), [b"kept"]);
    assert_eq!(store.stream_info(gone), None);
    assert_eq!(store.status().lines, 1, "compression leaves its lines out");
}

#[test]
fn who_appends_faster_than_the_disk_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    let line = vec![b'x'; limits::MAX_LINE];
    let most = 2 * (limits::BATCH_BYTES + limits::MAX_CHUNK_BYTES + limits::MAX_LINE);
    let (appended, done) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let count = Arc::clone(&done);
                    let acknowledge = move |r: Result<(), Error>| {
                        r.unwrap();
                        count.fetch_add(limits::MAX_LINE, Ordering::SeqCst);
                    };
                    store.append(chunk(stream, &[&line]), None, Box::new(acknowledge)).unwrap();
                    let now = appended.fetch_add(limits::MAX_LINE, Ordering::SeqCst) + limits::MAX_LINE;
                    let waiting = now - done.load(Ordering::SeqCst).min(now);
                    assert!(waiting <= most + 4 * limits::MAX_LINE, "{waiting} bytes wait in memory");
                }
            });
        }
    });
    store.flush().unwrap();
    assert!(store.has_room());
    assert_eq!(store.status().lines, 40);
}

#[test]
fn closing_makes_all_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (send, receive) = mpsc::channel();
    {
        let store = open(dir.path());
        let stream = store.stream("node", "s", Mode::Chunk).unwrap();
        store.append(chunk(stream, &[b"x"]), None, Box::new(move |r| send.send(r.is_ok()).unwrap())).unwrap();
    }
    assert!(receive.recv_timeout(WAIT).unwrap());
    let store = open(dir.path());
    assert_eq!(lines(&store).len(), 1);
    let chunks: Selector = Arc::new(|info| info.mode == Mode::Chunk);
    assert_eq!(store.streams(&chunks).len(), 1);
}
