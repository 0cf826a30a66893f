//! DHCP on the bridge: `walt-netboot` decides, this keeps leases in the database and sends.
//!
//! Requests are handled one after the other, so that two never get one address. What changes who has which
//! address is decided with a [`Decision`], since `walt node create` gives addresses away too.

use crate::{
    actions::{app::App, register_node::register_node},
    base::{
        db::{LeaseRow, NodeRow, blocking},
        state::Decision,
        time::now,
    },
    edge::netboot::{bootstrap, files},
    services::network,
};
use anyhow::{Result, bail};
use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::UdpSocket;
use walt_core::settings;
use walt_netboot::dhcp::{
    Config, Destination, Loaders, Node, Outcome, Plan, Reply, Request, Saved, Server, boot, parse,
    wire::PACKET_MAX,
};

/// Port of DHCP servers.
pub const PORT: u16 = 67;
/// Port of DHCP clients.
const CLIENT_PORT: u16 = 68;
/// Models and boot loaders whose absence is reported once only; more are reported each time.
const REPORTED_MAX: usize = 64;
/// Time without a try after an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever.
pub async fn serve(app: Arc<App>, socket: UdpSocket) {
    if let Err(e) = socket.set_broadcast(true) {
        tracing::error!("DHCP cannot broadcast: {e}");
        return;
    }
    let leases = match app.db().with(LeaseRow::all) {
        Ok(leases) => leases,
        Err(e) => {
            tracing::error!("DHCP cannot read its leases: {e:#}");
            return;
        }
    };
    let server = app.config().server_ip();
    let config = Config {
        server,
        prefix: app.config().network.walt_net.ip.prefix,
        loaders: loaders(),
        script: format!("http://{server}/boot/{}", bootstrap::NAME),
    };
    let mut service = Service { app, server: Server::new(config, leases), reported: HashSet::new() };
    let mut buffer = [0; PACKET_MAX + 1];
    loop {
        let length = match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => length,
            Err(e) => {
                tracing::debug!("DHCP: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let request = match parse(&buffer[..length]) {
            Ok(request) => request,
            Err(e) => {
                tracing::debug!("DHCP: a packet is ignored: {e}");
                continue;
            }
        };
        match service.handle(&request).await {
            Ok(Some(reply)) => send(&socket, &request, &reply).await,
            Ok(None) => {}
            Err(e) => {
                tracing::error!(mac = %request.mac, "DHCP: no answer, the client will ask again: {e:#}")
            }
        }
    }
}

/// Which boot loaders are installed.
fn loaders() -> Loaders {
    Loaders {
        bios: files::has_loader(files::BIOS_LOADER).then(|| files::BIOS_LOADER.to_owned()),
        uefi: files::has_loader(files::UEFI_LOADER).then(|| files::UEFI_LOADER.to_owned()),
    }
}

async fn send(socket: &UdpSocket, request: &Request, reply: &Reply) {
    let ip = match reply.to {
        Destination::Broadcast => Ipv4Addr::BROADCAST,
        Destination::Station(ip) => ip,
    };
    match socket.send_to(&reply.bytes, SocketAddr::new(ip.into(), CLIENT_PORT)).await {
        Ok(_) => tracing::debug!(mac = %request.mac, ip = %reply.ip, kind = ?reply.kind, "DHCP"),
        Err(e) => tracing::warn!(mac = %request.mac, "DHCP: cannot answer: {e}"),
    }
}

struct Service {
    app: Arc<App>,
    server: Server,
    reported: HashSet<String>,
}

impl Service {
    async fn handle(&mut self, request: &Request) -> Result<Option<Reply>> {
        if boot::needs_loader(request, &self.server.config().loaders) {
            let text = "a machine that boots by PXE needs a loader: install the Debian package ipxe and restart walt-server";
            self.report_once(text.to_owned());
        }
        let nodes = self.nodes()?;
        match self.server.plan(request, now() as u64, &nodes) {
            Plan::Reply(outcome) => self.carry_out(request, outcome, None),
            Plan::NeedsLock => {
                let app = self.app.clone();
                let decision = app.base().decide().await;
                // What holds now that nobody else gives addresses away.
                let mut nodes = self.nodes()?;
                if let Some(registration) = self.server.registration(request, now() as u64, &nodes) {
                    match register_node(&app, &registration, &decision) {
                        Ok(()) => nodes = self.nodes()?,
                        Err(e) => self.report_once(format!(
                            "a machine of model '{}' cannot be a node: {e:#}",
                            registration.model
                        )),
                    }
                }
                let outcome = self.server.settle(request, now() as u64, &nodes);
                self.carry_out(request, outcome, Some(&decision))
            }
        }
    }

    /// Keeps what changes on the disk; the reply may be sent then. A new lease needs the decision.
    fn carry_out(
        &self,
        request: &Request,
        outcome: Outcome,
        decision: Option<&Decision<'_>>,
    ) -> Result<Option<Reply>> {
        let (save, reply) = match outcome {
            Outcome::Ignore(why) => {
                tracing::debug!(mac = %request.mac, kind = ?request.kind, "DHCP: ignored: {why}");
                return Ok(None);
            }
            Outcome::Answer { save, reply } => (save, reply),
        };
        match (save, decision) {
            (None, _) => {}
            (Some(Saved::Remove(mac)), _) => self.app.db().with(|c| LeaseRow::delete(c, mac))?,
            (Some(Saved::Put(lease)), Some(_)) => {
                self.app.db().transaction(|tx| LeaseRow::put(tx, &lease))?;
                blocking(|| network::lease_neighbour(self.app.config(), &lease))?;
            }
            (Some(Saved::Put(lease)), None) => bail!("a lease of {} without the lock", lease.ip),
        }
        Ok(reply)
    }

    fn nodes(&self) -> Result<Vec<Node>> {
        let (rows, stored) = self.app.db().with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
        let node = |row: NodeRow| Node {
            mac: row.mac,
            ip: row.ip,
            name: row.facts.name.to_string(),
            secure: stored.get(&row.mac).is_some_and(settings::is_secure),
        };
        Ok(rows.into_iter().map(node).collect())
    }

    fn report_once(&mut self, text: String) {
        if self.reported.contains(&text) {
            return;
        }
        tracing::warn!("{text}");
        if self.reported.len() < REPORTED_MAX {
            self.reported.insert(text);
        }
    }
}
