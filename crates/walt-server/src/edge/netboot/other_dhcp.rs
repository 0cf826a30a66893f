//! Looks for other DHCP servers on the wire: a node that asks one of them boots something else, or nothing.
//!
//! A question is sent at the start, when the cable is plugged in, and every [`INTERVAL`]. Virtual nodes cannot answer
//! (`walt_core::firewall`), so that a platform without a cable is not searched.

use crate::{actions::app::App, base::random::random, services::network};
use anyhow::Result;
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};
use walt_api::DhcpServer;
use walt_netboot::dhcp::probe;
use walt_sys::net::packet::{BROADCAST, IPV4, PacketSocket};
use walt_types::Mac;

/// The socket.
pub type Socket = PacketSocket;

/// Time between two searches.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long answers are waited for: servers that look whether an address is free first take some seconds.
const PATIENCE: Duration = Duration::from_secs(6);
/// Questions of one search, since a packet may be lost; the patience is for each of them.
const QUESTIONS: usize = 2;
/// Servers that are reported at most.
const SERVERS_MAX: usize = 16;

/// Opens the socket on the bridge, if there is a cable.
pub fn bind(app: &App) -> Option<Socket> {
    app.config().network.walt_net.raw_device.as_ref()?;
    PacketSocket::open(app.config().bridge(), IPV4)
        .inspect_err(|e| tracing::warn!("{e}; other DHCP servers are not searched for"))
        .ok()
}

/// Searches for ever.
pub async fn search(app: Arc<App>, socket: Socket) {
    loop {
        match once(&app, &socket).await {
            Ok(found) => report(&app, found),
            Err(e) => tracing::debug!("search for other DHCP servers: {e:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = app.base().wire().connected() => {}
        }
    }
}

/// All servers that answer now, with their Ethernet addresses.
async fn once(app: &App, socket: &Socket) -> Result<BTreeMap<Ipv4Addr, Mac>> {
    let (own, mac) = (app.config().server_ip(), network::bridge_mac(app.config()));
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

fn report(app: &App, found: BTreeMap<Ipv4Addr, Mac>) {
    let servers: Vec<DhcpServer> =
        found.into_iter().map(|(ip, mac)| DhcpServer { ip: ip.to_string(), mac: mac.to_string() }).collect();
    let before = app.base().wire().set_servers(servers.clone());
    for server in servers.iter().filter(|s| !before.contains(s)) {
        tracing::error!(
            "another DHCP server answers on walt-net, at {} ({}): nodes may boot from it instead of this server; remove it, or separate the networks",
            server.ip,
            server.mac
        );
    }
    for server in before.iter().filter(|s| !servers.contains(s)) {
        tracing::info!("the other DHCP server at {} ({}) does not answer any more", server.ip, server.mac);
    }
}
