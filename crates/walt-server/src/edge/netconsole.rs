//! Messages of the kernels of nodes by UDP (netconsole, Linux `Documentation/networking/netconsole.rst`).
//!
//! Two formats, told apart by packet:
//! * plain: text of the kernel log, cut anywhere. Lines are put together again; they have the time of their arrival.
//! * extended (`netconsole=+…`): `<level>,<number>,<microseconds since boot>,<flags>[,ncfrag=<offset>/<bytes>];<text>` and
//!   lines with a space first, of properties, which are left out. A line has the kernel's own time: the clock of a boot is
//!   placed so that its fastest message took no time.
//!
//! Datagrams of machines that are not nodes are dropped, and so are those that the store has no room for: a kernel does not
//! wait.

use crate::{
    actions::app::App,
    base::{db::NodeRow, sockets::bound, time},
    services::logs::{Logs, Stream},
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UdpSocket, time::Instant};
use walt_logs::Mode;

/// The port.
pub const PORT: u16 = 12342;
/// Name of the stream.
const STREAM: &str = "netconsole";
/// Largest datagram.
const DATAGRAM_MAX: usize = 64 * 1024;
/// Longest line, in bytes; a longer one is stored in parts.
const LINE_MAX: usize = 16 * 1024;
/// How long the rest of a line, or the other fragments of a message, may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Consoles that are followed at once; the one that was silent the longest is forgotten first.
const CONSOLES_MAX: usize = 4096;
/// A clock of a boot that is this far off belongs to an earlier boot, in microseconds.
const CLOCK_MAX: i64 = 2_000_000;

/// A line, and its time in microseconds since 1970.
type Line = (i64, Vec<u8>);

/// The console of one node.
struct Console {
    /// A line without its end, or the fragments of a message.
    rest: Vec<u8>,
    /// Time of the message whose fragments are gathered.
    rest_at: Option<i64>,
    heard: Instant,
    /// When the kernel's clock was 0, in microseconds since 1970.
    booted: Option<i64>,
}

impl Console {
    fn new() -> Self {
        Self { rest: Vec::new(), rest_at: None, heard: Instant::now(), booted: None }
    }

    /// The lines that a datagram completes.
    fn receive(&mut self, datagram: &[u8], now: i64) -> Vec<Line> {
        self.heard = Instant::now();
        let mut lines = Vec::new();
        if let Some(message) = extended(datagram) {
            let at = self.time_of(message.micros, now);
            match message.fragment {
                None => {
                    self.flush(now, &mut lines);
                    lines.extend(message.text.split(|b| *b == b'\n').map(|line| (at, line.to_vec())));
                }
                Some((offset, total)) => {
                    if offset == 0 || offset != self.rest.len() {
                        self.flush(now, &mut lines);
                    }
                    self.rest_at = Some(at);
                    self.rest.extend_from_slice(message.text);
                    if self.rest.len() >= total.min(LINE_MAX) {
                        self.flush(now, &mut lines);
                    }
                }
            }
            return lines;
        }
        for part in datagram.split_inclusive(|b| *b == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) => {
                    self.rest.extend_from_slice(end);
                    lines.push((now, std::mem::take(&mut self.rest)));
                }
                None => self.rest.extend_from_slice(part),
            }
            if self.rest.len() >= LINE_MAX {
                self.flush(now, &mut lines);
            }
        }
        lines
    }

    /// What waits for more that does not come.
    fn flush(&mut self, now: i64, lines: &mut Vec<Line>) {
        let at = self.rest_at.take().unwrap_or(now);
        if !self.rest.is_empty() {
            lines.push((at, std::mem::take(&mut self.rest)));
        }
    }

    fn time_of(&mut self, micros: i64, now: i64) -> i64 {
        let boot = now.saturating_sub(micros);
        let known = self.booted.filter(|known| boot.abs_diff(*known) <= CLOCK_MAX as u64);
        let booted = known.map_or(boot, |known| known.min(boot));
        self.booted = Some(booted);
        booted.saturating_add(micros)
    }
}

struct Extended<'a> {
    micros: i64,
    fragment: Option<(usize, usize)>,
    text: &'a [u8],
}

/// A message in the extended format.
fn extended(datagram: &[u8]) -> Option<Extended<'_>> {
    let at = memchr::memchr(b';', datagram)?;
    let head = std::str::from_utf8(&datagram[..at]).ok()?;
    let mut words = head.split(',');
    let (level, number, micros, _flags) = (words.next()?, words.next()?, words.next()?, words.next()?);
    level.parse::<u32>().ok()?;
    number.parse::<u64>().ok()?;
    let micros = micros.parse().ok()?;
    let fragment = words.find_map(|word| {
        let (offset, total) = word.strip_prefix("ncfrag=")?.split_once('/')?;
        Some((offset.parse().ok()?, total.parse().ok()?))
    });
    let body = &datagram[at + 1..];
    let text = match fragment {
        Some(_) => body,
        None => {
            let end = memchr::memmem::find(body, b"\n ").unwrap_or(body.len());
            body[..end].strip_suffix(b"\n").unwrap_or(&body[..end])
        }
    };
    Some(Extended { micros, fragment, text })
}

