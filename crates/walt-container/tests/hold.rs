//! A real holder, a real runtime, a small root filesystem of busybox: needs root, `runc` and
//! `busybox-static`. The program is its own holder: `hold DIR` runs one. Every test runs twice: with a user
//! namespace and without.
//!
//! Arguments: parts of names of the tests to run.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use rustix::process::{Pid, Signal};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use walt_container::hold::client::{Incoming, Reader, Writer};
use walt_container::hold::protocol::{Event, Request};
use walt_container::session::{HoldSpec, Mode, Phase, SPEC_VERSION, SessionDir, Tty, Users};
use walt_container::{
    Error,
    hold::{self, Client},
};

/// No step of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(60);
/// Programs of busybox that the tests use.
const APPLETS: [&str; 14] =
    ["sh", "cat", "echo", "stty", "sleep", "true", "ps", "id", "hostname", "rm", "seq", "kill", "ls", "env"];

type Test = fn() -> Pin<Box<dyn Future<Output = ()>>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, dir] = arguments.as_slice()
        && verb == "hold"
    {
        std::process::exit(hold::run(Path::new(dir)));
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        panic!("these tests need root and the package busybox-static");
    }
    let tests: [(&str, Test); 10] = [
        ("script", || Box::pin(script())),
        ("timing", || Box::pin(timing())),
        ("terminal", || Box::pin(terminal())),
        ("live_input", || Box::pin(live_input())),
        ("detach_and_attach", || Box::pin(detach_and_attach())),
        ("holder_killed", || Box::pin(holder_killed())),
        ("restart_after_stop", || Box::pin(restart_after_stop())),
        ("start_errors", || Box::pin(start_errors())),
        ("stubborn_shell", || Box::pin(stubborn_shell())),
        ("much_output", || Box::pin(much_output())),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wanted = |name: &str| {
        let parts: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
        parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
    };
    for ((name, test), users) in
        tests.into_iter().filter(|(name, _)| wanted(name)).flat_map(|t| [(t, false), (t, true)])
    {
        USERS.store(users, Ordering::Relaxed);
        let start = Instant::now();
        runtime
            .block_on(async { tokio::time::timeout(2 * LIMIT, test()).await })
            .expect("a test took too long");
        let with = if users { ", user namespace" } else { "" };
        println!("test {name}{with} ... ok ({} ms)", start.elapsed().as_millis());
    }
}

/// Whether sessions have a user namespace.
static USERS: AtomicBool = AtomicBool::new(false);
/// A range of numbers that this machine uses for nothing.
const FIRST: u32 = 0x7901_0000;

/// A session on a temporary directory; dropping it checks that nothing is left.
struct Session {
    dir: tempfile::TempDir,
    spec: HoldSpec,
}

impl Session {
    fn new(tty: Option<(u16, u16)>, script: Option<&str>) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let layer = dir.path().join("image");
        for d in ["bin", "root", "etc", "proc", "sys", "dev", "run", "tmp"] {
            std::fs::create_dir_all(layer.join(d)).unwrap();
        }
        std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        std::fs::write(layer.join("etc/old"), "old").unwrap();
        let unique = dir.path().file_name().unwrap().to_str().unwrap().replace('.', "").to_lowercase();
        let stdin = script.map(|text| {
            let path = dir.path().join("script");
            std::fs::write(&path, text).unwrap();
            path
        });
        std::fs::create_dir(dir.path().join("session")).unwrap();
        let spec = HoldSpec {
            version: SPEC_VERSION,
            container_id: format!("walt-{unique}"),
            lowers: vec![layer],
            runtime: "runc".into(),
            runtime_root: dir.path().join("runtime"),
            cgroup: format!("/walt-test-{unique}/shell"),
            mode: Mode::Simple,
            tty: tty.map(|(rows, cols)| Tty { rows, cols, term: "xterm".into() }),
            command: None,
            stdin,
            env: vec!["LANG=C".into()],
            network: None,
            memory_max: None,
            users: USERS
                .load(Ordering::Relaxed)
                .then(|| Users { first: FIRST, root: dir.path().join("tree") }),
            emulated: false,
        };
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        std::fs::set_permissions(dir.path().join("session"), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { dir, spec }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("session")
    }

