//! Connections to exposed ports, forwarded to a device. Each direction ends by itself: a client that has sent everything
//! still gets the answer. A connection that breaks on one side is reset on the other.

use crate::base::db::blocking;
use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// Connections to all exposed ports at once; more are reset.
pub const CONNECTIONS_MAX: usize = 2048;
/// How long a device may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be silent. A peer that is gone is noticed sooner, by keepalives of TCP.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// How long one may be silent of which one direction has ended.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a connection may be silent.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// While both directions are open.
    idle: Duration,
    /// When one has ended.
    half_closed: Duration,
}

const LIMITS: Limits = Limits { idle: IDLE_TIMEOUT, half_closed: HALF_CLOSED_TIMEOUT };
/// Silence before the first keepalive, and time between them; the kernel gives up after nine (tcp(7)).
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(20));
/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Pause after the kernel refused to accept a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The connections to all exposed ports.
#[derive(Debug)]
pub struct Connections {
    slots: Arc<Semaphore>,
    /// Whether it was logged that there are too many.
    is_full: AtomicBool,
}

impl Default for Connections {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)), is_full: AtomicBool::new(false) }
    }
}

impl Connections {
    /// Room for one more, if there is any.
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let slot = self.slots.clone().try_acquire_owned().ok();
        let was_full = self.is_full.swap(slot.is_none(), Ordering::Relaxed);
        if slot.is_none() && !was_full {
            tracing::warn!(
                "exposed ports have {CONNECTIONS_MAX} connections, which is the most: more are reset"
            );
        }
        slot
    }
}

/// Serves for ever. `address` gives the address of the device now; connections to the server's address `walt_net` are not
/// served.
pub async fn serve(
    listeners: Vec<TcpListener>,
    walt_net: Ipv4Addr,
    address: impl Fn() -> Result<Option<Ipv4Addr>> + Clone + Send + Sync + 'static,
    port: u16,
    connections: Arc<Connections>,
) {
    // Dropping it ends what it has: the connections of a port that is not exposed any more.
    let mut running = JoinSet::new();
    for listener in listeners {
        let (address, connections) = (address.clone(), connections.clone());
        running.spawn(accept(listener, walt_net, address, port, connections));
    }
    while running.join_next().await.is_some() {}
}

