//! One byte stream to the server.

use crate::{Error, Result, Target};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longest time to connect to a socket. ssh has its own limits, and may ask for a passphrase.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
        _process: Box<Child>,
        /// Its output and input.
        pipes: Join<ChildStdout, ChildStdin>,
    },
}

impl Connection {
    /// Connects to `target`.
    ///
    /// # Errors
    /// [`Error::Connect`] with the system's reason.
    pub async fn open(target: &Target) -> Result<Self> {
        let refused = |reason: String| Error::Connect { target: target.to_string(), reason };
        if let Some(arguments) = target.ssh_arguments() {
            let mut process = Command::new("ssh")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|e| refused(format!("cannot start ssh: {e}")))?;
            let (Some(output), Some(input)) = (process.stdout.take(), process.stdin.take()) else {
                return Err(refused("cannot connect to the pipes of ssh".to_owned()));
            };
            return Ok(Self::Ssh { _process: Box::new(process), pipes: tokio::io::join(output, input) });
        }
        let Target::Unix(path) = target else { return Err(refused("no socket".to_owned())) };
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
                        return Err(refused(error.to_string()));
                    }
                }
                Err(_) => return Err(refused(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
            }
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
