//! The API's socket, with a bound on the connections of each account and of all.

use super::identity::Peer;
use crate::peers::{Counted, Peers};
use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections served at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections of one account; more are closed. Each open shell, console or running command has one.
pub const CONNECTIONS_PER_ACCOUNT: usize = 256;
/// Pause after the kernel refused to accept a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The socket.
pub struct Bounded {
    listener: UnixListener,
    slots: Arc<Semaphore>,
    accounts: Arc<Peers<u32>>,
}

/// A connection, counted until it is closed.
pub struct Held {
    stream: UnixStream,
    peer: Peer,
    _bounds: (OwnedSemaphorePermit, Counted<u32>),
}

impl Bounded {
    /// Nobody is connected.
    pub fn new(listener: UnixListener) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)), accounts: Peers::new() }
    }
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        loop {
            // Invariant: the semaphore is never closed.
            let slot = self.slots.clone().acquire_owned().await.expect("open semaphore");
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("the API's socket: accept failed: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Who is gone already needs no answer.
            let Ok(uid) = stream.peer_cred().map(|c| c.uid()) else { continue };
            match self.accounts.enter(uid, CONNECTIONS_PER_ACCOUNT) {
                Some(counted) => {
                    return (Held { stream, peer: Peer { uid }, _bounds: (slot, counted) }, address);
                }
                None => tracing::warn!(
                    uid,
                    "an account has {CONNECTIONS_PER_ACCOUNT} connections: one more is closed"
                ),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().peer
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
