//! Two nodes on a further network whose links are shaped, also while the server and the process of a link are killed.

use super::{MINI, SOON, USER, on, wait};
use std::process::Command;
use std::time::Duration;
use walt_testkit::{TestServer, until};

/// For what takes a node some seconds.
const WHILE: Duration = Duration::from_secs(40);

/// Pings the other node from vn1; the least round trip in ms, `None` if nothing comes back.
fn ping(server: &TestServer, count: u32) -> Option<f64> {
    let said = server.walt(USER, &["node", "run", "vn1", &format!("ping -c {count} -W 2 10.44.0.2")]).out;
    least(&said)
}

/// The least round trip that ping reports.
fn least(said: &str) -> Option<f64> {
    said.split("min/avg/max = ").nth(1)?.split('/').next()?.parse().ok()
}

fn change(server: &TestServer, words: &[&str]) {
    let said = server.walt(USER, &[&["node", "link"], words].concat()).ok();
    assert!(said.starts_with("Done."), "{said}");
}

#[test]
fn a_network_of_two_nodes_keeps_its_shape() {
    let mut server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    for node in ["vn1", "vn2"] {
        server.walt(USER, &["node", "create", node, "--image", MINI]).ok();
        server.walt(USER, &["node", "config", node, "networks=walt-net,lab", "ram=128M"]).ok();
        server.walt(USER, &["node", "reboot", "--hard", node]).ok();
    }
    for (node, last) in [("vn1", 1), ("vn2", 2)] {
        wait(&server, node);
        on(&server, node, &format!("ifconfig eth1 10.44.0.{last} netmask 255.255.255.0 up"));
    }
    let plain = ping(&server, 3).expect("the nodes reach each other");
    assert!(plain < 30.0, "{plain} ms without any delay");

    // From plain to shaped while it runs, in both directions.
    change(&server, &["vn1", "lab", "lat=40ms", "lat.up=30ms"]);
    let both = ping(&server, 3).expect("with a delay");
    assert!((70.0..110.0).contains(&both), "{both} ms");
    // Large segments, which the guest leaves to the card, and checksums.
    on(&server, "vn2", "dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2>/dev/null; httpd -p 7000 -h /tmp");
    on(&server, "vn1", "wget -q -O /tmp/got http://10.44.0.2:7000/sent");
    let sum = |node: &str, file: &str| on(&server, node, &format!("md5sum <{file}"));
    assert_eq!(sum("vn1", "/tmp/got"), sum("vn2", "/tmp/sent"));

    // The server is killed while packets are under way.
    on(&server, "vn1", "(ping -c 12 10.44.0.2 >/tmp/ping 2>&1 </dev/null &)");
    server.kill();
    std::thread::sleep(Duration::from_secs(3));
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let report = until("the end of the pings", WHILE, || {
        let said = server.walt(USER, &["node", "run", "vn1", "cat /tmp/ping"]).out;
        said.contains("packets received").then_some(said)
    });
    assert!(report.contains("12 packets transmitted, 12 packets received"), "{report}");
    assert!(least(&report).is_some_and(|ms| ms >= 70.0), "{report}");

    change(&server, &["vn1", "lab", "down"]);
    assert_eq!(ping(&server, 2), None, "the link is down");
    change(&server, &["vn1", "lab", "up"]);
    assert!(ping(&server, 2).is_some_and(|ms| ms >= 70.0), "the link is up again, with its shape");

    // The process of the link is killed.
    let pattern = format!("walt-server link {}", server.state_dir().display());
    let found = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    let process = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert!(Command::new("kill").args(["-KILL", &process]).status().unwrap().success(), "{process}");
    until("another process", SOON, || ping(&server, 1).filter(|ms| *ms >= 70.0));

    change(&server, &["vn1", "lab", "reset"]);
    let plain = ping(&server, 3).expect("a plain cable again");
    assert!(plain < 30.0, "{plain} ms");
    // The network that the node lives on, while it lives on it.
    change(&server, &["vn1", "walt-net", "lat=20ms", "loss=1%"]);
    assert_eq!(on(&server, "vn1", "ls -R /bin >/dev/null; echo alive").trim(), "alive");
    change(&server, &["vn1", "walt-net", "reset"]);
    assert_eq!(on(&server, "vn1", "echo alive").trim(), "alive");
}
