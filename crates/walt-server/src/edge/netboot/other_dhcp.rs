//! Looks for other DHCP servers on the wire: a node that asks one of them boots something else, or nothing.
//!
//! A question is sent at the start, when the cable is plugged in, and every [`INTERVAL`]. Virtual nodes cannot answer
//! (`walt_core::firewall`), so that a platform without a cable is not searched.

use crate::{
    actions::app::App,
    services::{self, network},
};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};
use walt_api::DhcpServer;
use walt_sys::net::packet::{IPV4, PacketSocket};
use walt_types::Mac;

/// The socket.
pub type Socket = PacketSocket;

/// Time between two searches.
const INTERVAL: Duration = Duration::from_secs(600);

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
        let (own, mac) = (app.config().server_ip(), network::bridge_mac(app.config()));
        match services::other_dhcp::search(&socket, mac, own).await {
            Ok(found) => report(&app, found),
            Err(e) => tracing::debug!("search for other DHCP servers: {e:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = app.base().wire().connected() => {}
        }
    }
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
