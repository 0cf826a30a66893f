//! `walt node ping`, `walt device ping`: sends ten ICMP echo requests (RFC 792) from the server and prints the replies as ping(8) does.

use crate::{
    actions::app::App,
    base::{
        failure::Outcome,
        terminal::{FromClient, Input, ToClient},
    },
};
use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;
use walt_api::term::STDOUT;

/// Echo requests of one command.
const COUNT: u16 = 10;
/// Time between them, and the longest wait for an answer.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of data in each, as in ping(8).
const DATA: usize = 56;
/// ICMP header without the data.
const HEADER: usize = 8;

/// Checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn request(id: u16, sequence: u16) -> [u8; HEADER + DATA] {
    let mut packet = [0; HEADER + DATA];
    packet[0] = 8; // echo request
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Whether an IPv4 packet from a raw socket is the reply to a request.
fn answers(packet: &[u8], id: u16, sequence: u16) -> bool {
    let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    packet.get(header..header + HEADER).is_some_and(|icmp| {
        icmp[0] == 0 && icmp[4..6] == id.to_be_bytes() && icmp[6..8] == sequence.to_be_bytes()
    })
}

/// Runs until all replies have arrived, the time is over, or the client disconnects; 0 if there was a reply.
pub async fn serve(
    app: &App,
    name: &str,
    ip: Ipv4Addr,
    to: &ToClient,
    from: &mut FromClient,
) -> Outcome<i32> {
    // The server's own answers do not come by the bridge.
    let bridge = Some(app.config().bridge()).filter(|_| ip != app.config().server_ip());
    let socket = open(bridge).context("cannot open an ICMP socket")?;
    let id = u16::from_ne_bytes(crate::base::random::random());
    let print = async |text: String| to.output(STDOUT, text.as_bytes()).await;
    print(format!("PING {name} ({ip}) {DATA} bytes of data.\r\n")).await;
    let mut received = 0;
    for sequence in 1..=COUNT {
        let turn = tokio::time::sleep(INTERVAL);
        tokio::pin!(turn);
        let start = Instant::now();
        let sent = socket.send_to(&request(id, sequence), SocketAddr::new(ip.into(), 0)).await;
        if let Err(e) = sent {
            print(format!("{ip}: {e}\r\n")).await;
        }
        let mut answered = false;
        let mut buffer = [0; 1500];
        loop {
            tokio::select! {
                () = &mut turn => break,
                input = from.next() => match input {
                    // ctrl-C arrives as a byte, since the client's terminal is raw.
                    Some(Input::Bytes(bytes)) if !bytes.contains(&3) => {}
                    Some(Input::Message(_)) => {}
                    _ => return Ok(i32::from(received == 0)),
                },
                packet = socket.recv_from(&mut buffer), if !answered => {
                    let Ok((length, peer)) = packet else { continue };
                    if peer.ip() == ip && answers(&buffer[..length], id, sequence) {
                        answered = true;
                        received += 1;
                        let ms = start.elapsed().as_secs_f64() * 1000.0;
                        let bytes = DATA + HEADER;
                        print(format!("{bytes} bytes from {ip}: icmp_seq={sequence} time={ms:.3} ms\r\n")).await;
                        if sequence == COUNT {
                            break;
                        }
                    }
                }
            }
        }
    }
    let lost = 100 * (COUNT - received) / COUNT;
    print(format!("{COUNT} packets transmitted, {received} received, {lost}% packet loss\r\n")).await;
    Ok(i32::from(received == 0))
}

fn open(interface: Option<&str>) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.bind_device(interface.map(str::as_bytes))?;
    socket.bind(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0).into())?;
    socket.set_nonblocking(true)?;
    // Tokio has no type for raw sockets; they are read and written like UDP sockets.
    Ok(UdpSocket::from_std(socket.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_right_checksum() {
        let packet = request(0x1234, 7);
        assert_eq!(checksum(&packet), 0);
        let mut answer = vec![0x45; 20];
        answer.extend(packet);
        answer[20] = 0;
        assert!(answers(&answer, 0x1234, 7));
        assert!(!answers(&answer, 0x1234, 8));
        assert!(!answers(&[], 1, 1));
    }
}