async fn accept(
    listener: TcpListener,
    walt_net: Ipv4Addr,
    address: impl Fn() -> Result<Option<Ipv4Addr>> + Clone + Send + Sync + 'static,
    port: u16,
    connections: Arc<Connections>,
) {
    let mut running = JoinSet::new();
    loop {
        let client = tokio::select! {
            client = listener.accept() => client,
            Some(_) = running.join_next() => continue,
        };
        let client = match client {
            Ok((client, _)) => client,
            Err(e) => {
                tracing::debug!("platform.expose: accept failed: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let is_at_walt_net =
            client.local_addr().is_ok_and(|at| at.ip().to_canonical() == IpAddr::from(walt_net));
        let slot = connections.admit().filter(|_| !is_at_walt_net);
        let Some(slot) = slot else {
            reset(&client);
            continue;
        };
        let address = address.clone();
        running.spawn(async move {
            if let Err(e) = forward(client, &address, port).await {
                tracing::debug!("platform.expose: {e:#}");
            }
            drop(slot);
        });
    }
}

/// Connects to a port of a device.
///
/// # Errors
/// It cannot be reached.
pub async fn connect(ip: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((ip, port))).await??;
    prepare(&stream)?;
    Ok(stream)
}

/// Sends without delay, and notices a peer that is gone.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (time, interval) = KEEPALIVE;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval))
}

/// Closes a connection so that its peer sees that it broke.
fn reset(stream: &TcpStream) {
    // Where that fails, the connection is gone.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn forward(
    mut client: TcpStream,
    address: &impl Fn() -> Result<Option<Ipv4Addr>>,
    port: u16,
) -> Result<()> {
    prepare(&client)?;
    let ip = match blocking(address) {
        Ok(Some(ip)) => ip,
        Ok(None) => {
            reset(&client);
            bail!("the device has no address now");
        }
        Err(e) => {
            reset(&client);
            return Err(e);
        }
    };
    let mut device = match connect(ip, port).await {
        Ok(device) => device,
        Err(e) => {
            reset(&client);
            return Err(e).with_context(|| format!("cannot connect to {ip}:{port}"));
        }
    };
    let ended = {
        let ((from_client, to_client), (from_device, to_device)) = (client.split(), device.split());
        both((from_client, to_device), (from_device, to_client), LIMITS).await
    };
    if ended.is_err() {
        reset(&client);
        reset(&device);
    }
    ended.with_context(|| format!("a connection to {ip}:{port}"))
}

/// Copies both ways until both have ended.
///
/// # Errors
/// One broke, or both were silent for too long.
async fn both(
    up: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    down: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    limits: Limits,
) -> io::Result<()> {
    let heard = Mutex::new(Instant::now());
    let (mut up, mut down) = (pin!(copy(up, &heard)), pin!(copy(down, &heard)));
    let (mut up_ended, mut down_ended) = (false, false);
    loop {
        let limit = if up_ended || down_ended { limits.half_closed } else { limits.idle };
        let deadline = *heard.lock() + limit;
        tokio::select! {
            ended = &mut up, if !up_ended => {
                ended?;
                up_ended = true;
            }
            ended = &mut down, if !down_ended => {
                ended?;
                down_ended = true;
            }
            () = sleep_until(deadline) => {
                if *heard.lock() + limit <= Instant::now() {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "silent for too long"));
                }
            }
        }
        if up_ended && down_ended {
            return Ok(());
        }
    }
}

/// Copies one way until the end, which is passed on.
async fn copy(
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    heard: &Mutex<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer).await?;
        *heard.lock() = Instant::now();
        if n == 0 {
            return match to.shutdown().await {
                // The other side has closed in both directions, after it had everything it wanted.
                Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
                ended => ended,
            };
        }
        to.write_all(&buffer[..n]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    type Work = tokio::task::JoinHandle<(io::Result<()>, Duration)>;

    /// A connection between a client and a device, as both hold it; how it ends, and after which time.
    fn connection(limits: Limits) -> (DuplexStream, DuplexStream, Work) {
        let ((client, here), (device, there)) = (duplex(64), duplex(64));
        let work = tokio::spawn(async move {
            let (from_client, to_client) = tokio::io::split(here);
            let (from_device, to_device) = tokio::io::split(there);
            let begun = Instant::now();
            let ended = both((from_client, to_device), (from_device, to_client), limits).await;
            (ended, begun.elapsed())
        });
        (client, device, work)
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, mut device, work) = connection(LIMITS);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        device.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        device.write_all(&[b'x'; 100]).await.unwrap();
        drop(device);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text.len(), 100);
        work.await.unwrap().0.unwrap();
    }

    #[tokio::test]
    async fn silence_has_an_end() {
        let (short, long) = (Duration::from_millis(300), Duration::from_secs(3600));
        // What is heard begins the time anew.
        let (mut client, mut device, work) = connection(Limits { idle: short, half_closed: long });
        tokio::time::sleep(short / 2).await;
        client.write_all(b"x").await.unwrap();
        device.read_exact(&mut [0]).await.unwrap();
        let (ended, after) = work.await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(after >= short / 2 + short, "{after:?}");

        let (mut client, _device, work) = connection(Limits { idle: long, half_closed: short });
        client.shutdown().await.unwrap();
        let (ended, after) = work.await.unwrap();
        assert!(ended.is_err() && after >= short, "{after:?}");
    }

    #[test]
    fn there_is_a_most() {
        let connections = Connections::default();
        let all: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connections.admit().unwrap()).collect();
        assert!(connections.admit().is_none());
        drop(all);
        assert!(connections.admit().is_some());
    }
}
