//! DNS for nodes: the names of nodes and devices from the database, the rest from the server's own resolver.
//!
//! Forwarding is in [`crate::edge::dns`]. The zone is a query to the database; a full DNS server, with cache, zone
//! files and transfers, is not needed.

use crate::{
    actions::app::App,
    base::db::{DeviceRow, NodeRow},
};
use rusqlite::Connection;
use std::net::Ipv4Addr;
use walt_netboot::dns::{Names, Network, Verdict, answer};

/// Names in the database. A node is found before a device: it has taken its address over.
struct Known<'a>(&'a App);

impl Known<'_> {
    fn get<T>(&self, get: impl FnOnce(&Connection) -> anyhow::Result<Option<T>>) -> Option<T> {
        self.0.db().with(get).inspect_err(|e| tracing::error!("DNS: {e:#}")).ok().flatten()
    }
}

impl Names for Known<'_> {
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let node = self.get(|c| NodeRow::by_name(c, name)).map(|node| node.ip);
        node.or_else(|| self.get(|c| DeviceRow::by_name(c, name))?.ip)
    }
    fn name(&self, ip: Ipv4Addr) -> Option<String> {
        let node = self.get(|c| NodeRow::by_ip(c, ip)).map(|node| node.facts.name);
        let name = node.or_else(|| self.get(|c| DeviceRow::by_ip(c, ip)).map(|device| device.name));
        name.map(|name| name.to_string())
    }
}

/// Decides whether to answer, forward or drop a query.
pub fn decide(app: &App, query: &[u8]) -> Verdict {
    let network =
        Network { server: app.config().server_ip(), prefix: app.config().network.walt_net.ip.prefix };
    answer(query, network, &Known(app))
}
