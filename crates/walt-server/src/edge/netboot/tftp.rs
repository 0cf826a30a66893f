//! TFTP on the bridge. `walt-netboot` has the protocol; this opens files, reads blocks, and keeps time.
//!
//! Each transfer has its own socket (its port identifies it, RFC 1350 §4) and its own thread, since it reads from the
//! disk and waits for one client. The socket is connected: packets from other addresses do not reach it, and "port
//! unreachable" reveals a client that is gone.
//!
//! Limits: [`TRANSFERS_MAX`] transfers, [`TRANSFERS_PER_CLIENT`] of one address; further requests are not answered,
//! and the client retries.

use crate::{
    actions::app::App,
    base::{config::Config, sockets::bound},
    edge::netboot::files,
    services::nodes::boots::Sending,
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
/// Transfers at once to one address: a boot loader uses one, U-Boot and the firmware of a Pi at most a few.
const TRANSFERS_PER_CLIENT: usize = 8;
/// Largest packet that is received from a client, in bytes.
const PACKET_MAX: usize = request::PACKET_MAX + 1;
/// Pause after an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// A transfer under way.
struct Running {
    request: Vec<u8>,
    /// Set by the transfer: the client has answered.
    has_begun: AtomicBool,
    /// Set by a newer request of the same client, which has abandoned this transfer.
    is_over: AtomicBool,
}

/// Transfers by the client's address and port.
#[derive(Default)]
struct Transfers(Mutex<HashMap<SocketAddr, Arc<Running>>>);

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Running>>> {
        // A panic cannot leave the map inconsistent.
        self.0.lock()
    }

    /// Registers a new transfer. None if there are too many, or if the request is a retry of one whose first packet
    /// is already on its way.
    fn start(&self, peer: SocketAddr, request: &[u8]) -> Option<Arc<Running>> {
        let mut running = self.lock();
        if let Some(old) = running.get(&peer) {
            if old.request == request && !old.has_begun.load(Ordering::Relaxed) {
                return None;
            }
            // A ROM that has abandoned a transfer silently may reuse its port.
            old.is_over.store(true, Ordering::Relaxed);
            running.remove(&peer);
        }
        let of_client = running.keys().filter(|other| other.ip() == peer.ip()).count();
        if running.len() >= TRANSFERS_MAX || of_client >= TRANSFERS_PER_CLIENT {
            tracing::debug!(%peer, "TFTP: too many transfers, ignoring a request");
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
                tracing::debug!(%peer, "TFTP: refused a request: {refusal}");
                let _ = socket.send_to(&error(refusal.code, refusal.message), peer).await;
                continue;
            }
        };
        let Some(running) = transfers.start(peer, packet) else { continue };
        let (app, all, own) = (app.clone(), transfers.clone(), running.clone());
        let thread = std::thread::Builder::new().name("tftp".into()).spawn(move || {
            let path = String::from_utf8_lossy(&request.path).into_owned();
            tracing::debug!(%peer, path, "TFTP: asked for");
            match transfer(&app, ip, peer, &request, &own) {
                Ok(text) => tracing::debug!(%peer, path, "TFTP: {text}"),
                Err(e) => tracing::warn!(%peer, path, "TFTP: {e:#}"),
            }
            all.end(peer, &own);
        });
        if let Err(e) = thread {
            tracing::warn!("TFTP: cannot start a thread for a transfer: {e}");
            transfers.end(peer, &running);
        }
    }
}

fn client_socket(config: &Config, peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(config, Type::DGRAM, 0)?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// Carries out one transfer; the text tells how it ended.
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
    // Its part in the record of the boot.
    let mut sending = Sending::begin(app.nodes(), ip, &request.path);
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
            Step::End(End::Complete) => {
                if let Some(sending) = &mut sending {
                    sending.sent(file.len());
                }
                return Ok(format!("{} bytes sent", file.len()));
            }
            Step::End(End::Client { code, message }) => {
                return Ok(format!("the client ended the transfer: {code} {message}"));
            }
            Step::End(End::Silent) => return Ok("the client does not answer".into()),
            Step::End(End::Nonsense(answer)) => {
                socket.send(&answer)?;
                return Ok("the client sent an unexpected packet".into());
            }
        }
        step = receive(&socket, &mut buffer, until, &mut transfer)?;
    }
    Ok("the client started another transfer".into())
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

/// A packet that could not be sent counts as lost. The reason is a full queue, or an ICMP error for an earlier
/// packet, which `receive` will see again if it persists.
fn tolerate(sent: io::Result<usize>) -> Result<()> {
    if let Err(e) = sent {
        tracing::debug!("TFTP: cannot send a packet: {e}");
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
        // The client has closed its port.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(Step::End(End::Silent)),
        Err(e) => Err(e).context("cannot receive from the client"),
    }
}