    async fn start(&self) {
        let exe = std::env::current_exe().unwrap();
        if let Err(e) = hold::start(&self.spec, &self.path(), &exe).await {
            let log = std::fs::read_to_string(self.path().join("hold.log")).unwrap_or_default();
            panic!("{e}\nlog of the holder:\n{log}");
        }
    }

    async fn connect(&self) -> Client {
        Client::connect(&self.path()).await.unwrap()
    }

    async fn attach(&self) -> (Reader, Writer) {
        let (reader, mut writer) = self.connect().await.split();
        writer.request(&Request::Attach { size: None }).await.unwrap();
        (reader, writer)
    }

    fn upper(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path().join("layer/fs").join(name)).ok()
    }

    fn state(&self) -> walt_container::session::State {
        SessionDir(self.path()).state().unwrap().unwrap()
    }

    /// Nothing is left but the session's directory. Mounts of other namespaces go with their processes.
    async fn assert_clean(&self) {
        let holder = self.state().holder;
        // Its end can be seen before its parent, the machine's init, has taken note of it.
        if let Ok(fd) = holder.open() {
            let fd = walt_sys::async_fd(fd).unwrap();
            let _ = tokio::time::timeout(LIMIT, fd.readable()).await.expect("the end of the holder").unwrap();
        }
        let group = walt_sys::process::Cgroup::new(&self.spec.cgroup);
        assert!(group.processes().unwrap().is_empty());
        let name = self.spec.cgroup.trim_start_matches('/');
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
            assert!(!hierarchy.unwrap().path().join(name).exists(), "a control group is left");
        }
        group.remove_empty_parents().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "a mount is left");
        assert!(!self.spec.runtime_root.join(&self.spec.container_id).exists(), "the runtime knows it still");
        assert!(!self.path().join("hold.sock").exists(), "the socket is left");
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What an attached client saw until the shell's end.
#[derive(Debug, Default)]
struct Seen {
    out: String,
    err: String,
    status: Option<i32>,
}

