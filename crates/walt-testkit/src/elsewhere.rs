//! Another host, from which a user reaches a server by ssh, as users do: a real ssh client and a real ssh server.
//!
//! ```text
//! laptop (network namespace)                    gate (network namespace of the server's machine)
//!   walt ── ssh ───────── cable ─────────────▶ dropbear ─▶ walt proxy ─▶ walt.sock
//!   its own /root: keys, ~/.walt/config          its own /etc/passwd and /usr/bin: see LOGIN
//! ```
//! The ssh server is dropbear, since its package starts no service on the machine of whoever runs the tests.

use crate::{Netns, TestServer, until};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The account that logs in: one that all machines have, with a shell and a home directory in the gate only.
pub const LOGIN: &str = "games";
/// The gate.
pub const GATE: &str = "10.209.0.1";
/// How long dropbear may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Such a host. Dropping it removes it.
pub struct Elsewhere {
    laptop: Netns,
    _gate: Netns,
    sshd: Child,
    dir: PathBuf,
    socket: PathBuf,
}

/// Whether the programs that it needs are there; prints what is missing.
pub fn available() -> bool {
    let missing: Vec<&str> = ["dropbear", "dropbearkey", "ssh", "ssh-keygen"]
        .into_iter()
        .filter(|program| {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            !found.is_ok_and(|output| output.status.success())
        })
        .collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} not installed (Debian: dropbear-bin, openssh-client)", missing.join(", "));
    }
    missing.is_empty()
}

fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Elsewhere {
    /// A host with a cable to the machine of a server, and the keys of [`LOGIN`] there.
    ///
    /// # Panics
    /// If it cannot be made (root is needed).
    pub fn new(server: &TestServer) -> Self {
        let dir = server.dir().join("elsewhere");
        let (home, login, bin) = (dir.join("root"), dir.join("login"), dir.join("bin"));
        for path in [&home.join(".ssh"), &login.join(".ssh"), &bin] {
            fs::create_dir_all(path).expect("the slot can be written");
        }
        let (laptop, gate) = (Netns::new(), Netns::new());
        laptop.cable(&gate, "eth0", "eth0");
        for (netns, address) in [(&laptop, "10.209.0.2/24"), (&gate, "10.209.0.1/24")] {
            netns.run(&["ip", "link", "set", "lo", "up"]);
            netns.run(&["ip", "address", "add", address, "dev", "eth0"]);
        }
        // Keys: of the user, and of the host, which the user knows.
        let key = home.join(".ssh/id_ed25519");
        must(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        fs::copy(key.with_extension("pub"), login.join(".ssh/authorized_keys"))
            .expect("the slot can be written");
        let host_key = dir.join("host-key");
        must(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&host_key));
        let shown = Command::new("dropbearkey")
            .arg("-y")
            .arg("-f")
            .arg(&host_key)
            .output()
            .expect("dropbearkey runs");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let public = shown.lines().find(|line| line.starts_with("ssh-ed25519 ")).expect("a public key");
        fs::write(home.join(".ssh/known_hosts"), format!("{GATE} {public}\n"))
            .expect("the slot can be written");
        // The account, with a shell.
        let passwd = fs::read_to_string("/etc/passwd").expect("there is /etc/passwd");
        let mut ids = (0, 0);
        let lines = passwd.lines().map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            if fields[0] != LOGIN {
                return format!("{line}\n");
            }
            ids = (fields[2].parse().expect("a number"), fields[3].parse().expect("a number"));
            format!("{LOGIN}:x:{}:{}::{}:/bin/sh\n", ids.0, ids.1, login.display())
        });
        fs::write(dir.join("passwd"), lines.collect::<String>()).expect("the slot can be written");
        for path in [login.clone(), login.join(".ssh"), login.join(".ssh/authorized_keys")] {
            chown(&path, Some(ids.0), Some(ids.1)).expect("root may");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("the slot is ours");
        }
        // walt is installed there: a link in a layer of /usr/bin, which must not change, to one that may.
        symlink(dir.join("walt"), bin.join("walt")).expect("the slot can be written");
        symlink(server.dir().join("bin/walt"), dir.join("walt")).expect("the slot can be written");
        let script = "mount --bind \"$1/passwd\" /etc/passwd && \
             mount -t overlay -o \"ro,lowerdir=$1/bin:/usr/bin\" overlay /usr/bin && \
             exec dropbear -F -E -s -r \"$1/host-key\" -p 10.209.0.1:22 -P \"$1/pid\"";
        let mut sshd = Self::in_namespaces(&gate, script, &dir);
        let log = fs::File::create(dir.join("sshd.log")).expect("the slot can be written");
        let sshd = sshd
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dropbear can be started");
        let here = Self { laptop, _gate: gate, sshd, dir, socket: server.socket() };
        until("the ssh server to listen", START_LIMIT, || {
            here.laptop.inside(|| std::net::TcpStream::connect((GATE, 22))).ok()
        });
        here
    }

    /// A shell script in the network of a namespace, and with mounts of its own; `$1` is the directory.
    fn in_namespaces(netns: &Netns, script: &str, dir: &std::path::Path) -> Command {
        let wrapper = netns.wrapper();
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).args([
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command.arg(dir);
        command
    }

    /// What names the server from here.
    pub fn url(&self) -> String {
        format!("ssh://{LOGIN}@{GATE}{}", self.socket.display())
    }

    /// The home directory of the user here.
    pub fn home(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A program here, in the user's home directory, without a server in its environment.
    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let script = "mount --bind \"$1/root\" /root && cd /root && shift && exec \"$@\"";
        let mut command = Self::in_namespaces(&self.laptop, script, &self.dir);
        command.args(words).env("HOME", "/root").env_remove("WALT_SERVER").env_remove("WALT_USERNAME");
        command.env_remove("SSH_AUTH_SOCK").env_remove("XDG_CACHE_HOME");
        command
    }

    /// `walt` here.
    pub fn walt(&self, arguments: &[&str]) -> Command {
        let program = self.dir.parent().expect("it is in the slot").join("bin/walt");
        let mut words: Vec<&OsStr> = vec![program.as_os_str()];
        words.extend(arguments.iter().map(OsStr::new));
        self.command(&words)
    }

    /// `walt` with the server in its environment; its output if it succeeds.
    ///
    /// # Panics
    /// It fails, with what it says.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self
            .walt(arguments)
            .env("WALT_SERVER", self.url())
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "walt {arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Installs or removes `walt` on the machine of the server.
    ///
    /// # Panics
    /// If the slot cannot be written.
    pub fn install(&self, is_installed: bool) {
        let program = self.dir.parent().expect("it is in the slot").join("bin/walt");
        let link = self.dir.join("walt");
        fs::remove_file(&link).expect("the slot can be written");
        let leads_to = if is_installed { program } else { PathBuf::from("/nonexistent") };
        symlink(leads_to, link).expect("the slot can be written");
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}
