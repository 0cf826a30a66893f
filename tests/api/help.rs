//! Examples of help pages that need no node with a system, as they stand there. Other pages are run where what they need is
//! there already: `RUN_BY` in `walt-testkit/src/help.rs`.

use std::fs;
use walt_testkit::{TestServer, User, help, help::How};

const ANN: User = User::RootFor("ann");

#[test]
fn examples_of_the_help_pages() {
    let server = TestServer::start_tiny();
    // The first steps, without those that need the node to be there.
    help::run(&server, ANN, "help-intro", |example| match example.command.as_str() {
        "walt node create vn1" | "walt image show" | "walt node boot vn1 default" => How::Ends,
        _ => How::ElsewhereIn("tests/boot/tutorial.rs"),
    });
    server.walt(ANN, &["node", "acquire", "vn1"]).ok();
    for name in ["vn2", "my-node"] {
        server.walt(ANN, &["node", "create", name]).ok();
    }
    let [a, b, c, _] = server.address().octets();
    let (ip, mac) = (format!("{a}.{b}.{c}.40"), "6c:b0:ce:18:d5:5d");
    let event = ["dhcp-event", "commit", "--force-name", "", "", &ip, mac, "switch-18d55d", "0", "unknown"];
    let made = server.server_command(&event).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    for topic in ["boot-modes", "device-sets", "unmanaged-devices"] {
        help::run(&server, ANN, topic, |example| match example.command.as_str() {
            // A node without a system is waited for, for 30 seconds.
            "walt node reboot my-node" => How::ElsewhereIn("tests/boot/hybrid.rs"),
            _ => How::Ends,
        });
    }

    // An image with the directories of the page about copies.
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "my-pc"]).ok();
    let dir = server.dir().join("work");
    for directory in ["etc/myapp", "var/log"] {
        fs::create_dir_all(dir.join(directory)).unwrap();
    }
    fs::write(dir.join("var/log/dpkg.log"), "a line\n").unwrap();
    fs::write(dir.join("config"), "key=value\n").unwrap();
    for directory in ["etc", "var"] {
        let source = dir.join(directory).display().to_string();
        server.walt(ANN, &["image", "cp", &source, "my-pc:/"]).ok();
    }
    help::run_in(&server, ANN, "image-cp", &dir, |_| How::Ends);
    assert_eq!(fs::read_to_string(dir.join("dpkg.log")).unwrap(), "a line\n");
    help::run(&server, ANN, "image-history", |_| How::Ends);
}
