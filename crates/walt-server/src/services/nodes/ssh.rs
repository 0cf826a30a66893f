//! The ssh command for a node: OpenSSH as root, with the platform's keys.
//!
//! Programs on one node share a connection: a second program saves connecting, the exchange of keys and logging in, which
//! is nearly all of its time. An ssh process of its own, the *master*, holds the connection (ssh_config(5),
//! `ControlMaster`); the others reach it by its socket in `<run-dir>/ssh`:
//!
//! ```text
//! first program ──▶ master starts ──▶ serves programs ──▶ ends: unused for MASTER_IDLE, the node rebooted, `down`
//!                     └ fails: so does the program         └ the server dies: the next one finds the socket
//! ```
//! The name of the socket is the node and its boot, `<mac>-<start of the boot id>`: a connection to an earlier boot is
//! never used. A node whose boot or link the server does not know, a program too many, and a run directory with too long a
//! path are served by connections of their own, as are programs that transfer files ([`open_alone`]).

use crate::{
    base::{
        db::NodeRow,
        files::{make_dir, remove_tree},
        programs::SSH_FAILED,
        state::Base,
    },
    services::nodes::error::{Error, Result},
};
use anyhow::Context;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{ErrorKind, Read, Seek},
    net::Ipv4Addr,
    os::unix::{ffi::OsStrExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use walt_types::Mac;

/// Seconds to connect before a node counts as unreachable.
const CONNECT_TIMEOUT_S: u32 = 10;
/// The same for a node that is known to run: it may be busy.
const CONNECT_TIMEOUT_LINKED_S: u32 = 30;
/// How long a master may take to log in.
const MASTER_TIMEOUT: Duration = Duration::from_secs(60);
/// Seconds after which an unused master ends.
const MASTER_IDLE_S: u32 = 600;
/// Programs that share a connection; OpenSSH's server has 10 sessions at most by default, and one ends a program.
const SESSIONS_MAX: usize = 8;
/// Longest path of a socket: `sun_path` of unix(7), without its end and what ssh appends while it makes the socket.
const SOCKET_PATH_MAX: usize = 107 - 17;
/// Characters of the boot id in the name of a socket.
const BOOT_ID_PART: usize = 8;
/// Most bytes of ssh's own words in an error.
const WORDS_MAX: u64 = 2000;

/// The shared connections, by node.
#[derive(Default)]
pub struct Masters(Mutex<HashMap<Mac, Arc<Master>>>);

#[derive(Debug, Default)]
struct Master {
    sessions: AtomicUsize,
    /// Held while one is looked for or started.
    starting: tokio::sync::Mutex<()>,
}

/// A place in a shared connection.
#[derive(Debug)]
pub struct Lease(Arc<Master>);

impl Lease {
    fn take(master: &Arc<Master>) -> Option<Self> {
        let free = |n| (n < SESSIONS_MAX).then_some(n + 1);
        master.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Self(master.clone()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A program to start on a node.
pub struct Session {
    /// ssh with all its arguments; the streams are not set.
    pub command: Command,
    /// Its place in a shared connection, if it has one; to be kept until the program has ended.
    pub lease: Option<Lease>,
}

/// A session on a node. `remote` is passed to the remote shell as one string; without it, ssh opens a login shell. `tty`
/// requests a terminal on the node.
///
/// # Errors
/// The node is known to run and cannot be reached; the error has ssh's words.
pub async fn open(
    base: &Base,
    masters: &Masters,
    mac: Mac,
    remote: Option<&[u8]>,
    tty: bool,
) -> Result<Session> {
    let node = node_of(base, mac)?;
    let shared = shared(base, masters, &node).await?;
    Ok(session(base, &node, shared, remote, tty))
}

/// The same without a terminal and over a connection of its own, for programs whose output is long: it would delay what else
/// uses a shared connection. And the master of a shared one keeps the pipes of a program open when its ssh is killed, so
/// that who reads them would wait for the program on the node.
///
/// # Errors
/// The node was removed.
pub fn open_alone(base: &Base, mac: Mac, remote: &[u8]) -> Result<Command> {
    Ok(session(base, &node_of(base, mac)?, None, Some(remote), false).command)
}

fn node_of(base: &Base, mac: Mac) -> Result<NodeRow> {
    base.db().with(|c| NodeRow::by_mac(c, mac))?.ok_or(Error::Removed)
}

fn session(
    base: &Base,
    node: &NodeRow,
    shared: Option<(PathBuf, Lease)>,
    remote: Option<&[u8]>,
    tty: bool,
) -> Session {
    let timeout = if is_up(node) { CONNECT_TIMEOUT_LINKED_S } else { CONNECT_TIMEOUT_S };
    let mut ssh = command(base, timeout);
    let (path, lease) = shared.map_or((None, None), |(path, lease)| (Some(path), Some(lease)));
    ssh.arg("-S").arg(path.as_deref().unwrap_or(Path::new("none")));
    if tty {
        // The farewell of a shared connection has other words: callers print ours.
        ssh.args(["-tt", "-o", "LogLevel=ERROR"]);
    } else {
        ssh.arg("-T");
    }
    ssh.arg(format!("root@{}", node.ip));
    if let Some(remote) = remote {
        ssh.arg("--").arg(OsStr::from_bytes(remote));
    }
    Session { command: ssh, lease }
}

/// What is printed at the end of a session with a terminal, by the exit status of ssh: nothing if there was no connection.
/// (Without a shared one, a program that a signal ended has the same status as ssh that failed.)
pub fn farewell(ip: Ipv4Addr, is_shared: bool, status: i32) -> Option<String> {
    (is_shared || status != SSH_FAILED).then(|| format!("Connection to {ip} closed.\r\n"))
}

/// ssh with what holds for every connection to a node.
fn command(base: &Base, connect_timeout: u32) -> Command {
    let mut ssh = Command::new("ssh");
    // No configuration files: a node shell must not depend on root's ~/.ssh.
    ssh.args(["-F", "none"]);
    for option in [
        format!("IdentityFile={}", base.keys().client_key.display()),
        "IdentitiesOnly=yes".into(),
        format!("UserKnownHostsFile={}", base.keys().known_hosts.display()),
        "GlobalKnownHostsFile=/dev/null".into(),
        "HostKeyAlias=walt.node".into(),
        "StrictHostKeyChecking=yes".into(),
        "PasswordAuthentication=no".into(),
        "BatchMode=yes".into(),
        format!("ConnectTimeout={connect_timeout}"),
        "ServerAliveInterval=15".into(),
        "ServerAliveCountMax=4".into(),
        "EscapeChar=none".into(),
    ] {
        ssh.arg("-o").arg(option);
    }
    ssh
}

/// Whether the node has booted, and its link is there as far as is known.
fn is_up(node: &NodeRow) -> bool {
    node.life.booted.is_some() && node.life.link_lost.is_none()
}

fn directory(base: &Base) -> PathBuf {
    base.config().run_dir.join("ssh")
}

/// How the names of a node's sockets begin.
fn prefix(mac: Mac) -> String {
    format!("{}-", mac.dashed().replace('-', ""))
}

/// Where the socket of a boot is; none if a path would be too long.
fn socket(base: &Base, mac: Mac, boot_id: &str) -> Option<PathBuf> {
    let part: String = boot_id.chars().filter(char::is_ascii_hexdigit).take(BOOT_ID_PART).collect();
    let path = directory(base).join(prefix(mac) + &part);
    (path.as_os_str().len() <= SOCKET_PATH_MAX).then_some(path)
}

/// The shared connection to a node and a place in it; none if the program needs a connection of its own.
async fn shared(base: &Base, masters: &Masters, node: &NodeRow) -> Result<Option<(PathBuf, Lease)>> {
    let Some(boot_id) = node.life.boot_id.as_deref().filter(|_| is_up(node)) else { return Ok(None) };
    let Some(path) = socket(base, node.mac, boot_id) else { return Ok(None) };
    let master = masters.0.lock().entry(node.mac).or_default().clone();
    let Some(lease) = Lease::take(&master) else { return Ok(None) };
    let _starting = master.starting.lock().await;
    if !answers(&path) {
        start(base, node, &path).await?;
    }
    Ok(Some((path, lease)))
}

/// Whether a process listens on a socket.
fn answers(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Starts the master of a node. Once it has logged in, it does not belong to this process any more.
async fn start(base: &Base, node: &NodeRow, path: &Path) -> Result<()> {
    make_dir(&directory(base), 0o700)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(anyhow::Error::new(e).context(format!("cannot remove {}", path.display())).into());
        }
        _ => {}
    }
    // A file, since a process that goes on in the background may keep a pipe open.
    let mut words = File::from(
        rustix::fs::memfd_create("walt-ssh", rustix::fs::MemfdFlags::CLOEXEC)
            .context("cannot make a file")?,
    );
    let mut ssh = command(base, CONNECT_TIMEOUT_LINKED_S);
    ssh.args(["-o", "ControlMaster=yes", "-o", &format!("ControlPersist={MASTER_IDLE_S}"), "-S"]).arg(path);
    ssh.args(["-f", "-N", "-T"]).arg(format!("root@{}", node.ip));
    let copy = words.try_clone().context("cannot copy a descriptor")?;
    ssh.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(copy);
    let mut command = tokio::process::Command::from(ssh);
    let mut child = command.kill_on_drop(true).spawn().context("cannot start ssh")?;
    let ended = tokio::time::timeout(MASTER_TIMEOUT, child.wait()).await;
    let name = &node.facts.name;
    let Ok(status) = ended else {
        let seconds = MASTER_TIMEOUT.as_secs();
        return Err(Error::Unreachable(format!("{name} did not let the server log in within {seconds} s")));
    };
    if status.context("cannot wait for ssh")?.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    words
        .rewind()
        .and_then(|()| words.take(WORDS_MAX).read_to_end(&mut text))
        .context("cannot read the words of ssh")?;
    Err(Error::Unreachable(one_line(&text)))
}

/// Words of a program as one line, for a message.
pub fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let printable = |c: char| if c.is_control() { '?' } else { c };
    lines.join("; ").chars().map(printable).collect()
}

/// Sockets of masters: those of one node, without the one of a boot, or all.
fn sockets(dir: &Path, mac: Option<Mac>, but: Option<&Path>) -> Vec<PathBuf> {
    let wanted = mac.map(prefix).unwrap_or_default();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&wanted) && Some(path.as_path()) != but
    };
    entries.filter(is_wanted).collect()
}

