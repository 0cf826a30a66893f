//! Measures the store next to SQLite in WAL mode, and regular expressions next to `grep`.
//!
//! usage: bench [LINES] [DIRECTORY]     2,000,000 lines; a directory on a disk, /var/tmp
//!
//! Each figure is printed with what it is: seconds, lines a second, bytes a line. The same lines go to both stores, from
//! 100 threads, in calls of 512 lines, each durable before the thread goes on with the one after the next.

#[path = "shared/line.rs"]
mod line;

use line::line;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use walt_logs::{Chunk, Mode, Pattern, Query, Retention, Store};

const THREADS: usize = 100;
const CALL: usize = 512;
/// Calls of a thread that may be on their way.
const WINDOW: usize = 4;
const START: i64 = 1_790_000_000_000_000;
/// Microseconds between lines: 20 million in an hour.
const STEP: i64 = 180;
const EXPRESSIONS: [&str; 3] =
    ["client 42 took", "client (17|42) took 39[0-9]+ us", "status=50[0-9] .*retry"];

/// Stream, timestamp and line of each row, and who waits for them.
type Call = (Vec<(usize, i64, String)>, mpsc::Sender<()>);
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn at(i: usize) -> i64 {
    START + i as i64 * STEP
}

fn timed<T>(what: &str, f: impl FnOnce() -> Outcome<T>) -> Outcome<(T, f64)> {
    let start = Instant::now();
    let value = f()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<66} {:>10.1} ms", seconds * 1000.0);
    Ok((value, seconds))
}

