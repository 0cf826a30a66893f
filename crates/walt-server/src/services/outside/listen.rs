//! Sockets of exposed ports.

use crate::base::{config::Config, ports};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The listening sockets of one port.
#[derive(Debug)]
pub struct Bound {
    port: u16,
    sockets: Vec<TcpListener>,
}

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program, or this server itself, uses it.
    #[error("cannot expose a port as {at}: {}", in_use(*holder_pid, holder))]
    InUse {
        /// The address and the port.
        at: String,
        /// The process; none if it cannot be found.
        holder_pid: Option<u32>,
        /// Its name.
        holder: String,
    },
    /// The machine has no such address.
    #[error("cannot expose a port as {at}: this machine has no address {}, which network.expose-on names", at.ip())]
    NoAddress {
        /// The address and the port.
        at: SocketAddr,
    },
    /// The configuration names no address.
    #[error("network.expose-on of the server's configuration is empty: no port can be exposed")]
    Forbidden,
    /// Something else.
    #[error("cannot expose a port as {at}: {error}")]
    Other {
        /// The address and the port.
        at: String,
        /// What the kernel said.
        error: io::Error,
    },
}

fn in_use(pid: Option<u32>, name: &str) -> String {
    match pid {
        Some(own) if own == std::process::id() => "the server uses that port itself".to_owned(),
        Some(pid) => format!("that port is held by {name}, process {pid}"),
        None => "that port is in use".to_owned(),
    }
}

impl Bound {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn again(&self) -> Result<Self, Error> {
        let sockets = self.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>();
        Ok(Self { port: self.port, sockets: sockets.map_err(|error| self.failed(error))? })
    }

    /// The sockets for the runtime.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn listeners(&self) -> Result<Vec<tokio::net::TcpListener>, Error> {
        let for_runtime = |socket: &TcpListener| tokio::net::TcpListener::from_std(socket.try_clone()?);
        self.sockets.iter().map(for_runtime).collect::<io::Result<_>>().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Other { at: format!("port {}", self.port), error }
    }
}

/// Listens on a port at the addresses of the configuration.
///
/// # Errors
/// It is in use, or an address is not there.
pub fn bind(config: &Config, port: u16) -> Result<Bound, Error> {
    let sockets = match &config.network.expose_on {
        // One socket for IPv4 and IPv6; connections to the address on walt-net are not served.
        None => match listener(Ipv6Addr::UNSPECIFIED.into(), port) {
            Err(e) if e.kind() != ErrorKind::AddrInUse => {
                vec![listener(Ipv4Addr::UNSPECIFIED.into(), port).map_err(|e| explain(None, port, e))?]
            }
            both => vec![both.map_err(|e| explain(None, port, e))?],
        },
        Some(none) if none.is_empty() => return Err(Error::Forbidden),
        Some(addresses) => addresses
            .iter()
            .map(|addr| listener(*addr, port).map_err(|e| explain(Some(*addr), port, e)))
            .collect::<Result<_, _>>()?,
    };
    Ok(Bound { port, sockets })
}

fn listener(addr: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address((addr, port).into()), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(addr, port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(addr: Option<IpAddr>, port: u16, error: io::Error) -> Error {
    let at = match addr {
        Some(addr) => SocketAddr::new(addr, port).to_string(),
        None => format!("port {port}"),
    };
    match (error.kind(), addr) {
        (ErrorKind::AddrInUse, _) => match ports::holder(port, "tcp") {
            Some((pid, holder)) => Error::InUse { at, holder_pid: Some(pid), holder },
            None => Error::InUse { at, holder_pid: None, holder: String::new() },
        },
        (ErrorKind::AddrNotAvailable, Some(addr)) => Error::NoAddress { at: SocketAddr::new(addr, port) },
        _ => Error::Other { at, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(expose_on: &str) -> Config {
        Config::parse(&format!("network: {{{expose_on}}}")).expect("a configuration")
    }

    #[test]
    fn a_busy_port_names_its_holder() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        for on in ["", "expose-on: [127.0.0.1]"] {
            let why = bind(&config(on), port).expect_err("busy").to_string();
            assert!(why.ends_with("the server uses that port itself"), "{why}");
        }
        drop(held);
        let bound = bind(&config("expose-on: [127.0.0.1, 127.0.0.2]"), port).expect("it is free");
        let at: Vec<String> = bound.sockets.iter().map(|s| s.local_addr().unwrap().to_string()).collect();
        assert_eq!(at, [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")]);
        assert!(bound.again().is_ok());
    }

    #[test]
    fn addresses_that_are_not_there() {
        let why = |on: &str| bind(&config(on), 8080).expect_err(on).to_string();
        let missing = "expose-on: [192.0.2.77]";
        assert!(why(missing).contains("192.0.2.77, which network.expose-on names"), "{}", why(missing));
        assert!(why("expose-on: []").contains("is empty"));
        let gone = |on: &str| Config::parse(&format!("network: {{{on}}}")).is_err();
        assert!(gone("expose-on: [192.168.183.1]") && gone("expose-on: [x]") && gone("expose-on: 127.0.0.1"));
    }

    #[test]
    fn who_holds_a_port() {
        assert_eq!(in_use(Some(1), "init"), "that port is held by init, process 1");
        assert_eq!(in_use(None, ""), "that port is in use");
    }
}
