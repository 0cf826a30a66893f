//! One byte stream to the server.

use crate::{Error, Result, Target};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longest time to connect to a socket. ssh has its own limits, and may ask for a passphrase.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
        match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => Ok(Self::Unix(stream)),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
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
