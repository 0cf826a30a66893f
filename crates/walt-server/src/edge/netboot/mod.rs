//! Network boot: the services on walt-net for machines that have not mounted their root yet.
//!
//! ```text
//!  DHCP ──▶ loader (TFTP) ──▶ bootstrap.ipxe ──▶ start.ipxe … ──▶ kernel, initrd (HTTP)
//!    │                             └──────────── all of them by files::open ────────────┘
//!    └─ a machine that says it is a node is registered
//!  also: DNS for names of nodes, router advertisements for iPXE, which waits for one, and a search for other DHCP
//!  servers on the wire
//! ```
//! `walt-netboot` has the protocols; sockets, clock and database are here. Every socket is bound to the bridge. If
//! another program holds a port, the server reports it, records it in `ports_missing`, and runs without it: virtual
//! nodes that are started directly need none of these services.
//!
//! HTTP is [`crate::edge::web`], in which [`http`] is mounted.
//!
//! Limits: see each module.

pub mod boot_file;
pub mod bootstrap;
pub mod copies;
pub mod dhcp;
pub mod dns;
pub mod files;
pub mod http;
pub mod other_dhcp;
pub mod ra;
pub mod tftp;

use crate::{actions::app::App, base::sockets::bound};
use anyhow::{Context, Result};
use socket2::{Socket, Type};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The sockets that could be bound.
pub struct Sockets {
    dhcp: Option<Socket>,
    tftp: Option<Socket>,
    dns: Option<crate::edge::dns::Sockets>,
    ra: Option<ra::Socket>,
    other_dhcp: Option<other_dhcp::Socket>,
}

impl Sockets {
    /// Binds the sockets on the bridge; a failure is a warning.
    pub fn bind(app: &App) -> Self {
        dhcp::prepare(app);
        Self {
            dhcp: udp(app, dhcp::PORT, "DHCP", "machines that boot by their own firmware get no address"),
            tftp: udp(app, tftp::PORT, "TFTP", "machines that boot by their own firmware get no boot loader"),
            dns: crate::edge::dns::Sockets::bind_bridge(app),
            ra: ra::bind(app),
            other_dhcp: other_dhcp::bind(app),
        }
    }

    /// Serves on the sockets, each in a task.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub fn serve(self, app: &Arc<App>) -> Result<Vec<JoinHandle<()>>> {
        let mut tasks = Vec::new();
        if let Some(socket) = self.dhcp {
            tasks.push(tokio::spawn(dhcp::serve(app.clone(), runtime(socket)?)));
        }
        if let Some(socket) = self.tftp {
            tasks.push(tokio::spawn(tftp::serve(app.clone(), runtime(socket)?)));
        }
        if let Some(sockets) = self.dns {
            tasks.push(tokio::spawn(sockets.serve(app.clone())));
        }
        if let Some(socket) = self.ra {
            tasks.push(tokio::spawn(ra::serve(app.clone(), socket)));
        }
        if let Some(socket) = self.other_dhcp {
            tasks.push(tokio::spawn(other_dhcp::search(app.clone(), socket)));
        }
        Ok(tasks)
    }
}

/// The socket for use with tokio.
fn runtime(socket: Socket) -> Result<tokio::net::UdpSocket> {
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket.into()).context("cannot use the socket")
}

/// A UDP socket on the bridge, if its port is free; otherwise, `effect` describes the consequence.
fn udp(app: &App, port: u16, service: &str, effect: &str) -> Option<Socket> {
    let made = bound(app.config(), Type::DGRAM, port);
    made.inspect_err(|_| app.base().ports_missing().add(service, "udp", port, effect)).ok()
}
