//! TFTP on the bridge: `walt-netboot` decides, this opens files, reads blocks, and keeps time.
//!
//! Each transfer has a socket of its own (its port is its identity, RFC 1350 §4) and a thread, since it reads
//! a disk and waits for one client. Its socket is connected: packets of others do not reach it, and a client
//! that is gone is noticed by its "port unreachable".
//!
//! Limits: [`TRANSFERS_MAX`] transfers, [`TRANSFERS_PER_CLIENT`] of one address; a request beyond is not
//! answered, and the client asks again.

use crate::edge::netboot::files;
use crate::{
    actions::app::App,
    base::{config::Config, sockets::bound},
};
use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use socket2::Type;
use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use walt_netboot::tftp::{Block, End, Request, Send, Step, Transfer, code, data_header, error, request};

/// Port of TFTP servers.
pub const PORT: u16 = 69;
/// Transfers at once.
const TRANSFERS_MAX: usize = 256;
/// Transfers at once to one address: a boot loader has one, U-Boot and the firmware of a Pi at most a few.
const TRANSFERS_PER_CLIENT: usize = 8;
/// Largest packet of a client that is looked at, in bytes.
const PACKET_MAX: usize = request::PACKET_MAX + 1;
/// Time without a try after an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// One transfer that runs.
struct Running {
    request: Vec<u8>,
    /// Set by the transfer: the client has answered.
    has_begun: AtomicBool,
    /// Set by a newer request of the same client: nobody hears this transfer any more.
    is_over: AtomicBool,
}

