//! `walt-server check-store`, beside a server and without one.

use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use walt_testkit::{Options, TestServer, User};

/// Exit status, and what was said.
fn check(server: &TestServer, arguments: &[&str]) -> (Option<i32>, String) {
    let ran = server.server_command(&[&["check-store"], arguments].concat()).output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|s| String::from_utf8(s).unwrap()).concat();
    (ran.status.code(), said)
}

fn json(server: &TestServer) -> Value {
    let ran = server.server_command(&["check-store", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(i32::from(report["clean"] != true)), "{report}");
    report
}

/// A file of the default image's layer.
fn payload(server: &TestServer) -> PathBuf {
    let layers = fs::read_dir(server.state_dir().join("images/layers")).unwrap();
    let files = layers.map(|l| l.unwrap().path().join("fs/boot/pc-x86-64/start.ipxe"));
    files.into_iter().find(|f| f.is_file()).unwrap()
}

#[test]
fn a_store_is_checked_with_and_without_its_server() {
    let mut server = TestServer::start_tiny();
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).ok();
    let report = json(&server);
    assert_eq!(report["clean"], true, "{report}");
    assert_eq!(report["server"], true);
    // The default image, and Ann's tag of it.
    assert_eq!((&report["references"], &report["images"]), (&2.into(), &1.into()), "{report}");
    assert!(report["bytes"].as_u64().unwrap() > 4096, "{report}");

    // Whatever lies on the disk is compared with its digest.
    let file = payload(&server);
    let (right, time) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    let mut wrong = right.clone();
    wrong[3] ^= 0x20;
    fs::write(&file, &wrong).unwrap();
    let (status, said) = check(&server, &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("is damaged") && said.contains("its digest is not the layer's"), "{said}");
    fs::write(&file, &right).unwrap();
    // Of a file that somebody has put back, the time tells.
    let (status, said) = check(&server, &[]);
    assert!(status == Some(1) && said.contains("does not match the files of its layers"), "{said}");
    fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    let (status, said) = check(&server, &[]);
    assert!(status == Some(0) && said.ends_with("no problems found.\n"), "{status:?} {said}");

    server.kill();
    let left = server.state_dir().join("sessions/a-killed-one");
    fs::create_dir(&left).unwrap();
    let report = json(&server);
    assert_eq!(report["server"], false);
    assert_eq!(report["findings"][0]["object"], "session a-killed-one", "{report}");
    assert_eq!(report["findings"][0]["fault"], "orphan");
    let (status, said) = check(&server, &[]);
    assert!(status == Some(1) && said.contains("is left over") && said.contains("Tip: "), "{said}");
    assert!(left.is_dir(), "a check only looks");

    // A server removes what its predecessor has left, without being asked.
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let report = json(&server);
    assert_eq!(report["clean"], true, "{report}");
    assert!(!left.exists());
}

#[test]
fn who_may_check_what() {
    let server = TestServer::prepare(Options::default());
    let (status, said) = check(&server, &[]);
    assert!(status == Some(1) && said.contains("has no state of a server"), "{said}");
    drop(server);

    let server = TestServer::start();
    let mut command = server.server_command(&["check-store"]);
    let ran = command.uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.code() == Some(1) && said.contains("run this command as root"), "{said}");
}
