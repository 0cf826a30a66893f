//! DNS for containers of image shells and for nodes: answers for names of the platform
//! ([`crate::edge::netboot::dns`]), and forwards all others to the server's own resolver.
//!
//! Messages are forwarded unchanged (RFC 1035 §4.2) and not cached. Each UDP query uses its own socket, so that
//! answers cannot be confused. The forwarder exists since the host's resolver may have a loopback address, which
//! containers cannot reach.

use crate::{actions::app::App, base::sockets, edge::netboot};
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use walt_netboot::dns::Verdict;

/// Queries under way at once; more are dropped, and clients retry.
const QUERIES_MAX: usize = 256;
/// Timeout of one resolver.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest duration of a TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// Port of DNS.
const PORT: u16 = 53;
/// Largest message (EDNS0 allows up to 64 KiB).
const MESSAGE_MAX: usize = 65_535;
/// Resolvers of resolv.conf that are used (the limit of resolv.conf(5)).
const RESOLVERS_MAX: usize = 3;

/// Resolvers of the server, from resolv.conf(5).
fn resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, PORT))
        .take(RESOLVERS_MAX)
        .collect()
}

async fn current_resolvers() -> Vec<SocketAddr> {
    // Read for each query: the file changes with the server's own network.
    let text = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    resolvers(&text)
}

/// The sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds port 53 of the containers' gateway address, which appears with the first container (`IP_FREEBIND`,
    /// ip(7)). If the port is in use, reports it and returns none.
    pub fn bind_containers(app: &App) -> Option<Self> {
        let at = SocketAddr::new(app.config().container_gateway().into(), PORT);
        Self::bind(app, "DNS for containers", "image shells cannot resolve names", |kind| {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            socket.set_freebind_v4(true)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())?;
            Ok(socket)
        })
    }

    /// Binds port 53 of the server's address on the bridge only: containers have another socket, and the machine may
    /// have a resolver at a loopback address. If the port is in use, reports it and returns none.
    pub fn bind_bridge(app: &App) -> Option<Self> {
        let config = app.config();
        Self::bind(app, "DNS for nodes", "nodes cannot resolve names", |kind| {
            sockets::bound_at(config, kind, config.server_ip(), PORT)
        })
    }

    fn bind(app: &App, what: &str, effect: &str, make: impl Fn(Type) -> io::Result<Socket>) -> Option<Self> {
        let make = |kind, protocol| {
            let listening = |socket: Socket| {
                socket.set_nonblocking(true)?;
                if kind == Type::STREAM {
                    socket.listen(BACKLOG)?;
                }
                Ok(socket)
            };
            let made = make(kind).and_then(listening);
            made.inspect_err(|_| app.base().ports_missing().add(what, protocol, PORT, effect)).ok()
        };
        let (udp, tcp) = (make(Type::DGRAM, "udp")?, make(Type::STREAM, "tcp")?);
        let refused = |e: &io::Error| tracing::error!("{what}: cannot use the socket: {e}");
        Some(Self {
            udp: UdpSocket::from_std(udp.into()).inspect_err(refused).ok()?,
            tcp: TcpListener::from_std(tcp.into()).inspect_err(refused).ok()?,
        })
    }

    /// Answers queries for ever.
    pub async fn serve(self, app: Arc<App>) {
        let udp = Arc::new(self.udp);
        let slots = || Arc::new(Semaphore::new(QUERIES_MAX));
        tokio::join!(serve_udp(app.clone(), udp, slots()), serve_tcp(app, self.tcp, slots()));
    }
}