/// Runs a function in 100 threads, each with its part of the calls.
fn in_threads(lines: usize, f: impl Fn(usize, Vec<usize>) -> Outcome<()> + Sync) -> Outcome<()> {
    std::thread::scope(|scope| {
        let f = &f;
        let thread = |t: usize| {
            scope.spawn(move || f(t, (0..lines.div_ceil(CALL)).skip(t).step_by(THREADS).collect()))
        };
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}

fn ingest(store: &Store, lines: usize) -> Outcome<()> {
    in_threads(lines, |t, calls| {
        let stream = store.stream(&format!("node{t}"), "app", Mode::Line)?;
        let (send, receive) = mpsc::channel();
        let mut under_way = 0;
        for call in calls {
            let mut chunk = Chunk::new();
            for i in call * CALL..((call + 1) * CALL).min(lines) {
                chunk.push(stream, at(i), line(i).as_bytes())?;
            }
            let send = send.clone();
            store.append(chunk, None, Box::new(move |result| drop(send.send(result))))?;
            under_way += 1;
            if under_way >= WINDOW {
                receive.recv()??;
                under_way -= 1;
            }
        }
        for _ in 0..under_way {
            receive.recv()??;
        }
        Ok(())
    })
}

fn size(dir: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

fn queries(store: &Store, lines: usize, kind: &str) -> Outcome<()> {
    let all = Query::new(Arc::new(|_| true));
    let newest = lines.min(1000);
    let (last, _) = timed(&format!("{kind}: the last {newest} lines"), || Ok(store.last(&all, newest)?))?;
    assert_eq!(last.len(), newest);
    let middle = at(lines / 2);
    let minute = Query {
        after: Some(middle - 1),
        before: Some(middle + 60_000_000),
        ..Query::new(Arc::new(|info| &*info.issuer == "node7"))
    };
    let (n, _) = timed(&format!("{kind}: one stream, one minute"), || Ok(store.query(&minute).count()))?;
    println!("    {n} lines of about {}", 60_000_000 / STEP);
    let (n, seconds) = timed(&format!("{kind}: all lines"), || Ok(store.query(&all).count()))?;
    println!("    {:.0} lines a second", n as f64 / seconds);
    assert_eq!(n, lines);
    Ok(())
}

fn expressions(store: &Store, text: &Path, kind: &str) -> Outcome<()> {
    for expression in EXPRESSIONS {
        let query = Query { pattern: Some(Pattern::new(expression)?), ..Query::new(Arc::new(|_| true)) };
        let (n, ours) = timed(&format!("{kind}: /{expression}/"), || Ok(store.query(&query).count()))?;
        for locale in ["C", "C.UTF-8"] {
            let mut grep = Command::new("grep");
            grep.env("LC_ALL", locale).args(["-c", "-E", expression]).arg(text);
            let (out, theirs) = timed(&format!("grep -cE, LC_ALL={locale}"), || Ok(grep.output()?))?;
            let count: usize = String::from_utf8_lossy(&out.stdout).trim().parse()?;
            assert_eq!(n, count, "{expression}");
            println!("    {n} lines; {:.2} times grep", ours / theirs);
        }
    }
    Ok(())
}

fn ours(dir: &Path, lines: usize, text: &Path) -> Outcome<()> {
    let path = dir.join("logs");
    let store = Store::open(&path, Retention::default())?;
    let (_, seconds) = timed("walt-logs: ingestion", || ingest(&store, lines))?;
    println!("    {:.0} lines a second", lines as f64 / seconds);
    queries(&store, lines, "walt-logs")?;
    expressions(&store, text, "walt-logs")?;
    println!("    {:?}", store.status());
    store.rotate()?;
    timed("walt-logs: compression of the rest", || store.compress().map_err(Into::into))?;
    println!("    {:.1} bytes a line", size(&path)? as f64 / lines as f64);
    queries(&store, lines, "walt-logs, compressed")?;
    expressions(&store, text, "walt-logs, compressed")?;
    let (report, _) = timed("walt-logs: check", || Ok(store.check()?))?;
    assert_eq!(report.findings, Vec::<String>::new());
    drop(store);
    timed("walt-logs: open", || Ok(Store::open(&path, Retention::default())?))?;
    Ok(())
}

fn sqlite(dir: &Path, lines: usize) -> Outcome<()> {
    let path = dir.join("sqlite");
    std::fs::create_dir_all(&path)?;
    let db = rusqlite::Connection::open(path.join("logs.sqlite"))?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;
         CREATE TABLE logs (stream INTEGER NOT NULL, timestamp INTEGER NOT NULL, line BLOB NOT NULL);
         CREATE INDEX by_stream ON logs (stream, timestamp);
         CREATE INDEX by_time ON logs (timestamp);",
    )?;
    let db = &Mutex::new(db);
    // One writer makes batches as ours does: a thread per connection with a transaction each would be far slower.
    let (send, receive) = mpsc::sync_channel::<Call>(256);
    let (_, seconds) = timed("SQLite: ingestion", || {
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || -> Outcome<()> {
                let mut db = db.lock().map_err(|_| "poisoned")?;
                while let Ok(first) = receive.recv() {
                    let (start, mut calls) = (Instant::now(), vec![first]);
                    while calls.len() < 256 && start.elapsed() < Duration::from_millis(300) {
                        match receive.recv_timeout(Duration::from_millis(5)) {
                            Ok(call) => calls.push(call),
                            Err(_) => break,
                        }
                    }
                    let transaction = db.transaction()?;
                    {
                        let mut insert = transaction.prepare_cached("INSERT INTO logs VALUES (?, ?, ?)")?;
                        for (stream, timestamp, line) in calls.iter().flat_map(|(rows, _)| rows) {
                            insert.execute((*stream as i64, timestamp, line.as_bytes()))?;
                        }
                    }
                    transaction.commit()?;
                    for (_, done) in calls {
                        // Who has ended does not wait for it.
                        let _ = done.send(());
                    }
                }
                Ok(())
            });
            let result = in_threads(lines, |t, calls| {
                let (done, acknowledged) = mpsc::channel();
                let mut under_way = 0;
                for call in calls {
                    let rows =
                        (call * CALL..((call + 1) * CALL).min(lines)).map(|i| (t, at(i), line(i))).collect();
                    send.send((rows, done.clone()))?;
                    under_way += 1;
                    if under_way >= WINDOW {
                        acknowledged.recv()?;
                        under_way -= 1;
                    }
                }
                (0..under_way).try_for_each(|_| acknowledged.recv())?;
                Ok(())
            });
            drop(send);
            writer.join().unwrap_or_else(|_| Err("the writer panicked".into()))?;
            result
        })
    })?;
    println!("    {:.0} lines a second", lines as f64 / seconds);
    let db = db.lock().map_err(|_| "poisoned")?;
    println!("    {:.1} bytes a line", size(&path)? as f64 / lines as f64);
    let count = |sql: &str, parameters: &[i64]| -> Outcome<usize> {
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
        let (mut n, mut bytes) = (0, 0);
        while let Some(row) = rows.next()? {
            n += 1;
            bytes += row.get_ref(2)?.as_blob()?.len();
        }
        assert!(bytes > 0 || n == 0);
        Ok(n)
    };
    timed("SQLite: the last 1000 lines", || {
        count("SELECT * FROM logs ORDER BY timestamp DESC LIMIT 1000", &[])
    })?;
    let middle = at(lines / 2);
    let minute =
        "SELECT * FROM logs WHERE stream = ? AND timestamp >= ? AND timestamp < ? ORDER BY timestamp";
    timed("SQLite: one stream, one minute", || count(minute, &[7, middle, middle + 60_000_000]))?;
    let (n, seconds) =
        timed("SQLite: all lines, by time", || count("SELECT * FROM logs ORDER BY timestamp", &[]))?;
    println!("    {:.0} lines a second", n as f64 / seconds);
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let lines: usize = arguments.next().map_or(Ok(2_000_000), |a| a.parse())?;
    let parent = arguments.next().unwrap_or_else(|| "/var/tmp".into());
    let dir = tempfile::tempdir_in(parent)?;
    println!(
        "{lines} lines, {THREADS} threads, {CALL} lines a call, {:?} CPUs",
        std::thread::available_parallelism()?
    );
    let text = dir.path().join("text");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&text)?);
    let mut bytes = 0;
    for i in 0..lines {
        let line = line(i);
        bytes += line.len();
        writeln!(file, "{line}")?;
    }
    file.flush()?;
    println!("{:.1} bytes of text a line", bytes as f64 / lines as f64);
    ours(dir.path(), lines, &text)?;
    sqlite(dir.path(), lines)
}
