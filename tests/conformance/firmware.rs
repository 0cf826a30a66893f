//! Firmware of Raspberry Pis, acted by busybox udhcpc and curl: which files they get, and when they become nodes.

use crate::leases::udhcpc;
use crate::ok;
use serde_json::Value;
use std::process::Command;
use walt_testkit::{Newcomer, TestServer, User};

/// curl(1): the file was not found on the TFTP server.
const CURL_NOT_FOUND: i32 = 68;
/// What the firmware of all boards calls itself.
const CLASS: &str = "PXEClient:Arch:00000:UNDI:002001";
/// Identifier of a 4 B's EEPROM (revision c03111); and of a board that the server does not know (revision d04ff0).
const KNOWN: &str = "0x61:005250693411 31c00032 0136c2effdfe9e";
const UNKNOWN: &str = "0x61:0052506935f04fd00032 0136c2effdfe9e";

/// A server whose default image for the 4 B is of two files.
fn server() -> TestServer {
    let server = TestServer::start_tiny();
    let image = server.dir().join("board");
    let boot = image.join("rootfs/boot/rpi-4-b");
    std::fs::create_dir_all(&boot).unwrap();
    for file in ["start4.elf", "config.txt"] {
        std::fs::write(boot.join(file), format!("{file} of the default image")).unwrap();
    }
    let tar = Command::new("tar")
        .args(["-cf", "rootfs.tar", "-C", "rootfs", "."])
        .current_dir(&image)
        .status()
        .unwrap();
    assert!(tar.success());
    let labels = r#"{"Architecture":"arm64","Labels":{"walt.node.models":"rpi-4-b","walt.image.preferred-name":"rpi:latest"}}"#;
    std::fs::write(image.join("config.json"), labels).unwrap();
    server.import("rpi-4-b-default", &image);
    server
}

/// The firmware asks for an address.
fn firmware(station: &Newcomer, identifier: &str) {
    udhcpc(station, &["-V", CLASS, "-x", &identifier.replace(' ', "")]);
}

/// A file by TFTP; none if the server does not have it for this station.
fn file(server: &TestServer, station: &Newcomer, path: &str) -> Option<String> {
    let url = format!("tftp://{}/{path}", server.address());
    let output = station.run("curl", &["-sS", &url]);
    if output.status.code() == Some(CURL_NOT_FOUND) {
        return None;
    }
    Some(ok(&output))
}

/// Models of all nodes by their Ethernet address.
fn models(server: &TestServer) -> Vec<(String, String)> {
    let text = server.walt(User::RootFor("ann"), &["node", "show", "--all", "--json"]).ok();
    let list: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let nodes = list["nodes"].as_array().unwrap();
    nodes.iter().map(|node| (text(&node["mac"]), text(&node["model"]))).collect()
}

#[test]
fn a_board_that_says_what_it_is_becomes_a_node_at_once() {
    let server = server();
    let board = Newcomer::plug(&server, 1);
    firmware(&board, KNOWN);
    assert_eq!(models(&server), [(board.mac().to_owned(), "rpi-4-b".to_owned())]);
    for path in ["9ffefdef/start4.elf", "start4.elf", "dc-a6-32-01-36-c2/start4.elf"] {
        let got = file(&server, &board, path);
        assert_eq!(got.as_deref(), Some("start4.elf of the default image"), "{path}");
    }
    assert_eq!(file(&server, &board, "9ffefdef/pieeprom.sig"), None);
}

#[test]
fn another_board_gets_files_and_becomes_a_node_by_what_these_start() {
    let server = server();
    let board = Newcomer::plug(&server, 1);
    firmware(&board, UNKNOWN);
    assert_eq!(models(&server), []);
    for path in ["9ffefdef/start4.elf", "9ffefdef/config.txt"] {
        assert!(
            file(&server, &board, path).is_some_and(|text| text.ends_with("of the default image")),
            "{path}"
        );
    }
    assert_eq!(file(&server, &board, "large"), None, "of another model");
    // The initrd, or U-Boot.
    udhcpc(&board, &["-V", "walt.node.rpi-4-b"]);
    assert_eq!(models(&server), [(board.mac().to_owned(), "rpi-4-b".to_owned())]);
    assert!(file(&server, &board, "config.txt").is_some());
    // Not a board.
    let stranger = Newcomer::plug(&server, 2);
    udhcpc(&stranger, &[]);
    assert_eq!(file(&server, &stranger, "config.txt"), None);
}
