//! The server is killed at random moments while a node works on its `/persist` and reads its image. Programs on
//! the node must see no error, and nothing that they were told to be on the disk may be missing.

use super::{USER, on, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use walt_testkit::kills::Random;
use walt_testkit::{TestServer, until};

const IMAGE: &str = "pc-x86-64-default";
/// For what runs to its end on an emulated CPU: the longest is one more reading of the whole image.
const WORK: Duration = Duration::from_secs(1200);
/// For the node to be served again: its client tries again after 3, 6, 12 s and so on.
const SERVED_AGAIN: Duration = Duration::from_secs(180);
/// Names that are listed.
const NAMES: u32 = 20_000;
/// Longest time in ms from a start to the next death: with a wait for some work to be done before, and without.
const LIFE_MS: (u64, u64) = (2500, 1200);
/// Longest time in ms for which there is no server.
const GAP_MS: u64 = 800;

/// How much is done.
struct Size {
    kills: u32,
    /// Bytes that are read again and again.
    big: usize,
    /// Where the files of the image lie that are read again and again.
    tree: &'static str,
}

impl Size {
    /// With `WALT_TEST_LONG=1` all that the project promises: 200 deaths, 1 GB, the whole image. Without, 20 deaths
    /// and less to read.
    fn wanted() -> Self {
        if std::env::var_os("WALT_TEST_LONG").is_some() {
            Self { kills: 200, big: 1 << 30, tree: "/usr" }
        } else {
            Self { kills: 20, big: 64 << 20, tree: "/usr/lib/modules/*/kernel/fs" }
        }
    }
}

/// The user's image with the two databases, and the sums of its files where no server is between; without those that
/// the server puts into every image: they are others in the saved one.
fn image(server: &TestServer, size: &Size) {
    let script = format!(
        "set -e
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
        apt-get -q update >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
            -o Dpkg::Options::=--force-confold postgresql sqlite3 >/dev/null
        su postgres -c '/usr/lib/postgresql/*/bin/initdb -N -k -A trust --wal-segsize=1 /var/lib/postgresql/made' >/dev/null
        find {} -xdev -type f ! -name 'walt-*' ! -path '*/_walt_internal_/*' -exec md5sum {{}} + >/root/sums
        ",
        size.tree
    );
    let ran = server.walt_with_input(USER, &["image", "shell", IMAGE, "--save=crash"], &script);
    assert!(ran.ok().contains("New image crash saved."));
}

fn md5(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(out.status.success());
    out.stdout
}

/// What the node works with, put into its `/persist` from the server's side.
fn provide(dir: &Path, size: &Size) {
    fs::create_dir_all(dir.join("many")).unwrap();
    for (name, text) in [("crash.sh", include_str!("crash.sh")), ("crash.pl", include_str!("crash.pl"))] {
        fs::write(dir.join(name), text).unwrap();
    }
    for n in 0..NAMES {
        fs::write(dir.join(format!("many/entry-{n:05}-{}", "x".repeat(n as usize % 60))), "").unwrap();
    }
    let mut list = Command::new("sh");
    list.args(["-c", "ls -U many | LC_ALL=C sort | md5sum"]).current_dir(dir);
    fs::write(dir.join("many.md5"), md5(&mut list)).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut big = fs::File::create(dir.join("big")).unwrap();
    for number in 0..size.big >> 20 {
        use std::io::Write;
        big.write_all(&(number as u64).to_le_bytes()).unwrap();
        big.write_all(&block[8..]).unwrap();
    }
    let mut sum = Command::new("md5sum");
    sum.stdin(fs::File::open(dir.join("big")).unwrap());
    fs::write(dir.join("big.md5"), md5(&mut sum)).unwrap();
}

/// The only `/persist` of this server.
fn persist(server: &TestServer) -> PathBuf {
    let node = fs::read_dir(server.state_dir().join("persist")).unwrap().next().unwrap().unwrap().path();
    let owner = fs::read_dir(node).unwrap().next().unwrap().unwrap().path();
    owner.join("w")
}

#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    let size = Size::wanted();
    let mut moments = Random::seeded("crash test of a node's files");
    let start = Instant::now();
    let step = |what: &str| eprintln!("{:4} s  {what}", start.elapsed().as_secs());
    let mut server = TestServer::start_with_images(&[IMAGE]);
    image(&server, &size);
    step("image with databases");
    server.walt(USER, &["node", "create", "vn1", "--image", "crash"]).ok();
    wait(&server, "vn1");
    let boot_id = on(&server, "vn1", "cat /proc/sys/kernel/random/boot_id");
    step("booted");
    let dir = persist(&server);
    provide(&dir, &size);
    on(&server, "vn1", "sh /persist/w/crash.sh prepare");
    on(&server, "vn1", "systemd-run -q --unit=crash -p TasksMax=infinity sh /persist/w/crash.sh work");
    step("prepared");

    let lines = || fs::metadata(dir.join("append")).map_or(0, |m| m.len());
    let served = |what: &str| {
        let before = lines();
        until(what, SERVED_AGAIN, || (lines() > before).then_some(()));
    };
    served("the node's first work");
    let mut idle = 0;
    for kill in 1..=size.kills {
        // One of four comes while the client may still be sending again what the last one left unanswered.
        if moments.below(4) > 0 {
            served("the node to work on after the server was started again");
            moments.sleep(LIFE_MS.0);
        } else {
            idle += 1;
            moments.sleep(LIFE_MS.1);
        }
        server.kill();
        moments.sleep(GAP_MS);
        server.launch().unwrap_or_else(|e| panic!("start after death {kill}: {e:?}"));
        if kill % 20 == 0 {
            step(&format!("{kill} deaths, {} lines", lines() / 14));
        }
    }
    served("the node to work on after the last death");
    wait(&server, "vn1");
    // A node that works that hard may not answer ssh in time: it is asked again.
    let answer = |what: &str, command: &str| {
        until(what, WORK, || {
            let ran = server.walt(USER, &["node", "run", "vn1", command]);
            (ran.status == Some(0)).then_some(ran)
        })
    };
    answer("the node to be told to stop", "touch /run/crash/stop");
    answer("the node's work to end", "test -e /run/crash/ended");
    answer("ssh when the work is over", "true");
    let said = server.walt(USER, &["node", "run", "vn1", "sh /persist/w/crash.sh check"]);
    step(&format!("{} deaths, {idle} of them without waiting; on the node:\n{}", size.kills, said.out));
    assert!(said.status == Some(0) && said.out.contains("all is there"), "{said:?}");
    assert!(!said.out.contains("FAIL"), "{said:?}");
    assert_eq!(
        on(&server, "vn1", "cat /proc/sys/kernel/random/boot_id"),
        boot_id,
        "the node was not rebooted"
    );
    assert!(!server.log().contains("cannot write to the ring"), "{}", server.log());
}
