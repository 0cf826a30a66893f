//! Sockets bound to the bridge of walt-net.

use crate::base::{config::Config, ports};
use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;

/// A socket that is bound to the bridge (`SO_BINDTODEVICE`, socket(7)) and receives broadcasts too.
pub fn bound(config: &Config, kind: Type, port: u16) -> std::io::Result<Socket> {
    bound_at(config, kind, Ipv4Addr::UNSPECIFIED, port)
}

/// A socket that is bound to the bridge and to one address.
pub fn bound_at(config: &Config, kind: Type, addr: Ipv4Addr, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(config.bridge().as_bytes()))?;
    socket.bind(&SocketAddr::new(addr.into(), port).into())?;
    Ok(socket)
}

/// A listener that is bound to the bridge.
///
/// # Errors
/// The port cannot be bound; the error names its holder.
pub fn listen(config: &Config, port: u16, what: &str) -> Result<TcpListener> {
    let make = || {
        let socket = bound(config, Type::STREAM, port)?;
        socket.listen(BACKLOG)?;
        Ok::<_, std::io::Error>(socket.into())
    };
    make().with_context(|| {
        let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        format!(
            "{what} cannot listen on TCP port {port} of {}: {}",
            config.bridge(),
            ports::holder_text(at, "tcp")
        )
    })
}
