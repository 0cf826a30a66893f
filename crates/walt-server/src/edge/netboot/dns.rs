//! DNS for nodes: the names of the platform from the database, the rest from the server's own resolver.
//!
//! Forwarding is in [`crate::edge::dns`]. The zone is a query to the database; a full DNS server, with cache, zone
//! files and transfers, is not needed.

use crate::{actions::app::App, base::db::NodeRow};
use std::net::Ipv4Addr;
use walt_netboot::dns::{Names, Network, Verdict, answer};

/// Names in the database.
struct Nodes<'a>(&'a App);

impl Nodes<'_> {
    fn get(
        &self,
        get: impl FnOnce(&rusqlite::Connection) -> anyhow::Result<Option<NodeRow>>,
    ) -> Option<NodeRow> {
        self.0.db().with(get).inspect_err(|e| tracing::error!("DNS: {e:#}")).ok().flatten()
    }
}

impl Names for Nodes<'_> {
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        Some(self.get(|c| NodeRow::by_name(c, name))?.ip)
    }
    fn name(&self, ip: Ipv4Addr) -> Option<String> {
        Some(self.get(|c| NodeRow::by_ip(c, ip))?.facts.name.to_string())
    }
}

/// Decides whether to answer, forward or drop a query.
pub fn decide(app: &App, query: &[u8]) -> Verdict {
    let network =
        Network { server: app.config().server_ip(), prefix: app.config().network.walt_net.ip.prefix };
    answer(query, network, &Nodes(app))
}
