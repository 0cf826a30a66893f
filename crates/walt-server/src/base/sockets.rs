//! Sockets bound to the bridge of walt-net, and listeners on other addresses of the machine.

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
    listen_at(config, Ipv4Addr::UNSPECIFIED, port, what)
}

/// A listener that is bound to the bridge and to one address.
///
/// # Errors
/// The port cannot be bound; the error names its holder.
pub fn listen_at(config: &Config, addr: Ipv4Addr, port: u16, what: &str) -> Result<TcpListener> {
    let make = || {
        let socket = bound_at(config, Type::STREAM, addr, port)?;
        socket.listen(BACKLOG)?;
        Ok::<_, std::io::Error>(socket.into())
    };
    make().with_context(|| {
        let at = SocketAddr::new(addr.into(), port);
        format!(
            "{what} cannot listen on TCP port {port} of {}: {}",
            config.bridge(),
            ports::holder_text(at, "tcp")
        )
    })
}

/// A listener on an address of this machine, which it may get later (`IP_FREEBIND`, ip(7)), by DHCP, say.
///
/// # Errors
/// The port cannot be bound.
pub fn listen_anywhere(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            // IPv4 has an address of its own.
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
