//! What bounds the server's memory and connections, from outside: who asks for more is refused, and others do not
//! notice. Those of NFS are tested in `walt-server/tests`, those of the formats by the fuzzer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use walt_testkit::{Netns, Station, TestServer, User, until};

/// For an answer or the end of a connection.
const SOON: Duration = Duration::from_secs(60);
/// How long a connection that must stay open is watched.
const STAYS: Duration = Duration::from_secs(1);
/// `CONNECTIONS_PER_NODE` of the node link.
const PER_NODE: usize = 128;
/// `CONNECTIONS_PER_ACCOUNT` of the API.
const PER_ACCOUNT: usize = 256;
/// `MAX_BODY` of the API, in bytes.
const BODY: usize = 1 << 20;

/// Whether the server has closed a connection on which it says nothing.
fn closed(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

fn station(server: &TestServer, last: u8) -> Netns {
    let number: u8 = server.bridge().trim_start_matches("wtest").parse().unwrap();
    let station = Netns::new();
    let ip = Ipv4Addr::new(10, 210, number, last);
    station.plug(None, &server.bridge(), None, Station { mac: None, ip, prefix: 24 });
    station
}

#[test]
fn a_node_cannot_take_the_node_link_from_others() {
    let server = TestServer::start();
    let (greedy, other) = (station(&server, 200), station(&server, 201));
    let number: u8 = server.bridge().trim_start_matches("wtest").parse().unwrap();
    let link = SocketAddr::from((Ipv4Addr::new(10, 210, number, 1), 12347));
    let connect = move || {
        let stream = TcpStream::connect_timeout(&link, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    greedy.inside(|| {
        let mut held: Vec<TcpStream> = (0..PER_NODE).map(|_| connect()).collect();
        // The server accepts in order: once this one is closed, those before it have been counted.
        assert!(closed(&mut connect()), "one more than it may have");
        let last = held.last_mut().unwrap();
        last.set_read_timeout(Some(STAYS)).unwrap();
        assert!(!closed(last), "what it may have stays");
        other.inside(|| {
            let mut stream = connect();
            stream.set_read_timeout(Some(STAYS)).unwrap();
            assert!(!closed(&mut stream), "another node is served");
        });
        held.pop();
        until("a free connection", SOON, || {
            let mut again = connect();
            again.set_read_timeout(Some(STAYS)).unwrap();
            (!closed(&mut again)).then_some(())
        });
    });
    other.inside(|| {
        let mut stream = connect();
        // The server may close while this is being written.
        let _ = stream.write_all(&[b'x'; 4096]);
        assert!(closed(&mut stream), "a line without end");
    });
}

#[test]
fn an_account_cannot_take_the_api_from_others() {
    let server = TestServer::start();
    let connect = || {
        let stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let mut held: Vec<UnixStream> = (0..PER_ACCOUNT).map(|_| connect()).collect();
    assert!(closed(&mut connect()), "one more than root may have");
    server.walt(User::Account("nobody"), &["node", "show"]).ok();
    held.truncate(PER_ACCOUNT / 2);
    until("free connections", SOON, || {
        let mut stream = connect();
        stream.set_read_timeout(Some(STAYS)).unwrap();
        (!closed(&mut stream)).then_some(())
    });
    server.walt(User::Root, &["node", "show"]).ok();
}

#[test]
fn a_request_that_is_too_large_is_refused() {
    let server = TestServer::start();
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // Longer than it may be by its head; what is sent of it is just what the server reads before it refuses.
    let head = format!(
        "POST /api/v1/actions/node HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        100 * BODY
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may close while this is being written.
    let _ = stream.write_all(&vec![b' '; BODY + 1]);
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}
