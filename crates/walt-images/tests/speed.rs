//! Times of the store, for people: `cargo test -p walt-images --test speed -- --ignored --nocapture`.
//!
//! `WALT_SPEED_TREE` names a directory to import as the image, a Debian root for example; default `/usr/lib`.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

use std::{fs, process::Command, time::Instant};
use walt_images::{NewEntry, NewKind, Prepared, SaveRules, Store};

/// Repetitions; the median is printed first.
const RUNS: usize = 5;

fn report(what: &str, mut times: Vec<u128>) {
    times.sort_unstable();
    println!("{what}: {} ms (n={}, {times:?})", times[times.len() / 2], times.len());
}

#[test]
#[ignore = "prints times, proves nothing"]
fn times() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let tree = std::env::var("WALT_SPEED_TREE").unwrap_or_else(|_| "/usr/lib".into());
    let mut tar = Command::new("tar")
        .args(["-C", &tree, "-c", "."])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let base = store.import_tar(tar.stdout.take().unwrap()).unwrap();
    tar.wait().unwrap();
    println!(
        "import of {} entries, {} MB: {} ms",
        base.entries,
        base.size / 1_000_000,
        start.elapsed().as_millis()
    );

    let file = NewEntry {
        path: b"bin/walt-env".to_vec(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        kind: NewKind::File(vec![1]),
    };
    let platform = store.build_layer(vec![file], None).unwrap();
    let (mut build, mut load, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    let mut view = store.view(&[base.diff_id], Some(&platform.diff_id)).unwrap();
    for _ in 0..RUNS {
        let index = dir.path().join("images/views").join(view.id().to_string());
        fs::remove_file(&index).unwrap();
        let fresh = Store::open(dir.path()).unwrap();
        let start = Instant::now();
        view = fresh.view(&[base.diff_id], Some(&platform.diff_id)).unwrap();
        build.push(start.elapsed().as_millis());
        let fresh = Store::open(dir.path()).unwrap();
        let start = Instant::now();
        fresh.view_by_id(view.id()).unwrap();
        load.push(start.elapsed().as_millis());
        let start = Instant::now();
        fresh.view_by_id(view.id()).unwrap();
        cached.push(start.elapsed().as_millis());
    }
    println!("view of {} entries", view.len());
    report("view built", build);
    report("view loaded", load);
    report("view cached", cached);

    let mut commits = Vec::new();
    for run in 0..RUNS {
        let layer = store.sessions_dir().join(run.to_string()).join("layer");
        let upper = store.prepare_upper(&layer, &view).unwrap();
        for i in 0..2000u32 {
            let sub = upper.join(format!("data{}", i % 20));
            let _ = fs::create_dir(&sub);
            let bytes: Vec<u8> =
                (0..50_000u32).map(|b| (b.wrapping_mul(i + run as u32) >> 3) as u8).collect();
            fs::write(sub.join(i.to_string()), bytes).unwrap();
        }
        let start = Instant::now();
        match store.prepare_commit(&layer, &view, &SaveRules::standard()).unwrap() {
            Prepared::Layer { info, .. } => store.adopt_layer(&layer, &info.diff_id).unwrap(),
            Prepared::Unchanged { .. } => panic!("nothing to save"),
        }
        commits.push(start.elapsed().as_millis());
    }
    report("100 MB in 2,000 files saved durably", commits);
}
