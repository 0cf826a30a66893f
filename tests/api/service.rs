//! The server as a service: what systemd and the journal are told.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use walt_testkit::{Options, TestServer, User, images, until};

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service manager. It always listens: its socket has room for a few messages only.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn listen(path: &Path) -> Self {
        let (socket, heard) = (UnixDatagram::bind(path).unwrap(), Arc::new(Mutex::new(Vec::new())));
        let lines: Arc<Mutex<Vec<String>>> = heard.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Until this process ends.
            while let Ok(n) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                lines.lock().unwrap().extend(text.lines().map(str::to_owned));
            }
        });
        Self { heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until the line was heard `count` times.
    fn wait(&self, line: &str, count: usize) {
        until(&format!("{line}, {count} times"), PATIENCE, || (self.count(line) >= count).then_some(()));
    }

    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|l| *l == line).count()
    }

    fn position(&self, line: &str) -> usize {
        let heard = self.heard();
        heard.iter().position(|l| l == line).unwrap_or_else(|| panic!("no {line}: {heard:?}"))
    }
}

/// Holds the threads that do the server's work, and no others: a program that is stuck, but not gone.
const HOLD: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
SEIZE, INTERRUPT, ALL = 0x4206, 0x4207, 0x40000000
pid, held = sys.argv[1], []
for tid in os.listdir(f"/proc/{pid}/task"):
    name = open(f"/proc/{pid}/task/{tid}/comm").read().strip()
    if tid == pid or name.startswith("tokio"):
        for request in (SEIZE, INTERRUPT):
            if libc.ptrace(request, int(tid), 0, 0) != 0:
                sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")
        os.waitpid(int(tid), ALL)
        held.append(name)
print(len(held), flush=True)
sys.stdin.read()
"#;

/// Threads of a server that are held until it is dropped.
struct Held(Child);

impl Held {
    fn threads_of(pid: u32) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", HOLD, &pid.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // The main thread, and at least one worker.
        let held = line.trim().parse::<u32>().unwrap_or_else(|_| panic!("no thread was held: {line:?}"));
        assert!(held >= 2, "{held} threads were held");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What the processes of a server's virtual machines have in their environment.
fn environments(server: &TestServer) -> Vec<String> {
    let nodes = fs::read_dir(server.state_dir().join("nodes")).into_iter().flatten().flatten();
    let identities = nodes.filter_map(|node| fs::read(node.path().join("vm.json")).ok());
    let parsed = identities.filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    parsed
        .filter_map(|identity| fs::read(format!("/proc/{}/environ", identity["pid"])).ok())
        .map(|environment| String::from_utf8_lossy(&environment).into_owned())
        .collect()
}

#[test]
fn systemd_is_told_and_a_stuck_server_is_silent() {
    let server = TestServer::prepare(Options::default());
    let path = server.dir().join("notify");
    let manager = Manager::listen(&path);
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "1000000")];
    server.launch_with(&variables).unwrap_or_else(|e| panic!("{e:?}"));
    manager.wait("WATCHDOG=1", 2);
    manager.wait("STATUS=serving 0 nodes", 1);
    let ready = manager.position("READY=1");
    assert!(manager.position("STATUS=starting: recovery of image shells") < ready, "{:?}", manager.heard());
    assert!(manager.position("EXTEND_TIMEOUT_USEC=60000000") < ready, "{:?}", manager.heard());
    assert!(manager.position("WATCHDOG=1") > ready, "{:?}", manager.heard());

    // A node is counted, and its machine cannot speak for the server.
    let tiny = images::tiny(server.dir());
    server.import(images::TINY, &tiny);
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).ok();
    manager.wait("STATUS=serving 1 node", 1);
    let of_nodes =
        until("the node's machine", PATIENCE, || Some(environments(&server)).filter(|e| !e.is_empty()));
    assert!(of_nodes.iter().all(|e| !e.contains("NOTIFY_SOCKET") && !e.contains("WATCHDOG")), "{of_nodes:?}");

    let held = Held::threads_of(server.pid());
    // What was on its way.
    thread::sleep(Duration::from_millis(700));
    let before = manager.count("WATCHDOG=1");
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(manager.count("WATCHDOG=1"), before, "a stuck server gives no sign of life");
    drop(held);
    manager.wait("WATCHDOG=1", before + 2);
    let log = server.log();
    assert!(log.contains("the server is stuck: the main task does not answer since "), "{log}");
    assert!(log.contains("the server was stuck for "), "{log}");

    Command::new("kill").arg(server.pid().to_string()).status().unwrap();
    server.wait_for_end();
    manager.wait("STOPPING=1", 1);
}

/// The fields of a message to the journal (systemd.io, "Native Journal Protocol"): `NAME=value`, or the name, the length of
/// the value in eight bytes, and the value.
fn fields(mut message: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = BTreeMap::new();
    while let Some(end) = message.iter().position(|b| *b == b'\n') {
        let (line, rest) = (&message[..end], &message[end + 1..]);
        message = match line.iter().position(|b| *b == b'=') {
            Some(at) => {
                fields.insert(text(&line[..at]), text(&line[at + 1..]));
                rest
            }
            None => {
                let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                fields.insert(text(line), text(&rest[8..8 + length]));
                &rest[8 + length + 1..]
            }
        };
    }
    fields
}

/// In a mount namespace of its own, where the socket of the journal is this test's.
#[test]
fn the_journal_gets_fields() {
    let dir = PathBuf::from(format!("/var/tmp/walt-test-journal-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let journal = UnixDatagram::bind(dir.join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && exec \"$@\"",
        dir.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let server = TestServer::prepare(Options { wrapper, ..Options::default() });
    let log = server.dir().join("server.log");
    fs::write(&log, "").unwrap();
    let stat = fs::metadata(&log).unwrap();
    let stream = format!("{}:{}", stat.dev(), stat.ino());
    server.launch_with(&[("JOURNAL_STREAM", &stream)]).unwrap_or_else(|e| panic!("{e:?}"));
    let mut buffer = [0; 1 << 16];
    let serving = loop {
        let n = journal.recv(&mut buffer).expect("the journal hears that the server serves");
        let message = fields(&buffer[..n]);
        if message.get("MESSAGE").is_some_and(|m| m == "serving") {
            break message;
        }
    };
    for (name, value) in
        [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "walt-server"), ("WALT_BRIDGE", &server.bridge())]
    {
        assert_eq!(serving.get(name).map(String::as_str), Some(value), "{name}: {serving:?}");
    }
    assert_eq!(server.log(), "", "the stream gets nothing twice");
    drop(server);
    fs::remove_dir_all(&dir).unwrap();

    // Another stream: lines of text, as without systemd.
    let server = TestServer::prepare(Options::default());
    server.launch_with(&[("JOURNAL_STREAM", "1:1")]).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(server.log().contains("serving"), "{}", server.log());
}
