//! Sockets that only hear walt-net (`SO_BINDTODEVICE`, socket(7)).

use crate::base::{config::Config, ports};
use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;

/// A socket that only hears walt-net (`SO_BINDTODEVICE`, socket(7)), broadcasts too.
pub fn bound(config: &Config, kind: Type, port: u16) -> std::io::Result<Socket> {
    bound_at(config, kind, Ipv4Addr::UNSPECIFIED, port)
}

/// A socket that only hears walt-net, at one address.
pub fn bound_at(config: &Config, kind: Type, addr: Ipv4Addr, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(config.bridge().as_bytes()))?;
    socket.bind(&SocketAddr::new(addr.into(), port).into())?;
    Ok(socket)
}

/// A listener that only hears walt-net.
///
/// # Errors
/// Who holds the port.
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
