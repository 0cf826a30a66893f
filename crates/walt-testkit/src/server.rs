//! A real server on temporary paths.

use crate::{Api, Terminal, images, programs, slot::Slot, target, until};
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use std::time::{Duration, Instant};

/// How many servers may run at once.
pub const SLOTS: u8 = 32;
/// How long a server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one question whether it is there may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a server may take to report that it cannot start, and to end.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long a run of the client may take; waiting for a boot is the longest.
const RUN_LIMIT: Duration = Duration::from_secs(450);
/// Lines of the server's log that are shown when a test fails.
const LOG_LINES: usize = 40;

/// Numbers the files that are standard inputs.
static UNIQUE: AtomicU32 = AtomicU32::new(0);

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// root.
    Root,
    /// root for somebody, by `WALT_USERNAME`.
    RootFor(&'static str),
    /// An account of this machine.
    Account(&'static str),
}

/// What is unusual about a server.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Its `PATH`; the usual one if absent.
    pub path: Option<String>,
    /// Its state directory; one of its own if absent.
    pub state_dir: Option<PathBuf>,
    /// More lines for its configuration.
    pub config: String,
    /// Its cable: the interface that becomes a port of its bridge, and more keys of `walt-net` after it.
    pub raw_device: Option<String>,
    /// Further networks, as lines of the configuration.
    pub networks: String,
    /// Bits of the prefix of its network; 24 if absent. Another one needs a network namespace of its own.
    pub prefix: Option<u8>,
    /// A program that runs it, with arguments, such as `unshare -n`.
    pub wrapper: Vec<String>,
}

/// A server that did not start.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: Option<i32>,
    /// All that it said.
    pub log: String,
}

/// A server; dropping it takes down all that it set up.
pub struct TestServer {
    slot: Slot,
    options: Options,
    child: Mutex<Option<Child>>,
    /// Whether it has ever answered; one that was refused, as tests of bad configurations want it, set up nothing.
    answered: AtomicBool,
}

impl TestServer {
    /// Starts one, without images.
    ///
    /// # Panics
    /// If it does not start, with its log.
    pub fn start() -> Self {
        Self::start_with(Options::default())
            .unwrap_or_else(|e| panic!("walt-server ended ({:?}): {}", e.status, e.log))
    }

    /// Starts one with an image of a few files as default image: nodes can be created, and do not boot.
    pub fn start_tiny() -> Self {
        let server = Self::start();
        let dir = images::tiny(&server.slot.dir);
        server.import(images::TINY, &dir);
        server
    }

    /// Starts one with default images.
    pub fn start_with_images(names: &[&str]) -> Self {
        let built: Vec<PathBuf> = names.iter().map(|name| images::built(name)).collect();
        let server = Self::start();
        names.iter().zip(built).for_each(|(name, dir)| server.import(name, &dir));
        server
    }

    /// Starts an unusual one.
    ///
    /// # Errors
    /// It ended instead.
    pub fn start_with(options: Options) -> Result<Self, Ended> {
        let mut server = Self::prepare(options);
        server.launch()?;
        Ok(server)
    }

    /// Everything but the process.
    pub fn prepare(options: Options) -> Self {
        let server = Self {
            slot: Slot::take(SLOTS),
            options,
            child: Mutex::new(None),
            answered: AtomicBool::new(false),
        };
        server.sweep();
        fs::create_dir_all(server.dir().join("bin")).expect("the slot can be written");
        fs::set_permissions(server.dir(), fs::Permissions::from_mode(0o755)).expect("the slot is ours");
        // The test's other accounts may not be able to reach the target directory.
        fs::copy(programs().join("walt"), server.dir().join("bin/walt")).expect("walt can be copied");
        fs::write(server.config(), server.configuration()).expect("the slot can be written");
        server
    }

    /// Takes down what a killed test has left in this slot.
    fn sweep(&self) {
        if self.config().exists() {
            let _ = self.run_down();
        }
        // Disks that a test had mounted.
        for mount in crate::machine::mounts().iter().filter(|m| Path::new(m).starts_with(self.dir())) {
            let _ = Command::new("umount").arg(mount).output();
        }
        if self.dir().exists() {
            fs::remove_dir_all(self.dir())
                .unwrap_or_else(|e| panic!("cannot empty {}: {e}", self.dir().display()));
        }
    }

    fn configuration(&self) -> String {
        let n = self.slot.number;
        format!(
            "network:\n  walt-net: {{ip: {}/{}, bridge: {}{}}}\n{}state-dir: {}\nrun-dir: {}\n\
             containers: {{network: 10.211.{n}.0/24}}\nvirtual-nodes: {{acceleration: tcg}}\n{}",
            self.address(),
            self.options.prefix.unwrap_or(24),
            self.bridge(),
            self.options.raw_device.as_ref().map_or_else(String::new, |raw| format!(", raw-device: {raw}")),
            self.options.networks,
            self.state_dir().display(),
            self.dir().join("run").display(),
            self.options.config
        )
    }