/// Transfers by the client's address and port.
#[derive(Default)]
struct Transfers(Mutex<HashMap<SocketAddr, Arc<Running>>>);

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Running>>> {
        // The map is whole between any two of its own calls.
        self.0.lock()
    }

    /// Room for a new transfer. None if there is no room, or if this is a repetition of a request whose
    /// transfer has begun already: its first packet is on its way.
    fn start(&self, peer: SocketAddr, request: &[u8]) -> Option<Arc<Running>> {
        let mut running = self.lock();
        if let Some(old) = running.get(&peer) {
            if old.request == request && !old.has_begun.load(Ordering::Relaxed) {
                return None;
            }
            // A ROM that has left a transfer without a word uses its port again.
            old.is_over.store(true, Ordering::Relaxed);
            running.remove(&peer);
        }
        let of_client = running.keys().filter(|other| other.ip() == peer.ip()).count();
        if running.len() >= TRANSFERS_MAX || of_client >= TRANSFERS_PER_CLIENT {
            tracing::debug!(%peer, "TFTP: too many transfers, a request is not answered");
            return None;
        }
        let new = Arc::new(Running {
            request: request.to_vec(),
            has_begun: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        running.insert(peer, new.clone());
        Some(new)
    }

    fn end(&self, peer: SocketAddr, ended: &Arc<Running>) {
        let mut running = self.lock();
        if running.get(&peer).is_some_and(|r| Arc::ptr_eq(r, ended)) {
            running.remove(&peer);
        }
    }
}

/// Serves for ever.
pub async fn serve(app: Arc<App>, socket: tokio::net::UdpSocket) {
    let transfers = Arc::new(Transfers::default());
    let mut buffer = [0; PACKET_MAX];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                tracing::debug!("TFTP: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let packet = &buffer[..length];
        let IpAddr::V4(ip) = peer.ip() else { continue };
        let request = match request::parse(packet) {
            Ok(request) => request,
            Err(refusal) => {
                tracing::debug!(%peer, "TFTP: a request is refused: {refusal}");
                let _ = socket.send_to(&error(refusal.code, refusal.message), peer).await;
                continue;
            }
        };
        let Some(running) = transfers.start(peer, packet) else { continue };
        let (app, all, own) = (app.clone(), transfers.clone(), running.clone());
        let thread = std::thread::Builder::new().name("tftp".into()).spawn(move || {
            let path = String::from_utf8_lossy(&request.path).into_owned();
            match transfer(&app, ip, peer, &request, &own) {
                Ok(text) => tracing::debug!(%peer, path, "TFTP: {text}"),
                Err(e) => tracing::warn!(%peer, path, "TFTP: {e:#}"),
            }
            all.end(peer, &own);
        });
        if let Err(e) = thread {
            tracing::warn!("TFTP: no thread for a transfer: {e}");
            transfers.end(peer, &running);
        }
    }
}

fn client_socket(config: &Config, peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(config, Type::DGRAM, 0)?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// One transfer from its beginning to its end; how it ended.
fn transfer(
    app: &Arc<App>,
    ip: Ipv4Addr,
    peer: SocketAddr,
    request: &Request,
    own: &Running,
) -> Result<String> {
    let socket = client_socket(app.config(), peer).context("cannot open a socket for a transfer")?;
    let file = match files::open(app, ip, &request.path) {
        Ok(file) => file,
        Err(e) => {
            let (number, message) = match &e {
                files::FileError::NotFound => (code::NOT_FOUND, e.to_string()),
                // The reason is for the server's log.
                files::FileError::Failed(_) => (code::OTHER, "The server cannot read this file.".into()),
            };
            socket.send(&error(number, &message))?;
            return match e {
                files::FileError::NotFound => Ok("no such file".into()),
                files::FileError::Failed(reason) => Err(reason),
            };
        }
    };
    let (mut transfer, first) = Transfer::new(request.options, file.len());
    let read = |block: &Block| -> io::Result<Vec<u8>> {
        let mut packet = vec![0; data_header(0).len() + block.length];
        packet[..4].copy_from_slice(&data_header(block.number));
        let count = file.read_at(&mut packet[4..], block.offset)?;
        if count < block.length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(packet) }
    };
    let mut step = Step::Send(first);
    let mut until = Instant::now();
    let mut buffer = [0; PACKET_MAX];
    while !own.is_over.load(Ordering::Relaxed) {
        own.has_begun.store(transfer.has_begun(), Ordering::Relaxed);
        match step {
            Step::Send(what) => {
                send(&socket, &what, &read).inspect_err(|_| {
                    let _ = socket.send(&error(code::OTHER, "The server cannot read this file."));
                })?;
                until = Instant::now() + transfer.wait();
            }
            Step::Wait => {}
            Step::End(End::Complete) => return Ok(format!("{} bytes sent", file.len())),
            Step::End(End::Client { code, message }) => {
                return Ok(format!("the client ends it: {code} {message}"));
            }
            Step::End(End::Silent) => return Ok("the client does not answer any more".into()),
            Step::End(End::Nonsense(answer)) => {
                socket.send(&answer)?;
                return Ok("the client sent what is no part of a transfer".into());
            }
        }
        step = receive(&socket, &mut buffer, until, &mut transfer)?;
    }
    Ok("the client began another transfer".into())
}

fn send(socket: &UdpSocket, what: &Send, read: &dyn Fn(&Block) -> io::Result<Vec<u8>>) -> Result<()> {
    match what {
        Send::Packet(packet) => tolerate(socket.send(packet)),
        Send::Blocks(blocks) => {
            for block in blocks {
                let packet = read(block).context("cannot read a boot file")?;
                tolerate(socket.send(&packet))?;
            }
            Ok(())
        }
    }
}

/// A packet that could not be sent is a lost one: a full queue, or an answer from the network to an earlier
/// packet, of which `receive` is told again if it lasts.
fn tolerate(sent: io::Result<usize>) -> Result<()> {
    if let Err(e) = sent {
        tracing::debug!("TFTP: a packet was not sent: {e}");
    }
    Ok(())
}

fn receive(socket: &UdpSocket, buffer: &mut [u8], until: Instant, transfer: &mut Transfer) -> Result<Step> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(transfer.timeout());
    }
    socket.set_read_timeout(Some(left))?;
    match socket.recv(buffer) {
        Ok(length) => Ok(transfer.packet(&buffer[..length])),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(transfer.timeout()),
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Step::Wait),
        // Its port is closed: the client is gone.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(Step::End(End::Silent)),
        Err(e) => Err(e).context("a transfer's socket fails"),
    }
}
