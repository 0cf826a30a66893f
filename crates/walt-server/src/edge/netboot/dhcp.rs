//! DHCP on the bridge: `walt-netboot` decides, this keeps leases in the database, registers machines as
//! nodes, and sends.
//!
//! Requests are handled one after the other, so that two never get one address. What changes who has which
//! address is decided under [`App::decisions`], since `walt node create` gives addresses away too.

use crate::{
    actions::app::App,
    base::db::{LeaseRow, NodeRow, blocking},
    edge::netboot::{bootstrap, files},
    services::{network, nodes::hub::update_life},
};
use anyhow::{Context, Result, anyhow};
use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::UdpSocket;
use walt_core::{NodeFacts, registration};
use walt_netboot::dhcp::{
    Config, Destination, Lease, Loaders, Node, Outcome, Registration, Reply, Request, Saved, Server, boot,
    parse, wire::PACKET_MAX,
};
use walt_types::Model;

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
        let app = self.app.clone();
        let nodes = self.nodes()?;
        match self.server.handle(request, now(), &nodes, true) {
            Outcome::Ignore(why) => {
                tracing::debug!(mac = %request.mac, kind = ?request.kind, "DHCP: ignored: {why}");
                Ok(None)
            }
            Outcome::Answer { save: None, reply } => Ok(reply),
            Outcome::Answer { save: Some(Saved::Remove(mac)), reply } => {
                app.db().with(|c| LeaseRow::delete(c, mac))?;
                Ok(reply)
            }
            Outcome::Register(registration) => {
                let _decision = app.base().decide().await;
                if let Err(e) = register(&app, &registration) {
                    self.report_once(format!(
                        "a machine of model '{}' cannot be a node: {e:#}",
                        registration.model
                    ));
                }
                self.settle(request)
            }
            Outcome::Answer { save: Some(Saved::Put(_)), .. } => {
                let _decision = app.base().decide().await;
                self.settle(request)
            }
        }
    }

    /// Handles a request again, with what holds now that nobody else gives addresses away.
    fn settle(&mut self, request: &Request) -> Result<Option<Reply>> {
        let nodes = self.nodes()?;
        let Outcome::Answer { save, reply } = self.server.handle(request, now(), &nodes, false) else {
            return Ok(None);
        };
        match save {
            Some(Saved::Put(lease)) => self.keep(lease)?,
            Some(Saved::Remove(mac)) => self.app.db().with(|c| LeaseRow::delete(c, mac))?,
            None => {}
        }
        Ok(reply)
    }

    fn keep(&self, lease: Lease) -> Result<()> {
        self.app.db().transaction(|tx| LeaseRow::put(tx, &lease))?;
        blocking(|| network::lease_neighbour(self.app.config(), &lease))
    }

    fn nodes(&self) -> Result<Vec<Node>> {
        let node = |row: NodeRow| Node { mac: row.mac, ip: row.ip, name: row.facts.name.to_string() };
        Ok(self.app.db().with(NodeRow::all)?.into_iter().map(node).collect())
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

fn now() -> u64 {
    crate::base::time::now() as u64
}

/// Makes a machine a node, with the default image of its model.
fn register(app: &Arc<App>, registration: &Registration) -> Result<()> {
    let Registration { mac, ip, model, host_name } = registration;
    let image = default_image(app, model)?;
    let rows = app.db().with(NodeRow::all)?;
    let is_taken = |name: &walt_types::NodeName| {
        rows.iter().any(|r| r.facts.name.as_str().eq_ignore_ascii_case(name.as_str()))
    };
    let name = registration::automatic_name(host_name.as_deref(), *mac, is_taken);
    let node = NodeRow {
        mac: *mac,
        facts: NodeFacts { name, model: model.clone(), image, is_virtual: false },
        ip: *ip,
        uuid: crate::base::random::random_uuid(),
        life: walt_core::life::Life::default(),
    };
    app.db().transaction(|tx| -> Result<()> {
        LeaseRow::delete(tx, *mac)?;
        node.insert(tx)
    })?;
    blocking(|| network::node_neighbour(app.config(), &node))?;
    update_life(app.nodes(), *mac, |life| {
        life.start(crate::base::time::now());
        true
    })?;
    app.nodes().hub().signal();
    tracing::info!(name = %node.facts.name, %model, %mac, %ip, "new node");
    Ok(())
}

fn default_image(app: &App, model: &Model) -> Result<walt_types::ImageRef> {
    let image = walt_core::default_image_of(model);
    app.images().find(&image).map_err(|_| {
        anyhow!(
            "there is no image {image}: make it with 'walt-server default-image build {model}-default', then restart the machine"
        )
    })?;
    let models = app.images().models(&image)?;
    models
        .contains(model)
        .then_some(image.clone())
        .with_context(|| format!("the image {image} is not for it"))
}