/// Receives for ever; `None` if the port is taken, which the status of the server says.
pub fn serve(app: &Arc<App>) -> Option<impl Future<Output = ()> + Send + 'static> {
    let socket = bound(app.config(), socket2::Type::DGRAM, PORT).and_then(|socket| {
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into())
    });
    let socket = match socket {
        Ok(socket) => socket,
        Err(_) => {
            let effect = "messages of the kernels of nodes are not logged";
            app.base().ports_missing().add("netconsole", "udp", PORT, effect);
            return None;
        }
    };
    Some(receive(app.clone(), socket))
}

async fn receive(app: Arc<App>, socket: UdpSocket) {
    let mut consoles: HashMap<Ipv4Addr, Console> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
        let now = time::now_micros();
        match received {
            Ok(Ok((length, from))) => {
                let IpAddr::V4(ip) = from.ip() else { continue };
                if consoles.len() >= CONSOLES_MAX && !consoles.contains_key(&ip) {
                    let oldest = consoles.iter().min_by_key(|(_, c)| c.heard).map(|(ip, _)| *ip);
                    oldest.map(|ip| consoles.remove(&ip));
                }
                let lines = consoles.entry(ip).or_insert_with(Console::new).receive(&buffer[..length], now);
                store(&app, ip, lines).await;
            }
            Ok(Err(e)) => {
                tracing::debug!("netconsole: {e}");
                tokio::time::sleep(PATIENCE).await;
            }
            Err(_) => {}
        }
        for (ip, console) in consoles.iter_mut().filter(|(_, c)| !c.rest.is_empty()) {
            if console.heard.elapsed() >= PATIENCE {
                let mut lines = Vec::new();
                console.flush(now, &mut lines);
                store(&app, *ip, lines).await;
            }
        }
    }
}

async fn store(app: &App, ip: Ipv4Addr, lines: Vec<Line>) {
    let logs: &Logs = app.logs();
    let node = app.db().with(|c| NodeRow::by_ip(c, ip)).ok().flatten();
    let Some(node) = node.filter(|_| !lines.is_empty()) else { return };
    let Ok(mut stream): Result<Stream, _> = logs.stream(node.mac, STREAM, Mode::Line) else { return };
    for (at, line) in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        stream.push(logs, Some(at), line);
    }
    if let Err(e) = logs.begin_append(stream.take(), None).await {
        tracing::debug!("netconsole: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: Vec<Line>) -> Vec<(i64, String)> {
        lines.into_iter().map(|(at, line)| (at, String::from_utf8(line).unwrap())).collect()
    }

    #[test]
    fn plain_messages_are_put_together() {
        let mut console = Console::new();
        assert_eq!(text(console.receive(b"[    0.0] Linux ver", 10)), []);
        assert_eq!(
            text(console.receive(b"sion 6\nsecond\nthi", 11)),
            [(11, "[    0.0] Linux version 6".into()), (11, "second".into())]
        );
        let mut lines = Vec::new();
        console.flush(12, &mut lines);
        assert_eq!(text(lines), [(12, "thi".into())]);
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(console.receive(&long, 13)[0].1.len(), LINE_MAX + 1);
    }

    #[test]
    fn extended_messages_have_the_time_of_the_kernel() {
        let mut console = Console::new();
        let packet = b"6,416,1000000,-;eth0: link up\n SUBSYSTEM=pci\n DEVICE=+pci:0\n";
        assert_eq!(text(console.receive(packet, 50_000_000)), [(50_000_000, "eth0: link up".into())]);
        // One that took longer, and one that took less: the clock is placed by the fastest one.
        assert_eq!(text(console.receive(b"6,417,2000000,-;a\n", 51_300_000)), [(51_000_000, "a".into())]);
        assert_eq!(text(console.receive(b"6,418,3000000,-;b", 51_900_000)), [(51_900_000, "b".into())]);
        assert_eq!(text(console.receive(b"6,419,4000000,-;c", 53_000_000)), [(52_900_000, "c".into())]);
        // Another boot.
        assert_eq!(text(console.receive(b"6,1,0,-;d", 90_000_000)), [(90_000_000, "d".into())]);
        // Fragments.
        assert_eq!(text(console.receive(b"6,2,10,-,ncfrag=0/6;abc", 90_000_010)), []);
        assert_eq!(
            text(console.receive(b"6,2,10,-,ncfrag=3/6;def", 90_000_020)),
            [(90_000_010, "abcdef".into())]
        );
        // Text that only looks like it.
        assert_eq!(text(console.receive(b"6,a,10,-;x\n", 7)), [(7, "6,a,10,-;x".into())]);
    }
}
