//! Copies from and to a node, and saves of it, that end before they are done: their client goes, or the server dies.

use super::{USER, on};
use crate::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use walt_testkit::cut::{How, cleared, cut};
use walt_testkit::kills::{Random, StopAll};
use walt_testkit::{TestServer, until};

/// Deaths of the server in CI, and with `WALT_TEST_LONG`.
const KILLS: (u32, u32) = (20, 200);
/// Names that are saved to.
const NAMES: [&str; 2] = ["s0", "s1"];
/// For a node to be served again, and to be asked something, while the server dies now and then.
const SERVED_AGAIN: Duration = Duration::from_secs(300);
/// Bytes that take minutes to come from a node, or to go to it.
const ENDLESS: u64 = 4 << 30;

/// Nothing of what was cut off runs on the node or is mounted there.
#[track_caller]
fn node_is_clear(server: &TestServer) {
    // What is left is said if it stays.
    let question = "grep walt-save /proc/mounts; ps -o pid,ppid,args | grep '[t]ar .*-[cx] -f'; echo end";
    let mut seen = String::new();
    until("what was cut off to end on the node", SERVED_AGAIN, || {
        let ran = server.walt(USER, &["node", "run", "vn1", question]);
        let now = format!("{ran:?}");
        if ran.out != "end\n" && now != seen {
            eprintln!("on the node: {now}");
            seen = now;
        }
        (ran.out == "end\n").then_some(())
    });
}

/// Clients go by ctrl-C and by `kill -9`; the image `saved` is that of the node.
pub fn clients_go(server: &TestServer, dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    let names = || server.walt(USER, &["image", "show", "--names-only"]).ok();
    let versions = || server.walt(USER, &["image", "history", "saved", "--json"]).ok();
    on(server, "vn1", &format!("truncate -s {ENDLESS} /root/endless"));
    File::create(dir.join("endless")).unwrap().set_len(ENDLESS).unwrap();
    let packs =
        |words: &str| server.children().iter().any(|line| line.contains("ssh ") && line.contains(words));
    let writes = || fs::read_dir(server.state_dir().join("images/tmp")).unwrap().next().is_some();
    let (names_before, versions_before) = (names(), versions());
    for how in How::ALL {
        cut(server, USER, &["node", "save", "vn1", "half"], how, |_| packs("walt-save") && writes());
        cleared(server);
        node_is_clear(server);
    }
    let booted = ["node", "cp", "-y", "vn1:/root/endless", "booted-image"];
    cut(server, USER, &booted, How::Interrupted, |_| packs("tar") && writes());
    cleared(server);
    // What comes is under a name of its own until all is there: a client that is killed leaves that.
    let coming = || {
        let list = fs::read_dir(dir).unwrap().flatten();
        list.filter(|e| e.file_name().to_string_lossy().starts_with(".walt-cp-")).count()
    };
    for (number, how) in How::ALL.into_iter().enumerate() {
        let back = path("endless-back");
        cut(server, USER, &["node", "cp", "vn1:/root/endless", &back], how, |_| packs("tar") && coming() > 0);
        assert_eq!(coming(), number);
        assert!(!Path::new(&back).exists());
        cleared(server);
    }
    let to = ["node", "cp", &path("endless"), "vn1:/root/to"];
    cut(server, USER, &to, How::Interrupted, |_| packs("tar"));
    cleared(server);
    node_is_clear(server);
    assert_eq!((names(), versions()), (names_before, versions_before), "no image was made or changed");
    on(server, "vn1", "rm -f /root/endless /root/to");
}

