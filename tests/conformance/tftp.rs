//! TFTP, by tftp-hpa, curl, and packets made by hand.

use crate::leases::{register, udhcpc};
use crate::{has, ok};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;
use walt_testkit::{Newcomer, TestServer, images};

/// Bounds waiting for a packet that will come.
const PACKET_LIMIT: Duration = Duration::from_secs(60);
/// curl(1): the file was not found on the TFTP server.
const CURL_NOT_FOUND: i32 = 68;
/// Longer than a server waits before it sends a packet again.
const SILENCE: Duration = Duration::from_millis(2500);

fn node(server: &TestServer) -> Newcomer {
    let station = Newcomer::plug(server, 1);
    register(&station);
    station
}

#[test]
fn files_arrive_whole() {
    let server = TestServer::start_tiny();
    let station = node(&server);
    let url = format!("tftp://{}/large", server.address());
    // The smallest blocks make their numbers roll over.
    for blksize in ["8", "512", "1468", "65464"] {
        ok(&station.run("curl", &["-sS", "--tftp-blksize", blksize, "-o", "got", &url]));
        assert!(std::fs::read(station.dir().join("got")).unwrap() == images::large(), "blksize {blksize}");
    }
    ok(&station.run("curl", &["-sS", "--tftp-no-options", "-o", "got", &url]));
    assert!(std::fs::read(station.dir().join("got")).unwrap() == images::large(), "no options");
    ok(&station.run(
        "busybox",
        &["tftp", "-g", "-b", "1024", "-r", "large", "-l", "got", &server.address().to_string()],
    ));
    assert!(std::fs::read(station.dir().join("got")).unwrap() == images::large(), "busybox");
}

#[test]
fn tftp_hpa() {
    if !has("tftp", "tftp-hpa") {
        return;
    }
    let server = TestServer::start_tiny();
    let station = node(&server);
    let address = server.address().to_string();
    ok(&station.run("tftp", &["-m", "binary", &address, "-c", "get", "large", "got"]));
    assert!(std::fs::read(station.dir().join("got")).unwrap() == images::large());
    let says = |arguments: &[&str]| {
        let output = station.run("tftp", arguments);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let refused = says(&["-m", "ascii", &address, "-c", "get", "large", "other"]);
    assert!(refused.contains("octet"), "{refused}");
    let refused = says(&["-m", "binary", &address, "-c", "put", "got", "large"]);
    assert!(refused.contains("only be read"), "{refused}");
    let missing = says(&["-m", "binary", &address, "-c", "get", "none", "other"]);
    assert!(missing.contains("No such file"), "{missing}");
}

#[test]
fn boot_files_are_for_nodes_and_loaders_for_everybody() {
    let server = TestServer::start_tiny();
    let stranger = Newcomer::plug(&server, 2);
    udhcpc(&stranger, &[]);
    let get = |path: &str| {
        let url = format!("tftp://{}/{path}", server.address());
        stranger.run("curl", &["-sS", "-o", "got", &url])
    };
    for path in ["large", "start.ipxe", "etc/passwd", "../../etc/passwd"] {
        let output = get(path);
        assert_eq!(output.status.code(), Some(CURL_NOT_FOUND), "{path}: {output:?}");
    }
    for (path, file) in [
        ("pxe/undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe"),
        ("pxe/snponly.efi", "/usr/lib/ipxe/snponly.efi"),
    ] {
        if !Path::new(file).exists() {
            println!("skipped: {file} is not installed (package ipxe)");
            continue;
        }
        ok(&get(path));
        assert!(std::fs::read(stranger.dir().join("got")).unwrap() == std::fs::read(file).unwrap(), "{path}");
    }
}

struct Client {
    socket: UdpSocket,
    peer: std::net::SocketAddr,
}

impl Client {
    fn ask(server: &TestServer, station: &Newcomer, texts: &[&str]) -> Self {
        let socket = station.udp("0.0.0.0:0");
        socket.set_read_timeout(Some(PACKET_LIMIT)).unwrap();
        let mut request = vec![0, 1];
        texts.iter().for_each(|t| request.extend([t.as_bytes(), b"\0"].concat()));
        let peer = (server.address(), 69).into();
        socket.send_to(&request, peer).unwrap();
        Self { socket, peer }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2000];
        let (length, peer) = self.socket.recv_from(&mut buffer).unwrap();
        self.peer = peer;
        buffer[..length].to_vec()
    }

    fn send(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.peer).unwrap();
    }

    fn is_silent(&self) -> bool {
        self.socket.set_read_timeout(Some(SILENCE)).unwrap();
        let heard = self.socket.recv(&mut [0; 2000]);
        matches!(heard, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

/// No packaged client has windows; UEFI's has.
#[test]
fn windows() {
    let server = TestServer::start_tiny();
    let station = node(&server);
    let mut client = Client::ask(
        &server,
        &station,
        &["large", "octet", "blksize", "1024", "windowsize", "8", "tsize", "0", "timeout", "20"],
    );
    let file = images::large();
    let oack = format!("\0\x06blksize\x001024\0windowsize\x008\0timeout\x0020\0tsize\x00{}\0", file.len());
    assert_eq!(client.receive(), oack.into_bytes());
    client.send(&[0, 4, 0, 0]);
    let (mut got, mut number) = (Vec::new(), 0_u16);
    // The third packet of the second window is lost, once.
    let mut lost = Some(11);
    loop {
        let packet = client.receive();
        assert_eq!(packet[..2], [0, 3]);
        let sent = u16::from_be_bytes([packet[2], packet[3]]);
        if lost == Some(sent) {
            lost = None;
            for following in 12..=16 {
                assert_eq!(client.receive()[2..4], u16::to_be_bytes(following));
            }
            client.send(&[&[0, 4][..], &number.to_be_bytes()].concat());
            continue;
        }
        assert_eq!(sent, number + 1, "in order");
        (number, got) = (sent, [got, packet[4..].to_vec()].concat());
        let is_last = packet.len() < 4 + 1024;
        let window_of = if number > 10 { number - 10 } else { number };
        if window_of % 8 == 0 || is_last {
            client.send(&[&[0, 4][..], &number.to_be_bytes()].concat());
        }
        if is_last {
            break;
        }
    }
    assert!(got == file);
}

/// ROMs ask for the size and leave: nothing more may come, and their port may be used again at once.
#[test]
fn a_client_that_leaves_is_left_alone() {
    let server = TestServer::start_tiny();
    let station = node(&server);
    let mut client = Client::ask(&server, &station, &["large", "octet", "tsize", "0"]);
    assert_eq!(client.receive()[..2], [0, 6]);
    client.send(b"\0\x05\0\x08enough\0");
    let size = client.peer;
    client.socket.send_to(b"\0\x01start.ipxe\0octet\0", (server.address(), 69)).unwrap();
    let first = client.receive();
    assert_eq!(first[..4], [0, 3, 0, 1]);
    assert_ne!(client.peer, size, "a transfer of its own");
    client.send(&[0, 4, 0, 1]);
    assert!(client.is_silent());
}
