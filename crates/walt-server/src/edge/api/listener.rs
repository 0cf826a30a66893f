//! The API's socket, with a bound on the connections of each account and of all.

use crate::edge::api::identity::Peer;
use crate::edge::peers::{Admitted, Gate};
use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream, unix::SocketAddr},
};

/// Connections served at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections of one account; more are closed. Each open shell, console or running command has one.
pub const CONNECTIONS_PER_ACCOUNT: usize = 256;

/// The socket.
pub struct Bounded {
    gate: Gate<UnixListener>,
}

/// A connection, counted until it is closed.
pub struct Held {
    stream: UnixStream,
    peer: Peer,
    _admitted: Admitted<u32>,
}

impl Bounded {
    /// Nobody is connected.
    pub fn new(listener: UnixListener) -> Self {
        Self { gate: Gate::new(listener, "the API's socket", CONNECTIONS_MAX, CONNECTIONS_PER_ACCOUNT) }
    }
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        let ((stream, address), uid, admitted) = self.gate.next().await;
        (Held { stream, peer: Peer { uid }, _admitted: admitted }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.gate.listener.local_addr()
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