async fn serve_udp(app: Arc<App>, socket: Arc<UdpSocket>, slots: Arc<Semaphore>) {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (query, socket, app) = (buffer[..length].to_vec(), socket.clone(), app.clone());
        tokio::spawn(async move {
            let answer = match netboot::dns::decide(&app, &query) {
                Verdict::Answer(answer) => Some(answer),
                Verdict::Forward => ask(&query).await,
                Verdict::Drop => None,
            };
            if let Some(answer) = answer {
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

async fn serve_tcp(app: Arc<App>, listener: TcpListener, slots: Arc<Semaphore>) {
    loop {
        // Invariant: the semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.expect("open semaphore");
        match listener.accept().await {
            Ok((client, _)) => {
                let app = app.clone();
                tokio::spawn(async move {
                    let _ = timeout(TCP_TIMEOUT, converse(&app, client)).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers the queries of a connection in order.
async fn converse(app: &App, mut client: TcpStream) -> io::Result<()> {
    loop {
        let query = read_message(&mut client).await?;
        let answer = match netboot::dns::decide(app, &query) {
            Verdict::Answer(answer) => answer,
            Verdict::Forward => match ask_tcp(&query).await {
                Some(answer) => answer,
                None => return Ok(()),
            },
            Verdict::Drop => return Ok(()),
        };
        write_message(&mut client, &answer).await?;
    }
}

async fn ask_tcp(query: &[u8]) -> Option<Vec<u8>> {
    for resolver in current_resolvers().await {
        let exchange = async {
            let mut server = TcpStream::connect(resolver).await?;
            write_message(&mut server, query).await?;
            read_message(&mut server).await
        };
        match timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(e)) => tracing::debug!(%resolver, "DNS: {e}"),
            Err(_) => tracing::debug!(%resolver, "DNS: no answer"),
        }
    }
    None
}

/// A message over TCP has its length in front (RFC 1035 §4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidData);
    let length = u16::try_from(message.len()).map_err(too_long)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# x\nsearch a\nnameserver 127.0.0.53\n nameserver ::1\nnameserver nope\n";
        assert_eq!(resolvers(text), ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    /// For what the loopback interface and the database take.
    const SOON: Duration = Duration::from_secs(30);

    /// A query for the address of `server.walt`, with this id.
    fn query(id: u16) -> Vec<u8> {
        let head = [0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        [&id.to_be_bytes()[..], &head, b"\x06server\x04walt\0", &[0, 1, 0, 1]].concat()
    }

    fn app(dir: &std::path::Path) -> Arc<App> {
        let (state_dir, run_dir) = (dir.join("state"), dir.join("run"));
        let config = crate::base::config::Config { state_dir, run_dir, ..Default::default() };
        Arc::new(crate::actions::app::tests::open(config).unwrap())
    }

    #[tokio::test]
    async fn queries_without_a_slot_are_dropped_and_connections_wait() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let app = app(dir.path());
        let slots = Arc::new(Semaphore::new(1));
        let udp = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, tcp_at) = (udp.local_addr().unwrap(), listener.local_addr().unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(at).await.unwrap();
        let serving = [
            tokio::spawn(serve_udp(app.clone(), udp.clone(), slots.clone())),
            tokio::spawn(serve_tcp(app, listener, slots.clone())),
        ];
        // The listener has the only slot, for the connection that comes next.
        let wait = |done: Box<dyn Fn() -> bool>| async move {
            let turns = async {
                while !done() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(SOON, turns).await.expect("it came to its turn");
        };
        let taken = slots.clone();
        wait(Box::new(move || taken.available_permits() == 0)).await;
        client.send(&query(1)).await.unwrap();
        // PushResult from the socket, and dropped.
        wait(Box::new(move || rustix::io::ioctl_fionread(&*udp).unwrap() == 0)).await;
        let mut first = TcpStream::connect(tcp_at).await.unwrap();
        write_message(&mut first, &query(2)).await.unwrap();
        let answer = timeout(SOON, read_message(&mut first)).await.unwrap().unwrap();
        assert_eq!(answer[..2], [0, 2]);
        // Its end gives the slot back: to the next connection, which would not be served before.
        let mut second = TcpStream::connect(tcp_at).await.unwrap();
        write_message(&mut second, &query(3)).await.unwrap();
        drop(first);
        let answer = timeout(SOON, read_message(&mut second)).await.unwrap().unwrap();
        assert_eq!(answer[..2], [0, 3]);
        // With another slot, UDP is answered: the first query never is.
        slots.add_permits(2);
        client.send(&query(4)).await.unwrap();
        let mut answer = [0; 512];
        let length = timeout(SOON, client.recv(&mut answer)).await.unwrap().unwrap();
        assert!(length > 2 && answer[..2] == [0, 4], "{:?}", &answer[..length]);
        serving.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
