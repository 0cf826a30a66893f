//! One search for other DHCP servers on an interface: a question, and who answers it.
//!
//! The server searches again and again (`edge::netboot::other_dhcp`); `walt-server setup` searches once, before a
//! server runs.

use crate::base::random::random;
use anyhow::Result;
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};
use walt_netboot::dhcp::probe;
use walt_sys::net::packet::{BROADCAST, PacketSocket};
use walt_types::Mac;

/// How long answers are waited for: servers that look whether an address is free first take some seconds.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// Questions of one search, since a packet may be lost; the patience is for each of them.
pub const QUESTIONS: usize = 2;
/// Servers that are reported at most.
const SERVERS_MAX: usize = 16;

/// All servers that answer now, with their Ethernet addresses; `own`, the address of this server, is not one of them. The
/// question comes from `mac`.
///
/// # Errors
/// The socket cannot be used.
pub async fn search(socket: &PacketSocket, mac: Mac, own: Ipv4Addr) -> Result<BTreeMap<Ipv4Addr, Mac>> {
    let mut found = BTreeMap::new();
    let mut buffer = [0; probe::PACKET_MAX];
    for _ in 0..QUESTIONS {
        let xid = u32::from_be_bytes(random());
        socket.send(&probe::discover(mac, xid), BROADCAST)?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Ok(received) = tokio::time::timeout_at(deadline, socket.receive(&mut buffer)).await {
            let (length, from) = received?;
            let server = probe::offer(&buffer[..length], xid).filter(|server| *server != own);
            if let Some(server) = server.filter(|_| found.len() < SERVERS_MAX) {
                found.insert(server, Mac(from));
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}