/// Ends the master at a socket, and with it the programs that share its connection. Without one, removes the socket.
fn end(path: &Path) {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-O", "exit", "-S"]).arg(path).arg("node");
    let _may_be_gone = ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _may_be_gone = std::fs::remove_file(path);
}

/// Ends the connections to earlier boots of a node, in the background: programs on them would wait for ever for a node
/// that has forgotten them. Without a boot id, ends all connections to the node.
pub fn end_others(base: &Base, mac: Mac, boot_id: Option<&str>) {
    let own = boot_id.and_then(|id| socket(base, mac, id));
    let ended = sockets(&directory(base), Some(mac), own.as_deref());
    if !ended.is_empty() {
        // It ends by itself soon.
        std::thread::spawn(move || ended.iter().for_each(|path| end(path)));
    }
}

/// Ends all shared connections, for `walt-server down`.
///
/// # Errors
/// The directory of the sockets cannot be removed.
pub fn end_all(base: &Base) -> anyhow::Result<()> {
    let dir = directory(base);
    sockets(&dir, None, None).iter().for_each(|path| end(path));
    remove_tree(&dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_so_many_places() {
        let master = Arc::new(Master::default());
        let mut leases: Vec<_> = (0..SESSIONS_MAX).map(|_| Lease::take(&master)).collect();
        assert!(leases.iter().all(Option::is_some) && Lease::take(&master).is_none());
        leases.pop();
        assert!(
            Lease::take(&master).is_some_and(|_| master.sessions.load(Ordering::Relaxed) == SESSIONS_MAX)
        );
    }

    #[test]
    fn sockets_belong_to_a_node_and_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two]: [Mac; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"].map(|m| m.parse().unwrap());
        let path = |mac, part: &str| dir.path().join(prefix(mac) + part);
        for path in [path(one, "aaaaaaaa"), path(one, "bbbbbbbb"), path(two, "aaaaaaaa")] {
            std::fs::write(path, "").unwrap();
        }
        let own = path(one, "bbbbbbbb");
        assert_eq!(sockets(dir.path(), Some(one), Some(&own)), [path(one, "aaaaaaaa")]);
        assert_eq!(sockets(dir.path(), Some(one), None).len(), 2);
        assert_eq!(sockets(dir.path(), None, None).len(), 3);
        assert!(sockets(&dir.path().join("none"), None, None).is_empty());
    }

    #[test]
    fn a_session_that_was_there_has_an_end() {
        let said = |is_shared, status| farewell(Ipv4Addr::LOCALHOST, is_shared, status);
        assert_eq!(said(false, 0).as_deref(), Some("Connection to 127.0.0.1 closed.\r\n"));
        assert!(said(true, SSH_FAILED).is_some() && said(false, SSH_FAILED).is_none());
    }

    #[test]
    fn words_are_one_line() {
        assert_eq!(one_line(b"a\r\n\n b\x1b[1m \n"), "a; b?[1m");
    }
}
