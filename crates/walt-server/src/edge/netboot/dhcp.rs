//! DHCP on the bridge: packets in and out. [`crate::actions::dhcp`] handles what is in them.

use crate::{
    actions::{
        app::App,
        dhcp::{Known, handle},
    },
    base::{
        db::{LeaseRow, NodeRow},
        time,
    },
    edge::netboot::{bootstrap, files},
    services::nodes::{boots, hub::update_life},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::UdpSocket;
use walt_netboot::dhcp::{
    Config, Destination, Loaders, Reply, Request, Server, boot, parse, wire::PACKET_MAX,
};

/// Port of DHCP servers.
pub const PORT: u16 = 67;
/// Port of DHCP clients.
const CLIENT_PORT: u16 = 68;
/// Time without a try after an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes the server that gives addresses away, by DHCP or by `walt-dhcp-event`.
pub fn prepare(app: &App) {
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
        root: format!("http://{server}/boot/"),
    };
    app.devices().set_dhcp(Server::new(config, leases));
}

/// Serves for ever.
pub async fn serve(app: Arc<App>, socket: UdpSocket) {
    if let Err(e) = socket.set_broadcast(true) {
        tracing::error!("DHCP cannot broadcast: {e}");
        return;
    }
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
        // Nobody waits for the record of a boot.
        if let Err(e) = boot_asks(&app, &request) {
            tracing::warn!(mac = %request.mac, "DHCP: the begin of a boot is not recorded: {e:#}");
        }
        match handle(&app, &request, &Known::default()).await {
            Ok(Some(reply)) => {
                if reply.gives(reply.ip) {
                    note_request(&app, &request, true);
                }
                if let boot::Class::Board(board) = boot::class(&request) {
                    // It may use the address without asking for it.
                    app.nodes().boards().offered(reply.ip, board.model);
                }
                send(&socket, &request, &reply).await;
            }
            Ok(None) => {}
            Err(e) => {
                tracing::error!(mac = %request.mac, "DHCP: no answer, the client will ask again: {e:#}")
            }
        }
    }
}

/// Whether it is the firmware of a machine that asks, and not a boot loader; none if it is neither.
fn is_firmware(request: &Request) -> Option<bool> {
    match boot::class(request) {
        boot::Class::Board(_) | boot::Class::Firmware(..) | boot::Class::Ipxe => Some(true),
        boot::Class::Node(_) => Some(false),
        boot::Class::Other => None,
    }
}

/// Records that a machine which boots asks for an address; a node's firmware begins a boot by this.
fn boot_asks(app: &App, request: &Request) -> anyhow::Result<()> {
    if is_firmware(request) == Some(true)
        && let Some(node) = app.db().with(|c| NodeRow::by_mac(c, request.mac))?
        && node.life.clone().powers_on(time::now())
    {
        update_life(app.nodes(), request.mac, |life| life.powers_on(time::now()))?;
    }
    note_request(app, request, false);
    Ok(())
}

fn note_request(app: &App, request: &Request, answered: bool) {
    if let Some(rom) = is_firmware(request) {
        let now = time::now();
        boots::note(app.nodes(), request.mac, |record| record.asks_for_address(rom, answered, now));
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
