//! One byte stream to the server.

use crate::{Error, Result, Target};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// Longest time to connect to a socket. ssh has its own limits, and may ask for a passphrase.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the end of an ssh whose pipe has ended.
const SSH_END: Duration = Duration::from_secs(2);
/// Exit status of ssh if it fails itself (ssh(1)).
const SSH_FAILED: i32 = 255;
/// Exit status of a shell that does not find a program (POSIX, 2.8.2).
const NOT_FOUND: i32 = 127;

/// Pause before a socket at which nobody listens is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How long such a socket is tried before somebody is told.
const SILENT: Duration = Duration::from_secs(1);

/// How long to wait for a server that restarts. Its socket exists then, and nobody listens.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The longest time.
    pub limit: Duration,
    /// Called when it lasts.
    pub tell: fn(),
}

static PATIENCE: OnceLock<Patience> = OnceLock::new();
/// Whether this process has been connected: who connects again has said so to the user.
static CONNECTED: AtomicBool = AtomicBool::new(false);

/// A wait for a server that restarts.
pub(crate) struct Waiting {
    start: Instant,
    told: bool,
}

impl Waiting {
    pub(crate) fn begin() -> Self {
        Self { start: Instant::now(), told: false }
    }

    /// Pauses; false if this process does not wait, or does not wait any longer.
    pub(crate) async fn goes_on(&mut self) -> bool {
        let Some(patience) = PATIENCE.get().filter(|p| self.start.elapsed() < p.limit) else { return false };
        let silent = self.start.elapsed() < SILENT || CONNECTED.load(Ordering::Relaxed);
        if !silent && !std::mem::replace(&mut self.told, true) {
            (patience.tell)();
        }
        tokio::time::sleep(RETRY).await;
        true
    }
}

/// Makes all connections of this process to a socket wait for a server that restarts; without this, they fail at once. The
/// first call counts.
pub fn be_patient(patience: Patience) {
    let _ = PATIENCE.set(patience);
}

/// A connected byte stream: the server's socket, or the pipes of an ssh process.
#[derive(Debug)]
pub enum Connection {
    /// The server's socket.
    Unix(UnixStream),
    /// The pipes of `ssh … walt proxy`; the process ends with the connection.
    Ssh {
        /// Kept so that dropping the connection ends the process.
        process: Ssh,
        /// Its output and input.
        pipes: Join<ChildStdout, ChildStdin>,
    },
}

/// The process of a connection through ssh.
#[derive(Debug, Clone)]
pub struct Ssh {
    process: Arc<Mutex<Child>>,
    destination: String,
}

impl Ssh {
    /// Why there is no answer: what ssh says by its exit status, else `broken`. Its own words are on standard error by then.
    async fn explain(&self, target: &Target, broken: Error) -> Error {
        let wait = async { self.process.lock().await.wait().await };
        let Ok(Ok(status)) = tokio::time::timeout(SSH_END, wait).await else { return broken };
        let host = self.destination.rsplit('@').next().unwrap_or_default();
        let (reason, hint) = match status.code() {
            Some(SSH_FAILED) => {
                ("ssh cannot connect".to_owned(), format!("Try 'ssh {}' by hand.", self.destination))
            }
            Some(NOT_FOUND) => (
                "the command 'walt' is not installed there".to_owned(),
                format!(
                    "Install the package 'walt' on {host}, or put the program into the PATH of ssh sessions there."
                ),
            ),
            Some(0) | None => return broken,
            Some(other) => (
                format!("'walt proxy' failed there (status {other})"),
                format!("Is walt-server running on {host}, and may '{}' use it?", self.destination),
            ),
        };
        Error::Connect { target: target.to_string(), reason, hint }
    }
}

/// [`Ssh::explain`] for a connection that may be one through ssh.
pub(crate) async fn explain(ssh: Option<&Ssh>, target: &Target, broken: Error) -> Error {
    match ssh {
        Some(ssh) => ssh.explain(target, broken).await,
        None => broken,
    }
}

impl Connection {
    /// Connects to `target`. ssh may ask its user something.
    ///
    /// # Errors
    /// [`Error::Connect`] with the system's reason.
    pub async fn open(target: &Target) -> Result<Self> {
        Self::open_with(target, false).await
    }

    /// Connects to `target`. If `silent`, ssh neither asks nor prints anything.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_with(target: &Target, silent: bool) -> Result<Self> {
        let refused = |reason: String, hint: &str| Error::Connect {
            target: target.to_string(),
            reason,
            hint: hint.to_owned(),
        };
        if let Some(arguments) = target.ssh_arguments() {
            let mut ssh = Command::new("ssh");
            if silent {
                ssh.args(["-o", "BatchMode=yes"]).stderr(Stdio::null());
            }
            let mut process = ssh
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|e| {
                    refused(format!("cannot start ssh: {e}"), "Install the package 'openssh-client'.")
                })?;
            let (Some(output), Some(input)) = (process.stdout.take(), process.stdin.take()) else {
                return Err(refused("cannot connect to the pipes of ssh".to_owned(), ""));
            };
            let destination = match target {
                Target::Ssh { destination, .. } => destination.clone(),
                Target::Unix(_) => String::new(),
            };
            let process = Ssh { process: Arc::new(Mutex::new(process)), destination };
            return Ok(Self::Ssh { process, pipes: tokio::io::join(output, input) });
        }
        let hint = "Is walt-server running? Set WALT_SERVER to unix:<path of walt.sock> or ssh://<host> to select another server.";
        let Target::Unix(path) = target else { return Err(refused("no socket".to_owned(), hint)) };
        let mut waiting = Waiting::begin();
        loop {
            match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => {
                    CONNECTED.store(true, Ordering::Relaxed);
                    return Ok(Self::Unix(stream));
                }
                Ok(Err(error)) => {
                    // Reset: the server ended before it accepted.
                    let away = matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                    );
                    if !away || !waiting.goes_on().await {
                        return Err(refused(error.to_string(), hint));
                    }
                }
                Err(_) => {
                    return Err(refused(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()), hint));
                }
            }
        }
    }

    /// The process behind it.
    pub(crate) fn ssh(&self) -> Option<Ssh> {
        match self {
            Self::Unix(_) => None,
            Self::Ssh { process, .. } => Some(process.clone()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Ssh { pipes, .. } => Pin::new(pipes).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Ssh { pipes, .. } => Pin::new(pipes).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Ssh { pipes, .. } => Pin::new(pipes).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Ssh { pipes, .. } => Pin::new(pipes).poll_shutdown(cx),
        }
    }
}