/// The server is killed at random moments while a node is saved all the time.
pub fn server_dies(server: &TestServer) {
    let kills = if std::env::var_os("WALT_TEST_LONG").is_some() { KILLS.1 } else { KILLS.0 };
    let mut random = Random::seeded(&format!("saves of a node: {kills} kills"));
    // So much that a save has a middle.
    let many = "mkdir /root/many; i=0; while [ $i -lt 1000 ]; do echo $i >/root/many/$i; i=$((i+1)); done";
    on(server, "vn1", many);
    let start = Instant::now();
    server.walt(USER, &["node", "save", "vn1", NAMES[0], "-y"]).ok();
    let one_save = start.elapsed();
    let boot_id = on(server, "vn1", "cat /proc/sys/kernel/random/boot_id");
    let (epoch, stop, begun) = (AtomicU32::new(0), AtomicBool::new(false), AtomicU32::new(0));
    // By name, what may be saved under it.
    let mut saved = BTreeMap::from([(NAMES[0], BTreeSet::from([String::new()]))]);
    let (mut done, mut cut_off) = (0, 0);
    std::thread::scope(|scope| {
        let stop_all = StopAll(&stop);
        let (epoch, stop, begun, saved, done, cut_off) =
            (&epoch, &stop, &begun, &mut saved, &mut done, &mut cut_off);
        let saver = scope.spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (name, token) = (NAMES[number % NAMES.len()], format!("token-{number}"));
                until("the node to take a new token", SERVED_AGAIN, || {
                    let write = format!("echo {token} >/root/token");
                    (server.walt(USER, &["node", "run", "vn1", &write]).status == Some(0)).then_some(())
                });
                let before = epoch.load(Ordering::SeqCst);
                begun.fetch_add(1, Ordering::SeqCst);
                let ran = server.walt(USER, &["node", "save", "vn1", name, "-y"]);
                if ran.status == Some(0) {
                    assert!(ran.out.ends_with("OK\n"), "{ran:?}");
                    saved.insert(name, BTreeSet::from([token]));
                    *done += 1;
                } else {
                    let killed = before % 2 == 1 || epoch.load(Ordering::SeqCst) != before;
                    assert!(killed, "nobody was killed: {ran:?}");
                    saved.entry(name).or_default().insert(token);
                    *cut_off += 1;
                }
            }
        });
        for _ in 0..kills {
            let before = begun.load(Ordering::SeqCst);
            until("a save to begin", SERVED_AGAIN, || {
                assert!(!saver.is_finished(), "the saver has failed");
                (begun.load(Ordering::SeqCst) > before).then_some(())
            });
            // A save waits for the node's link first; three of four deaths come later than that.
            if random.below(4) > 0 {
                let saving = || server.children().iter().any(|line| line.contains("walt-save"));
                until("a save to reach the node, or to end", SERVED_AGAIN, || {
                    (saving() || begun.load(Ordering::SeqCst) > before + 1).then_some(())
                });
            }
            // Longer than a save, so that some are done.
            let longest = 2 * one_save.as_millis() as u64;
            random.sleep(longest);
            epoch.fetch_add(1, Ordering::SeqCst);
            server.crash();
            server.launch_with(&[]).unwrap_or_else(|e| panic!("{e:?}"));
            epoch.fetch_add(1, Ordering::SeqCst);
        }
        drop(stop_all);
    });
    wait(server, "vn1");
    let check = server.server_command(&["check-store"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    cleared(server);
    node_is_clear(server);
    assert_eq!(
        on(server, "vn1", "cat /proc/sys/kernel/random/boot_id"),
        boot_id,
        "the node was not rebooted"
    );
    let names = server.walt(USER, &["image", "show", "--names-only"]).ok();
    for (name, tokens) in &saved {
        if !names.lines().any(|line| line == *name) {
            assert!(*name != NAMES[0], "{name} is lost");
            continue;
        }
        let read = server
            .walt_with_input(
                USER,
                &["image", "shell", name],
                "cat /root/token 2>/dev/null || echo; ls /root/many | wc -l\n",
            )
            .ok();
        let (read, files) = read.split_once('\n').unwrap();
        assert_eq!(files.trim(), "1000", "{name}");
        assert!(tokens.contains(read.trim()), "{name} has {read:?}, not one of {tokens:?}");
    }
    eprintln!(
        "{kills} kills in {:.0} s, {done} saves were reported as done, {cut_off} cut off; {}",
        start.elapsed().as_secs_f64(),
        String::from_utf8_lossy(&check.stdout).trim()
    );
}
