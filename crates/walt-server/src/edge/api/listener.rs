//! The API's socket, which limits the connections in total and per account.

use crate::edge::{
    api::identity::Peer,
    peers::{Admitted, LimitedListener},
};
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
/// Connections of one account; more are closed. Each open shell, console or running command uses one.
pub const CONNECTIONS_PER_ACCOUNT: usize = 256;

/// The listening socket.
pub struct ApiListener {
    listener: LimitedListener<UnixListener>,
}

/// A connection, counted until it is closed.
pub struct ApiConnection {
    stream: UnixStream,
    peer: Peer,
    _admitted: Admitted<u32>,
}

impl ApiListener {
    /// Listens on a bound socket.
    pub fn new(listener: UnixListener) -> Self {
        Self {
            listener: LimitedListener::new(
                listener,
                "the API's socket",
                CONNECTIONS_MAX,
                CONNECTIONS_PER_ACCOUNT,
            ),
        }
    }
}

impl Listener for ApiListener {
    type Io = ApiConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ApiConnection, SocketAddr) {
        let ((stream, address), uid, admitted) = self.listener.next().await;
        (ApiConnection { stream, peer: Peer { uid }, _admitted: admitted }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, ApiListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, ApiListener>) -> Self {
        stream.io().peer
    }
}

impl AsyncRead for ApiConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ApiConnection {
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
