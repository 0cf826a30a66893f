//! A machine that the server did not start and knows as a node: what tests send to the server comes from there.

use crate::{Netns, Station, TestServer};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

/// Port of the node link and of log lines.
const LINK_PORT: u16 = 12347;
/// How long the server may take to accept a connection and to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Such a machine: a namespace on the server's bridge.
pub struct Registered {
    /// Where its programs run.
    pub netns: Netns,
    /// Its address on the server's network.
    pub ip: Ipv4Addr,
    server: Ipv4Addr,
}

impl Registered {
    /// Makes the server know a node of this name whose address ends with `number`, and plugs it in.
    ///
    /// # Panics
    /// If the server refuses it, or the namespace cannot be made (root is needed).
    pub fn plug(server: &TestServer, name: &str, number: u8) -> Self {
        let [a, b, c, _] = server.address().octets();
        let (ip, mac) = (Ipv4Addr::new(a, b, c, number), format!("52:54:00:57:50:{number:02x}"));
        let address = ip.to_string();
        let words = ["dhcp-event", "commit", "--force-name", "walt.node.pc-x86-64", "", &address, &mac, name];
        let made = server.server_command(&[&words[..], &["0", "unknown"]].concat()).output();
        let made = made.expect("walt-server can be started");
        assert!(made.status.success(), "the node {name} is refused: {made:?}");
        let netns = Netns::new();
        netns.plug(None, &server.bridge(), None, Station { mac: Some(&mac), ip, prefix: 24 });
        Self { netns, ip, server: server.address() }
    }

    /// A machine that the server does not know, whose address ends with `number`.
    ///
    /// # Panics
    /// If the namespace cannot be made (root is needed).
    pub fn stranger(server: &TestServer, number: u8) -> Self {
        let [a, b, c, _] = server.address().octets();
        let (netns, ip) = (Netns::new(), Ipv4Addr::new(a, b, c, number));
        netns.plug(None, &server.bridge(), None, Station { mac: None, ip, prefix: 24 });
        Self { netns, ip, server: server.address() }
    }

    /// A connection to the port of the node link; none while the server is away.
    pub fn connect(&self) -> Option<TcpStream> {
        let at = (self.server, LINK_PORT).into();
        let stream = self.netns.inside(|| TcpStream::connect_timeout(&at, ANSWER_LIMIT)).ok()?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
        Some(stream)
    }

    /// Sends log lines as tools of existing images do, and waits until the server has closed the connection: they can be
    /// read, but may not be on its disk yet. What follows the end of the stream is not read by the server.
    ///
    /// # Panics
    /// The server is away, or says something.
    pub fn send_log(&self, stream: &str, mode: &str, lines: &[u8]) {
        let mut connection = self.connect().expect("the server accepts the connection");
        let head = format!("REQ_NEW_INCOMING_LOGS\n{stream}\n{mode}\n");
        // A server that closes the connection at once resets it if there was more to read.
        let _ = connection.write_all(&[head.as_bytes(), lines].concat());
        let _ = connection.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let read = connection.read_to_end(&mut rest);
        let closed = read.map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |_| true);
        assert!(closed, "the server did not close the connection within {ANSWER_LIMIT:?}");
        assert!(rest.is_empty(), "the server said {}", rest.escape_ascii());
    }

    /// Sends one line.
    ///
    /// # Panics
    /// As [`Registered::send_log`].
    pub fn log_line(&self, stream: &str, line: &str) {
        self.send_log(stream, "NO_TIMESTAMPS", format!("{line}\nCLOSE\n").as_bytes());
    }
}