    /// Its directory: configuration, log, `state/`, `run/`.
    pub fn dir(&self) -> &Path {
        &self.slot.dir
    }
    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.options.state_dir.clone().unwrap_or_else(|| self.dir().join("state"))
    }
    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir().join("server.conf")
    }
    /// Its bridge.
    pub fn bridge(&self) -> String {
        format!("wtest{}", self.slot.number)
    }
    /// Its address on the bridge; the network has a prefix of 24 bits.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 210, self.slot.number, 1)
    }
    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("run/walt.sock")
    }
    /// All that it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("server.log")).unwrap_or_default()
    }

    /// `walt-server` with this server's configuration.
    pub fn server_command(&self, arguments: &[&str]) -> Command {
        let program = programs().join("walt-server");
        let mut words: Vec<&OsStr> = self.options.wrapper.iter().map(OsStr::new).collect();
        words.push(program.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).arg("--config").arg(self.config());
        if let Some(path) = &self.options.path {
            command.env("PATH", path);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process, again after [`TestServer::kill`].
    ///
    /// # Errors
    /// It ended instead.
    pub fn launch(&mut self) -> Result<(), Ended> {
        self.launch_with(&[])
    }

    /// Starts the process with variables in its environment.
    ///
    /// # Errors
    /// It ended instead.
    pub fn launch_with(&self, environment: &[(&str, &str)]) -> Result<(), Ended> {
        let log = File::options().create(true).append(true).open(self.dir().join("server.log"));
        let log = log.expect("the slot can be written");
        let mut command = self.server_command(&["run"]);
        command.stdout(log.try_clone().expect("a descriptor can be copied")).stderr(log);
        command.process_group(0).envs(environment.iter().copied());
        let mut child = command.spawn().expect("walt-server can be started");
        let socket = self.socket();
        let end = until("the server to answer or to end", START_LIMIT, || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Some(Some(status));
            }
            answers(&socket).then_some(None)
        });
        match end {
            Some(status) => Err(Ended { status: status.code(), log: self.log() }),
            None => {
                *self.child() = Some(child);
                self.answered.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.crash();
    }

    /// The number of its process.
    ///
    /// # Panics
    /// It does not run.
    pub fn pid(&self) -> u32 {
        self.child().as_ref().map(Child::id).expect("it runs")
    }

    /// `kill -9`, while other threads use this server.
    pub fn crash(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Command lines of the processes that it has started and that run, with spaces between their words.
    pub fn children(&self) -> Vec<String> {
        let Some(own) = self.child().as_ref().map(Child::id) else { return Vec::new() };
        let mut lines = Vec::new();
        for entry in fs::read_dir("/proc").expect("there is /proc").flatten() {
            // Processes end at any moment.
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let stat = read("stat");
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            let (state, parent) = (fields.next(), fields.next());
            if parent == Some(own.to_string().as_str()) && state != Some("Z") {
                lines.push(read("cmdline").replace('\0', " ").trim().to_owned());
            }
        }
        lines
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_for_end(&self) {
        if let Some(mut child) = self.child().take() {
            until("the server to end", END_LIMIT, || child.try_wait().expect("a child can be waited for"));
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `walt-server down`.
    ///
    /// # Panics
    /// If it fails, with what it says.
    pub fn down(&mut self) -> String {
        let output = self.run_down();
        assert!(output.status.success(), "down failed: {}", text(&output.stderr));
        self.wait_for_end();
        text(&output.stdout)
    }

    fn run_down(&self) -> Output {
        self.server_command(&["down"]).output().expect("walt-server can be started")
    }

    /// Imports what a recipe made, as root.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn import(&self, name: &str, dir: &Path) {
        let action = json!({"action": "import-default-image", "name": name, "dir": dir});
        let reply = self.api(None).post("/api/v1/actions/admin", &action, None);
        let ok = reply.status == 200 && reply.events().last().is_some_and(|e| e["ok"] == true);
        assert!(ok, "import of {name}: {reply:?}");
    }

    /// Raw HTTP, as root or as root for somebody.
    pub fn api(&self, user: Option<&str>) -> Api {
        Api { socket: self.socket(), user: user.map(str::to_owned) }
    }

    /// The client's command line.
    pub fn walt_command<S: AsRef<OsStr>>(&self, user: User, arguments: &[S]) -> Command {
        let mut command = self.as_user(Command::new(self.dir().join("bin/walt")), user);
        command.args(arguments);
        command
    }

    /// Prepares a program to run as a user, with the environment in which the client finds this server.
    pub fn as_user(&self, mut command: Command, user: User) -> Command {
        command.env("WALT_SERVER", format!("unix:{}", self.socket().display()));
        command.env_remove("WALT_USERNAME").current_dir("/");
        match user {
            User::Root => {}
            User::RootFor(name) => {
                command.env("WALT_USERNAME", name);
            }
            User::Account(name) => {
                let (uid, gid) = account(name);
                command.uid(uid).gid(gid).env("HOME", "/nonexistent").env("USER", name);
            }
        }
        command
    }

    /// Runs the client with an empty standard input.
    pub fn walt(&self, user: User, arguments: &[&str]) -> Ran {
        self.walt_with_input(user, arguments, "")
    }

    /// Runs the client with a standard input.
    pub fn walt_with_input(&self, user: User, arguments: &[&str], input: &str) -> Ran {
        let run = self.dir().join(format!("run-{}", UNIQUE.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&run).expect("the slot can be written");
        fs::write(run.join("in"), input).expect("the slot can be written");
        let create = |name| File::create(run.join(name)).expect("the slot can be written");
        let mut command = self.walt_command(user, arguments);
        command.stdin(File::open(run.join("in")).expect("it was just written"));
        let mut child =
            command.stdout(create("out")).stderr(create("err")).spawn().expect("walt can be started");
        let start = Instant::now();
        let status = loop {
            match child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if start.elapsed() > RUN_LIMIT => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let said = ["out", "err"].map(|f| fs::read_to_string(run.join(f)).unwrap_or_default());
                    panic!("waited {} s for `walt {}`: {said:?}", RUN_LIMIT.as_secs(), arguments.join(" "));
                }
                None => std::thread::sleep(crate::POLL),
            }
        };
        let read = |name| text(&fs::read(run.join(name)).expect("it was just written"));
        let ran =
            Ran { command: arguments.join(" "), status: status.code(), out: read("out"), err: read("err") };
        fs::remove_dir_all(&run).expect("the slot can be written");
        ran
    }

    /// Runs the client on a terminal.
    pub fn terminal(&self, user: User, arguments: &[&str]) -> Terminal {
        Terminal::spawn(self.walt_command(user, arguments))
    }

    /// Keeps what helps to understand a failure.
    fn keep_evidence(&self) {
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        eprintln!("--- last lines of the server's log");
        tail.iter().rev().for_each(|line| eprintln!("{line}"));
        // By the test's name: the next one that fails has the same slot.
        let test = std::thread::current().name().unwrap_or("unnamed").replace("::", "-");
        let keep = target().join("walt-test-failures").join(format!("{test}-{}", self.slot.number));
        let _ = fs::remove_dir_all(&keep);
        if fs::create_dir_all(&keep).is_err() {
            return;
        }
        let _ = fs::write(keep.join("server.log"), &log);
        for node in fs::read_dir(self.state_dir().join("nodes")).into_iter().flatten().flatten() {
            for file in fs::read_dir(node.path()).into_iter().flatten().flatten() {
                let name = format!("{}-{}", node.file_name().display(), file.file_name().display());
                if !file.file_type().is_ok_and(|t| t.is_file()) {
                    continue;
                }
                if let Ok(console) = fs::read(file.path())
                    && name.ends_with("console.log")
                {
                    // Where only the output of the tests is kept, this is all there is to know a guest's end from.
                    eprintln!("--- last lines of {name}");
                    let console = String::from_utf8_lossy(&console);
                    let lines: Vec<&str> = console.lines().rev().take(LOG_LINES).collect();
                    lines.iter().rev().for_each(|line| eprintln!("{}", line.escape_debug()));
                }
                let _ = fs::copy(file.path(), keep.join(name));
            }
        }
        eprintln!("--- logs and consoles are in {}", keep.display());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_evidence();
        }
        let output = self.run_down();
        if !output.status.success() {
            eprintln!("walt-server down failed: {}", text(&output.stderr));
        }
        self.kill();
        let _ = fs::remove_dir_all(self.dir());
        // What stays, such as virtual machines, would take the time of all tests that follow.
        assert!(
            output.status.success() || !self.answered.load(Ordering::Relaxed) || std::thread::panicking(),
            "walt-server down failed: {}",
            text(&output.stderr)
        );
    }
}

/// Whether a server answers there. That it can be connected to is not enough: a program that a killed server
/// was about to start has its socket for a moment.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<usize> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"GET /api/v1/info HTTP/1.1\r\nHost: walt\r\nConnection: close\r\n\r\n")?;
        stream.read(&mut [0; 64])
    };
    ask().is_ok_and(|n| n > 0)
}

/// What a run of the client gave.
#[derive(Debug)]
pub struct Ran {
    /// Its arguments.
    pub command: String,
    /// Its exit status.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output of a run that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "walt {}: {}{}", self.command, self.out, self.err);
        self.out
    }

    /// A run that must have failed with this status and said this on standard error, without a result.
    #[track_caller]
    pub fn fails(self, status: i32, says: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(self.err.contains(says), "{says:?} is not said by {self:?}");
        assert!(self.out.is_empty(), "a failure has no result: {self:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Numbers of an account, from passwd(5).
fn account(name: &str) -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").expect("there is /etc/passwd");
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name));
    let fields: Vec<&str> = line.unwrap_or_else(|| panic!("no account {name}")).split(':').collect();
    (fields[2].parse().expect("a number"), fields[3].parse().expect("a number"))
}
