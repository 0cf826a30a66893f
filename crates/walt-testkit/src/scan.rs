//! A scanner: which ports of an address answer a station.
//!
//! It sends raw SYN segments (RFC 9293) without waiting for each, since ports behind a filter never answer. The
//! station's kernel resets what answers, as it knows no such connection.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Ports that are tried before answers are looked for.
const BATCH: u16 = 256;
/// How often all ports are tried: a segment may be lost.
const PASSES: usize = 2;
/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Port that the segments come from; the station has no socket there.
const FROM: u16 = 45_678;
/// Largest answer that is read, in bytes: headers of IPv4 and TCP with all options.
const ANSWER_MAX: usize = 120;
/// Length of a TCP header without options, in bytes.
const TCP_HEADER: usize = 20;
/// TCP's number (RFC 9293, section 3.1).
const TCP: u8 = 6;
/// The queue of the interface is full (send(2)).
const ENOBUFS: i32 = 105;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// What a scan of all TCP ports of an address found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TcpPorts {
    /// Ports where somebody listens.
    pub open: BTreeSet<u16>,
    /// Ports that refused: nobody listens, but the filter lets segments pass.
    pub refused: BTreeSet<u16>,
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum()
}

/// The checksum of a segment with its pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1).
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut total = sum(&octets(from)) + sum(&octets(to)) + sum(segment);
    total += u32::from(TCP) + u32::try_from(segment.len()).expect("a short segment");
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

fn syn(from: IpAddr, to: IpAddr, port: u16) -> [u8; TCP_HEADER] {
    let mut segment = [0; TCP_HEADER];
    segment[0..2].copy_from_slice(&FROM.to_be_bytes());
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    segment[4..8].copy_from_slice(&1_u32.to_be_bytes());
    segment[12] = (TCP_HEADER as u8 / 4) << 4;
    segment[13] = SYN;
    segment[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    let check = checksum(from, to, &segment);
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    segment
}

/// All TCP ports of `to` that answer. Call it inside the station's namespace, which has the address `from`. A scope
/// of IPv6 is that of `to`.
///
/// # Panics
/// If raw sockets are refused (root is needed).
pub fn tcp(from: IpAddr, to: SocketAddr) -> TcpPorts {
    let domain = Domain::for_address(to);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).expect("root may make raw sockets");
    socket.set_nonblocking(true).expect("a socket can be non-blocking");
    let _ = socket.set_recv_buffer_size(4 << 20);
    // The ports are in the segment: a raw socket takes none.
    let mut target = to;
    target.set_port(0);
    let mut found = TcpPorts::default();
    for _ in 0..PASSES {
        for port in 1..=u16::MAX {
            loop {
                match socket.send_to(&syn(from, to.ip(), port), &SockAddr::from(target)) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock || e.raw_os_error() == Some(ENOBUFS) => {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    // There is no route to that address, so nothing is reached.
                    Ok(_) | Err(_) => {}
                }
                break;
            }
            if port % BATCH == 0 {
                answers(&socket, to.ip(), &mut found);
                std::thread::yield_now();
            }
        }
    }
    let end = Instant::now() + LAST_ANSWERS;
    while Instant::now() < end {
        answers(&socket, to.ip(), &mut found);
        std::thread::sleep(Duration::from_millis(10));
    }
    found
}

fn answers(socket: &Socket, to: IpAddr, found: &mut TcpPorts) {
    use std::io::Read;
    let mut bytes = [0; ANSWER_MAX];
    let mut reader = socket;
    while let Ok(len) = reader.read(&mut bytes) {
        // A raw socket of IPv4 gives the IP header too (raw(7)), one of IPv6 does not (ipv6(7)).
        let start = if to.is_ipv4() { usize::from(bytes[0] & 0xf) * 4 } else { 0 };
        let Some(segment) = bytes[..len].get(start..).filter(|s| s.len() >= TCP_HEADER) else { continue };
        if segment[2..4] != FROM.to_be_bytes() {
            continue;
        }
        let port = u16::from_be_bytes([segment[0], segment[1]]);
        if segment[13] & RST != 0 {
            found.refused.insert(port)
        } else {
            found.open.insert(port)
        };
    }
}

/// Those of the UDP ports of `to` that answer anything: data, or that nobody listens. Call it inside the station's
/// namespace.
///
/// # Panics
/// If sockets are refused.
pub fn udp(to: SocketAddr, ports: &BTreeSet<u16>, wait: Duration) -> BTreeSet<u16> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let probe = |port: u16| {
        let socket = UdpSocket::bind(any).expect("a socket can be bound");
        socket.set_nonblocking(true).expect("a socket can be non-blocking");
        let mut target = to;
        target.set_port(port);
        // No route to that address counts as no answer.
        let sent = socket.connect(target).is_ok() && socket.send(b"anybody there?").is_ok();
        (port, socket, sent)
    };
    let sockets: Vec<_> = ports.iter().map(|port| probe(*port)).collect();
    std::thread::sleep(wait);
    let answered = |socket: &UdpSocket| match socket.recv(&mut [0; 1]) {
        Ok(_) => true,
        Err(e) => e.kind() == ErrorKind::ConnectionRefused,
    };
    sockets.iter().filter(|(_, s, sent)| *sent && answered(s)).map(|(port, ..)| *port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_sums_to_nothing() {
        let (from, to): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap());
        let segment = syn(from, to, 80);
        assert_eq!(checksum(from, to, &segment), 0, "a receiver adds all up");
    }
}
