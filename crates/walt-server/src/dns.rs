//! DNS for containers of image shells: a forwarder to the server's own resolver.
//!
//! Messages pass as they are (RFC 1035 §4.2): nothing is parsed, nothing is cached. UDP queries go out
//! from one socket each, so that answers cannot be confused; TCP is copied. The host's resolver may be on
//! a loopback address that a container cannot reach, which is why this exists.

use anyhow::{Context, Result};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// Queries under way at once; more are dropped, and clients ask again.
const QUERIES_MAX: usize = 256;
/// Time for an answer from one resolver.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest life of a TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest UDP message (EDNS0 allows up to 64 KiB).
const MESSAGE_MAX: usize = 65_535;
/// Resolvers of resolv.conf that are used (the limit of resolv.conf(5)).
const RESOLVERS_MAX: usize = 3;

/// Resolvers of the server, from resolv.conf(5).
fn resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .take(RESOLVERS_MAX)
        .collect()
}

async fn current_resolvers() -> Vec<SocketAddr> {
    // Read at each query: the file changes when the server's own network does.
    let text = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    resolvers(&text)
}

/// The sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds port 53 of an address that may not exist yet (`IP_FREEBIND`, ip(7)): containers bring it.
    ///
    /// # Errors
    /// The port is taken.
    pub fn bind(addr: Ipv4Addr) -> Result<Self> {
        use socket2::{Domain, Socket, Type};
        let at = SocketAddr::new(addr.into(), 53);
        let make = |kind: Type| -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            socket.set_freebind_v4(true)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&at.into())?;
            Ok(socket)
        };
        let context =
            || format!("DNS for containers: cannot bind {at} ({})", crate::ports::holder_text(at, "udp"));
        let udp = make(Type::DGRAM).with_context(context)?;
        let tcp = make(Type::STREAM).with_context(context)?;
        tcp.listen(64)?;
        Ok(Self { udp: UdpSocket::from_std(udp.into())?, tcp: TcpListener::from_std(tcp.into())? })
    }

    /// Forwards for ever.
    pub async fn serve(self) {
        let udp = Arc::new(self.udp);
        tokio::join!(serve_udp(udp), serve_tcp(self.tcp));
    }
}

async fn serve_udp(socket: Arc<UdpSocket>) {
    let slots = Arc::new(Semaphore::new(QUERIES_MAX));
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (query, socket) = (buffer[..length].to_vec(), socket.clone());
        tokio::spawn(async move {
            if let Some(answer) = ask(&query).await {
                let _ = socket.send_to(&answer, peer).await;
            }
            drop(slot);
        });
    }
}

async fn ask(query: &[u8]) -> Option<Vec<u8>> {
    for resolver in current_resolvers().await {
        match timeout(ANSWER_TIMEOUT, ask_one(query, resolver)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(e)) => tracing::debug!(%resolver, "DNS: {e}"),
            Err(_) => tracing::debug!(%resolver, "DNS: no answer"),
        }
    }
    None
}

async fn ask_one(query: &[u8], resolver: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MESSAGE_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The first two bytes are the query's id.
        if answer.get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn serve_tcp(listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(QUERIES_MAX));
    loop {
        // Invariant: the semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.expect("open semaphore");
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    let _ = timeout(TCP_TIMEOUT, copy_tcp(client)).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn copy_tcp(mut client: TcpStream) {
    for resolver in current_resolvers().await {
        if let Ok(Ok(mut server)) = timeout(ANSWER_TIMEOUT, TcpStream::connect(resolver)).await {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# x\nsearch a\nnameserver 127.0.0.53\n nameserver ::1\nnameserver nope\n";
        assert_eq!(resolvers(text), ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
