//! A disk that fills up: a small file system in memory, mounted in a mount namespace of the test's own.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use walt_logs::{Chunk, Error, Mode, Query, Retention, Store};

const DIRECTORY: &str = "WALT_LOGS_FULL_DIRECTORY";

fn namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command
}

/// Runs on a file system of 3 MiB.
#[test]
#[ignore = "is run by the test below, in a mount namespace of its own"]
fn child() {
    let mounted = PathBuf::from(std::env::var_os(DIRECTORY).expect("only the test below runs this"));
    let store = Store::open(&mounted.join("logs"), Retention::default()).unwrap();
    let stream = store.stream("node", "s", Mode::Line).unwrap();
    let append = |line: &[u8]| {
        let mut chunk = Chunk::new();
        chunk.push(stream, 1, line).unwrap();
        store.append_wait(chunk, None)
    };
    let large = vec![b'x'; 1 << 20];
    let mut stored = 0;
    let error = loop {
        match append(&large) {
            Ok(()) => stored += 1,
            Err(e) => break e,
        }
        assert!(stored < 10, "the disk does not fill up");
    };
    assert!(
        matches!(error, Error::Dropped { lines: 1, bytes: 1_048_576, .. }) && error.is_disk_full(),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(message.starts_with("1 log line was dropped (1048576 bytes): cannot write to "), "{message}");
    assert!(message.ends_with("; free space there, or lower the size that logs may take"), "{message}");
    assert_eq!(store.status().dropped_lines, 1);
    let count = |store: &Store| {
        let records = store.query(&Query::new(Arc::new(|_| true)));
        records.collect::<Result<Vec<_>, _>>().unwrap().len()
    };
    assert_eq!(count(&store), stored, "what was reported as dropped is not there");

    // Small lines and new streams fit in what is left; then the disk fills up to its last byte.
    append(b"small").unwrap();
    let ballast = mounted.join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).unwrap_err();
    let other = store.stream("node", "other", Mode::Line).unwrap();
    let mut chunk = Chunk::new();
    chunk.push(other, 2, &[b'y'; 10_000]).unwrap();
    let refused = store.append_wait(chunk, None).unwrap_err();
    assert!(refused.is_disk_full(), "{refused}");

    // There is room again: the store goes on by itself, with the new stream.
    std::fs::remove_file(&ballast).unwrap();
    let mut chunk = Chunk::new();
    chunk.push(other, 2, b"again").unwrap();
    store.append_wait(chunk, None).unwrap();
    assert_eq!(store.check().unwrap().findings, Vec::<String>::new());
    drop(store);
    let store = Store::open(&mounted.join("logs"), Retention::default()).unwrap();
    assert_eq!(count(&store), stored + 2);
    assert_eq!(&*store.stream_info(other).unwrap().name, "other");
    assert_eq!(store.check().unwrap().findings, Vec::<String>::new());
}

#[test]
fn a_full_disk_drops_lines_says_so_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=3m none '{}'", dir.path().display());
    if !namespace().arg(&mount).status().is_ok_and(|s| s.success()) {
        println!("skipped: this account may not mount a file system in a namespace of its own");
        return;
    }
    let output = namespace()
        .arg(format!("{mount} && exec \"$0\" --exact child --ignored --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, dir.path())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
