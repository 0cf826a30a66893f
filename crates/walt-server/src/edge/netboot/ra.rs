//! Answers router solicitations: walt-net has no router. See [`walt_netboot::ra`].
//!
//! IPv6 is disabled on the bridge, so this uses a packet socket. Each solicitation gets one answer, sent to its
//! station only.

use crate::{actions::app::App, services::network};
use std::{sync::Arc, time::Duration};
use walt_netboot::ra;
use walt_sys::net::packet::{IPV6, PacketSocket};

/// The socket.
pub type Socket = PacketSocket;

/// Pause after an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket on the bridge. Without it, iPXE waits for some seconds at each boot.
pub fn bind(app: &App) -> Option<Socket> {
    PacketSocket::open(app.config().bridge(), IPV6)
        .inspect_err(|e| tracing::warn!("{e}; machines that boot by iPXE wait for a router"))
        .ok()
}

/// Serves for ever.
pub async fn serve(app: Arc<App>, socket: Socket) {
    let bridge = network::bridge_mac(app.config());
    let mut buffer = [0; ra::PACKET_MAX + 1];
    loop {
        match socket.receive(&mut buffer).await {
            Ok((length, station)) => {
                let Some(source) = ra::solicitation(&buffer[..length]) else { continue };
                if let Err(e) = socket.send(&ra::advertisement(bridge, source), station) {
                    tracing::debug!("router advertisement: {e}");
                }
            }
            Err(e) => {
                tracing::debug!("router solicitations: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
