//! DNS, by dig of BIND.

use crate::leases::register;
use crate::{has, ok};
use std::time::Duration;
use walt_testkit::newcomer::INTERFACE;
use walt_testkit::{Newcomer, Options, TestServer, User};

/// What dig prints in short, without its last line end.
#[track_caller]
fn dig(server: &TestServer, station: &Newcomer, words: &str) -> String {
    let at = format!("@{}", server.address());
    let mut arguments = vec![at.as_str(), "+time=10", "+tries=3"];
    arguments.extend(words.split(' '));
    ok(&station.run("dig", &arguments)).trim_end().to_owned()
}

#[test]
fn names_and_addresses_of_nodes() {
    if !has("dig", "bind9-dnsutils") {
        return;
    }
    let server = TestServer::start_tiny();
    let station = Newcomer::plug(&server, 1);
    let ip = register(&station).ip().to_string();
    let own = server.address().to_string();
    for (question, answer) in [
        ("+short apu-574c01.walt A", ip.as_str()),
        ("+short APU-574c01.Walt A", &ip),
        ("+short +tcp apu-574c01.walt A", &ip),
        ("+short server.walt A", &own),
        ("+short walt-server.walt A", &format!("server.walt.\n{own}")),
        ("+short apu-574c01.walt AAAA", ""),
        (&format!("+short -x {ip}"), "apu-574c01.walt."),
        (&format!("+short -x {own}"), "server.walt."),
        ("+short walt NS", "server.walt."),
    ] {
        assert_eq!(dig(&server, &station, question), answer, "{question}");
    }
    for (question, status) in [("none.walt A", "NXDOMAIN"), ("apu-574c01.walt MX", "NOERROR")] {
        let answer = dig(&server, &station, question);
        assert!(
            answer.contains(&format!("status: {status}")) && answer.contains("flags: qr aa rd"),
            "{answer}"
        );
        assert!(answer.contains("EDNS: version: 0") && answer.contains("SOA"), "{answer}");
    }
    let last = ip.replace(&own[..own.len() - 1], "");
    let free = ip.replace(&format!(".{last}"), ".250");
    assert!(dig(&server, &station, &format!("-x {free}")).contains("status: NXDOMAIN"));
    // No answer may be kept for longer than 5 s.
    let record = dig(&server, &station, "+noall +answer apu-574c01.walt A");
    let seconds: u32 = record.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(seconds <= 5, "{record}");
    server.walt(User::RootFor("ann"), &["node", "rename", "apu-574c01", "apu1"]).ok();
    assert_eq!(dig(&server, &station, "+short apu1.walt A"), ip);
    assert!(dig(&server, &station, "apu-574c01.walt A").contains("status: NXDOMAIN"));
}

/// A file; dropping it deletes it.
struct Scratch(String);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Other names are asked of the server's own resolver, here a station that answers 192.0.2.1 to everything.
#[test]
fn other_names_are_forwarded() {
    if !has("dig", "bind9-dnsutils") {
        return;
    }
    let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    // Older than the server, whose end needs it too.
    let resolv = Scratch(format!("/var/tmp/walt-test-resolv-{}", std::process::id()));
    std::fs::write(&resolv.0, "").unwrap();
    let wrapper = ["unshare", "-m", "sh", "-c", mount, &resolv.0].map(str::to_owned).to_vec();
    let server =
        TestServer::start_with(Options { wrapper, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(walt_testkit::images::TINY, &walt_testkit::images::tiny(server.dir()));
    let [a, b, c, _] = server.address().octets();
    let resolver = Newcomer::plug(&server, 1);
    resolver.netns().run(&["ip", "address", "add", &format!("{a}.{b}.{c}.240/24"), "dev", INTERFACE]);
    // A bind mount shows the same file: it is written, not replaced.
    std::fs::write(&resolv.0, format!("nameserver {a}.{b}.{c}.240\n")).unwrap();
    let socket = resolver.udp("0.0.0.0:53");
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let answers = std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        let (length, peer) = socket.recv_from(&mut buffer).unwrap();
        // The question: its name ends with a zero byte; type and class follow.
        let end = 12 + buffer[12..length].iter().position(|b| *b == 0).unwrap() + 5;
        let mut answer = buffer[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        socket.send_to(&answer, peer).unwrap();
        String::from_utf8_lossy(&buffer[12..end - 5]).into_owned()
    });
    let client = Newcomer::plug(&server, 2);
    register(&client);
    assert_eq!(dig(&server, &client, "+short www.example.org A"), "192.0.2.1");
    assert_eq!(answers.join().unwrap(), "\u{3}www\u{7}example\u{3}org");
}
