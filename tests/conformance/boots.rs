//! The record of a machine's boot, of what the machine is seen to do: DHCP, boot files, the node link.

use crate::leases::{register, udhcpc};
use crate::ok;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;
use walt_testkit::{Newcomer, TestServer, User, until};

const ANN: User = User::RootFor("ann");
const SOON: Duration = Duration::from_secs(60);
/// Port of the node link.
const LINK: u16 = 12347;
const LINE: &str = "root=/dev/nfs  quiet panic=30";

fn boots(server: &TestServer, node: &str) -> Vec<Value> {
    let list = server.walt(ANN, &["node", "boots", node, "--json"]).ok();
    let list: Value = serde_json::from_str(&list).unwrap();
    list["boots"].as_array().unwrap().clone()
}

fn stages(boot: &Value) -> Vec<&str> {
    boot["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect()
}

/// A link of this boot, which lasts as long as what is returned.
fn link(station: &Newcomer, server: Ipv4Addr, boot: u8) -> BufReader<TcpStream> {
    let stream = station.netns().inside(|| TcpStream::connect((server, LINK))).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut stream = BufReader::new(stream);
    let id = format!("00000000-0000-4000-8000-0000000000{boot:02x}");
    let hello = format!("REQ_NODE_LINK\nHELLO 1 view=- boot_id={id} uptime=3 mode=network\n");
    stream.get_mut().write_all(hello.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    assert!(answer.starts_with("WELCOME 1 ") && answer.contains(" report=kernel"), "{answer}");
    stream
}

#[test]
fn a_machine_is_seen_to_boot() {
    let mut server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let name = register(&station).get("hostname").to_owned();
    let mut first = link(&station, server.address(), 1);
    writeln!(first.get_mut(), "BOOTED").unwrap();
    until("the first boot to end", SOON, || boots(&server, &name)[0]["seconds"].as_f64());
    let first_boot = &boots(&server, &name)[0];
    assert_eq!(
        (stages(first_boot), &first_boot["outcome"]),
        (vec!["firmware", "dhcp", "init", "ssh"], &"booted".into())
    );

    // Its power is cut: the link still seems to be there.
    udhcpc(&station, &["-V", "PXEClient:Arch:00000:UNDI:002001"]);
    register(&station);
    for (file, method) in [("start.ipxe", "-sS"), ("kernel", "-sSI"), ("kernel", "-sS")] {
        let url = format!("http://{}/boot/{file}", server.address());
        ok(&station.run("curl", &[method, "-o", "/dev/null", &url]));
    }
    let mut second = link(&station, server.address(), 2);
    let (part, rest) = LINE.split_at(15);
    write!(second.get_mut(), "KERNEL {part}\nKERNEL {rest}\nBOOTED\n").unwrap();
    until("the second boot to end", SOON, || boots(&server, &name).get(1)?["seconds"].as_f64());
    let all = boots(&server, &name);
    assert_eq!(all[0]["end"], "rebooted by the node itself");
    let boot = &all[1];
    assert_eq!(stages(boot), ["firmware", "dhcp", "script", "kernel", "init", "ssh"], "{boot}");
    assert_eq!((&boot["stages"][3]["bytes"], &boot["kernel_line"]), (&4096.into(), &LINE.into()), "{boot}");
    assert_eq!(
        (&boot["cause"], &boot["mode"], &boot["number"]),
        (&"the node itself".into(), &"network".into(), &2.into())
    );
    let sum: f64 = boot["stages"].as_array().unwrap().iter().map(|s| s["seconds"].as_f64().unwrap()).sum();
    assert!((sum - boot["seconds"].as_f64().unwrap()).abs() < 1e-6, "{boot}");

    // A running system looks at its own boot files.
    let url = format!("http://{}/boot/kernel", server.address());
    ok(&station.run("curl", &["-sS", "-o", "/dev/null", &url]));
    assert_eq!(&boots(&server, &name)[1], boot);
    // What was recorded survives the server, at the latest half a second later.
    std::thread::sleep(Duration::from_secs(2));
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(&boots(&server, &name)[1], boot);
    // It goes on with the record: the boot after the crash has the next number, and ends the one before.
    udhcpc(&station, &["-V", "PXEClient:Arch:00000:UNDI:002001"]);
    let all = boots(&server, &name);
    assert_eq!(
        (all.len(), &all[2]["number"], &all[1]["end"]),
        (3, &3.into(), &"rebooted by the node itself".into())
    );
    let shown = server.walt(ANN, &["node", "boots", &name]).ok();
    assert!(
        shown.contains("Boots of ")
            && shown.contains("Stages: f firmware, d dhcp, b script, k kernel, n init, h ssh"),
        "{shown}"
    );
    let shown = server.walt(ANN, &["node", "boots", &name, "2"]).ok();
    assert!(
        shown.contains(&format!("Kernel line: {LINE}\n")) && shown.contains("Wanted by:   the node itself\n"),
        "{shown}"
    );
    server.walt(ANN, &["node", "boots", &name, "7"]).fails(1, "has the number 7");
    server.walt(ANN, &["node", "boots", "nobody"]).fails(1, "nobody");
}

/// More than a minute, since that is the least that can be set.
#[test]
fn a_machine_that_is_overdue_needs_a_look() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: a boot has to be overdue by a minute; WALT_TEST_LONG=1 asks for it");
        return;
    }
    let mut server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let name = register(&station).get("hostname").to_owned();
    server.walt(ANN, &["node", "config", "-y", &name, "boot.timeout=60"]).ok();
    // What was seen is on the disk half a second later.
    std::thread::sleep(Duration::from_secs(2));
    let begun = std::time::Instant::now();
    // The time without a server does not count.
    server.kill();
    std::thread::sleep(Duration::from_secs(15));
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let reason = "boot timeout reached, last stage: dhcp; the server cannot switch this machine off and on";
    server.walt(ANN, &["node", "wait", &name]).fails(1, &format!("node {name} needs a look: {reason}"));
    let took = begun.elapsed();
    assert!((75..90).contains(&took.as_secs()), "{took:?}");
    assert_eq!(boots(&server, &name)[0]["outcome"], "timeout");
    let needs_look = || server.api(None).get("/api/v1/nodes").json()["nodes"][0]["needs_look"].clone();
    assert_eq!(needs_look(), reason);
    // Somebody pushes its button.
    udhcpc(&station, &["-V", "PXEClient:Arch:00000:UNDI:002001"]);
    assert_eq!(needs_look(), Value::Null);
    assert_eq!(boots(&server, &name).len(), 2);
}