async fn read_until(reader: &mut Reader, seen: &mut Seen, done: impl Fn(&Seen) -> bool) {
    let work = async {
        while !done(seen) {
            match reader.next().await.unwrap() {
                Some(Incoming::Stdout(b)) => seen.out.push_str(&String::from_utf8_lossy(&b)),
                Some(Incoming::Stderr(b)) => seen.err.push_str(&String::from_utf8_lossy(&b)),
                Some(Incoming::Event(Event::Exited { status })) => seen.status = Some(status),
                Some(Incoming::Event(Event::Attached { .. } | Event::Started { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    if tokio::time::timeout(LIMIT, work).await.is_err() {
        panic!("what was waited for did not come; seen: {seen:?}");
    }
}

async fn to_the_end(reader: &mut Reader) -> Seen {
    let mut seen = Seen::default();
    read_until(reader, &mut seen, |s| s.status.is_some()).await;
    seen
}

async fn script() {
    let s = Session::new(
        None,
        Some(
            "echo out >/dev/stdout; echo err >&2; hostname; pwd; echo $HOME; echo new >/etc/new; rm /etc/old; exit 7\n",
        ),
    );
    s.start().await;
    let (mut reader, _writer) = s.attach().await;
    let seen = to_the_end(&mut reader).await;
    assert_eq!((seen.out.as_str(), seen.err.as_str()), ("out\nimage-shell\n/root\n/root\n", "err\n"));
    assert_eq!(seen.status, Some(7));
    assert_eq!(s.connect().await.seal().await.unwrap(), Vec::<String>::new());
    assert_eq!(s.upper("etc/new").as_deref(), Some("new\n"));
    let whiteout = rustix::fs::lstat(s.path().join("layer/fs/etc/old")).unwrap();
    assert_eq!(whiteout.st_rdev, 0, "the deletion is a device 0:0");
    assert_eq!((s.state().phase, s.state().shell_status), (Phase::Sealed, Some(7)));
    s.assert_clean().await;
}

/// Only shows the times: what else the machine does decides about them.
async fn timing() {
    let mut times = Vec::new();
    for _ in 0..7 {
        let s = Session::new(None, Some("true\n"));
        let start = Instant::now();
        s.start().await;
        let started = start.elapsed();
        let (mut reader, _writer) = s.attach().await;
        to_the_end(&mut reader).await;
        let ended = start.elapsed();
        s.connect().await.seal().await.unwrap();
        times.push((start.elapsed(), started, ended));
        s.assert_clean().await;
    }
    times.sort();
    let (sealed, started, ended) = times[times.len() / 2];
    println!("a script that is 'true': started {started:?}, ended {ended:?}, sealed {sealed:?} (median)");
}

async fn terminal() {
    let s = Session::new(Some((31, 97)), None);
    s.start().await;
    let (mut reader, mut writer) = s.attach().await;
    let mut seen = Seen::default();
    writer.input(b"stty size; echo $TERM; echo pid $$\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.out.contains("pid 1\r\n")).await;
    assert!(seen.out.contains("31 97\r\n") && seen.out.contains("xterm\r\n"), "{seen:?}");
    writer.request(&Request::Resize { rows: 40, cols: 132 }).await.unwrap();
    writer.input(b"stty size\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.out.contains("40 132\r\n")).await;
    // Control-C reaches the program in front, not the shell; 130 is 128 and SIGINT.
    writer.input(b"echo front; sleep 60\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.out.contains("\nfront\r\n")).await;
    until("the program in front", || ps_has("sleep\u{0}60", &s)).await;
    writer.input(b"\x03echo status $?\nexit 3\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.status.is_some()).await;
    assert!(seen.out.contains("status 130"), "{seen:?}");
    assert_eq!(seen.status, Some(3));
    s.connect().await.discard().await.unwrap();
    assert_eq!(s.state().phase, Phase::Discarded);
    s.assert_clean().await;
}

fn locked(s: &Session) -> bool {
    let file = std::fs::File::open(s.path().join("lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Whether a process with these words runs in the session.
fn ps_has(words: &str, s: &Session) -> bool {
    let group = walt_sys::process::Cgroup::new(&s.spec.cgroup);
    group.processes().unwrap().iter().any(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(words))
    })
}

async fn live_input() {
    let s = Session::new(None, None);
    s.start().await;
    let (mut reader, mut writer) = s.attach().await;
    writer.input(b"echo first\n").await.unwrap();
    let mut seen = Seen::default();
    read_until(&mut reader, &mut seen, |s| s.out == "first\n").await;
    writer.request(&Request::Eof).await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.status == Some(0)).await;
    s.connect().await.discard().await.unwrap();
    s.assert_clean().await;
}

async fn detach_and_attach() {
    let s = Session::new(Some((24, 80)), None);
    s.start().await;
    let (mut reader, mut writer) = s.attach().await;
    let mut seen = Seen::default();
    writer.input(b"X=42; cd /etc; echo mark-$X\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.out.contains("mark-42")).await;
    drop((reader, writer));
    assert_eq!(s.connect().await.status().await.unwrap().phase, Phase::Running);
    // What was shown is shown again, and the shell is the same one.
    let (mut reader, mut writer) = s.attach().await;
    let mut seen = Seen::default();
    read_until(&mut reader, &mut seen, |s| s.out.contains("mark-42")).await;
    writer.input(b"echo again-$X-$PWD\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.out.contains("again-42-/etc")).await;
    // The newest client wins.
    let (mut second, mut second_writer) = s.attach().await;
    loop {
        match reader.next().await.unwrap() {
            Some(Incoming::Event(Event::Replaced)) => break,
            Some(_) => {}
            None => panic!("no word about being replaced"),
        }
    }
    second_writer.input(b"exit 5\n").await.unwrap();
    assert_eq!(to_the_end(&mut second).await.status, Some(5));
    s.connect().await.discard().await.unwrap();
    s.assert_clean().await;
}

async fn holder_killed() {
    let s = Session::new(Some((24, 80)), None);
    s.start().await;
    let (mut reader, mut writer) = s.attach().await;
    let mut seen = Seen::default();
    writer.input(b"echo kept >/root/kept; sleep 1000 & echo written\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.out.contains("\nwritten\r\n") || s.out.contains("] written"))
        .await;
    let first = s.state().holder;
    rustix::process::kill_process(Pid::from_raw(first.pid).unwrap(), Signal::KILL).unwrap();
    until("the end of the holder's lock", || !locked(&s)).await;
    assert!(matches!(Client::connect(&s.path()).await, Err(Error::Io { .. })));
    // What was under way may still arrive; then comes the end.
    while let Ok(Some(_)) = reader.next().await {}

    s.start().await;
    assert_ne!(s.state().holder, first);
    let exe = std::env::current_exe().unwrap();
    let twice = hold::start(&s.spec, &s.path(), &exe).await.unwrap_err().to_string();
    assert!(twice.contains("already has a holder"), "{twice}");
    let (mut reader, mut writer) = s.attach().await;
    let mut seen = Seen::default();
    writer.input(b"cat /root/kept; ps; exit\n").await.unwrap();
    read_until(&mut reader, &mut seen, |s| s.status.is_some()).await;
    assert!(seen.out.contains("\nkept\r\n") && !seen.out.contains("sleep"), "{seen:?}");
    s.connect().await.seal().await.unwrap();
    assert_eq!(s.upper("root/kept").as_deref(), Some("kept\n"));
    s.assert_clean().await;
}

async fn restart_after_stop() {
    let mut s = Session::new(Some((24, 80)), None);
    s.start().await;
    let holder = s.state().holder;
    let mut control = s.connect().await;
    assert!(matches!(control.restart().await, Err(Error::Refused(_))));
    assert_eq!(control.stop().await.unwrap(), Vec::<String>::new());
    assert_eq!(control.status().await.unwrap().phase, Phase::Stopped);
    // A file held open for writing, here by the holder's own root as seen from outside, refuses the seal.
    let root = s.spec.users.as_ref().map_or(s.path().join("root"), |users| users.root.clone());
    let mut held = std::fs::OpenOptions::new();
    let held =
        held.append(true).open(format!("/proc/{}/root{}/etc/old", holder.pid, root.display())).unwrap();
    let busy = s.connect().await.seal().await.unwrap_err().to_string();
    assert!(busy.contains("still open for writing by") && busy.contains("hold"), "{busy}");
    drop(held);
    s.spec.tty = None;
    s.spec.stdin = Some(s.dir.path().join("script"));
    std::fs::write(s.dir.path().join("script"), "echo second; cat /etc/old; exit 4\n").unwrap();
    SessionDir(s.path()).write_spec(&s.spec).unwrap();
    control.restart().await.unwrap();
    let (mut reader, _writer) = s.attach().await;
    let seen = to_the_end(&mut reader).await;
    assert_eq!((seen.out.as_str(), seen.status), ("second\nold", Some(4)));
    s.connect().await.seal().await.unwrap();
    assert_eq!(s.upper("etc/old").as_deref(), Some("old"));
    s.assert_clean().await;
}

async fn start_errors() {
    let exe = std::env::current_exe().unwrap();
    let mut s = Session::new(None, Some(""));
    s.spec.runtime = "/no/such/runc".into();
    let error = hold::start(&s.spec, &s.path(), &exe).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/runc") && error.contains("install the package 'runc'"), "{error}");
    s.assert_clean().await;
    s.spec.runtime = "runc".into();
    s.spec.command = Some(vec!["/bin/missing".into()]);
    let error = hold::start(&s.spec, &s.path(), &exe).await.unwrap_err().to_string();
    assert!(error.contains("cannot start the shell") && error.contains("/bin/missing"), "{error}");
    s.assert_clean().await;
    s.spec.lowers.push(s.dir.path().join("missing"));
    let error = hold::start(&s.spec, &s.path(), &exe).await.unwrap_err().to_string();
    assert!(error.contains("cannot mount the overlay"), "{error}");
    s.assert_clean().await;
}

async fn stubborn_shell() {
    let s = Session::new(None, Some("trap '' HUP TERM INT; echo ready; while :; do sleep 1000; done\n"));
    s.start().await;
    let (mut reader, _writer) = s.attach().await;
    let mut seen = Seen::default();
    read_until(&mut reader, &mut seen, |s| s.out == "ready\n").await;
    let start = Instant::now();
    let notes = s.connect().await.seal().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(s.state().shell_status, Some(137));
    s.assert_clean().await;
}

async fn much_output() {
    // Several times what is kept: nothing may be lost while a client reads, however late it came.
    let s = Session::new(None, Some("seq 1 300000\n"));
    s.start().await;
    let (mut reader, _writer) = s.attach().await;
    let seen = to_the_end(&mut reader).await;
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(seen.out == expected, "{} bytes instead of {}", seen.out.len(), expected.len());
    s.connect().await.discard().await.unwrap();
    s.assert_clean().await;
}
