//! What a booted node reaches, and how it is reached: `netsetup`, `expose`.

use super::{MINI, SOON, USER, on, wait};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use walt_testkit::{Netns, Options, TestServer, images};

/// Addresses of the server's way out, and of the machine beyond it.
const UPLINK: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.2";

/// Packets that wait of an answer, in seconds.
const WAIT: &str = "3";

#[test]
fn nat_leads_a_booted_node_out_and_expose_leads_in() {
    let (room, outside) = (Netns::new(), Netns::new());
    room.run(&["ip", "link", "set", "lo", "up"]);
    room.cable(&outside, "uplink", "eth0");
    for (at, dev, address) in [(&room, "uplink", UPLINK), (&outside, "eth0", OUTSIDE)] {
        at.run(&["ip", "addr", "add", &format!("{address}/24"), "dev", dev]);
    }
    room.run(&["ip", "route", "add", "default", "via", OUTSIDE]);
    let listener = outside.inside(|| TcpListener::bind((OUTSIDE, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip();
            let _ = writeln!(stream, "you are {peer}");
        }
    });
    let options = Options { wrapper: room.wrapper(), ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(MINI, &images::built(MINI));
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    wait(&server, "vn1");
    let ask = format!("nc -w {WAIT} {OUTSIDE} {port} </dev/null 2>/dev/null || echo unreachable");
    let route = "ip route show default";
    assert_eq!(
        (on(&server, "vn1", route).as_str(), on(&server, "vn1", &ask).as_str()),
        ("", "unreachable\n")
    );
    // A route that the node gives itself does not help.
    let own = server.address();
    on(&server, "vn1", &format!("ip route add default via {own}"));
    assert_eq!(on(&server, "vn1", &ask), "unreachable\n");

    let said = server.walt(USER, &["node", "config", "vn1", "netsetup=NAT", "expose=22:2222"]).ok();
    assert_eq!(said, "Done. Reboot node(s) to see new settings in effect.\n");
    assert!(server.walt(USER, &["node", "show"]).ok().contains("vn1: reboot needed for netsetup\n"));
    server.walt(USER, &["node", "reboot", "vn1"]).ok();
    wait(&server, "vn1");
    let shown = server.walt(USER, &["node", "show"]).ok();
    assert!(shown.contains(" NAT ") && !shown.contains("reboot needed"), "{shown}");
    let routes = on(&server, "vn1", route);
    assert!(routes.starts_with(&format!("default via {own} ")), "{routes}");
    assert_eq!(on(&server, "vn1", &ask), format!("you are {UPLINK}\n"));

    let address = format!("{UPLINK}:2222").parse().unwrap();
    let mut stream = outside.inside(|| TcpStream::connect_timeout(&address, SOON)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut banner = [0; 8];
    stream.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
}
