//! Bad input is a clear sentence, the right status, and nothing half done.

use std::process::Command;
use walt_testkit::{TestServer, User};

const ANN: User = User::RootFor("ann");

fn no_node(server: &TestServer) {
    assert_eq!(server.walt(ANN, &["node", "show", "--all", "--names-only"]).ok(), "");
}

#[test]
fn names_that_mean_nothing() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["node", "boot", "vn1", "nosuch"]).fails(1, "No such image 'nosuch'");
    server.walt(ANN, &["image", "shell", "nosuch"]).fails(1, "No such image 'nosuch'");
    server.walt(ANN, &["image", "remove", "nosuch"]).fails(1, "No such image 'nosuch'");
    server.walt(ANN, &["image", "clone", "walt:bob/nosuch"]).fails(1, "No such remote image");
    for command in
        [["node", "boot", "vnx", "pc-x86-64"].as_slice(), &["node", "wait", "vnx"], &["node", "shell", "vnx"]]
    {
        server.walt(ANN, command).fails(1, "No device with name 'vnx' found.");
    }
    // One grammar, whether the server or the client reads the set: vn1 is found, and the comma at the end is nothing.
    for command in [["node", "reboot", "VN1,vnx,"].as_slice(), &["node", "run", "VN1,vnx,", "true"]] {
        server
            .walt(ANN, command)
            .fails(1, "Error: No device with name 'vnx' found.\nsee 'walt node show --all'");
    }
    server.walt(ANN, &["node", "create", "vn1"]).fails(1, "a device with name 'vn1' already exists");
    server.walt(ANN, &["node", "create", "VN1"]).fails(1, "already exists");
    assert_eq!(server.walt(ANN, &["node", "show", "--names-only"]).ok(), "vn1\n");
}

#[test]
fn names_that_cannot_be() {
    let server = TestServer::start_tiny();
    for name in ["a b", "1a", "x", "all-nodes", "server", "a_b", "node-", "a\nb"] {
        let ran = server.walt(ANN, &["node", "create", name]);
        assert_eq!(ran.status, Some(1), "{name:?}: {ran:?}");
        assert!(
            ran.err.starts_with("Error: ") && ran.err.contains(name.split('\n').next().unwrap()),
            "{ran:?}"
        );
        assert!(ran.out.is_empty(), "{ran:?}");
    }
    no_node(&server);
    server.walt(ANN, &["image", "show"]).ok();
    for name in ["a b", "Upper", "a:b:c", "default", ":x", "x:", "../x", "a/b"] {
        let ran = server.walt(ANN, &["image", "duplicate", "pc-x86-64", name]);
        assert_eq!(ran.status, Some(1), "{name:?}: {ran:?}");
        assert!(ran.err.starts_with("Error: "), "{ran:?}");
    }
    assert_eq!(server.walt(ANN, &["image", "show", "--names-only"]).ok(), "pc-x86-64\n");
}

#[test]
fn settings_of_other_nodes() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server
        .walt(ANN, &["node", "config", "vn1", "ram=1G", "boot.secure=true"])
        .fails(1, "'boot.secure' applies to physical nodes of model pc-x86-64 only, and vn1 is not one");
    let config = server.walt(ANN, &["node", "config", "vn1"]).ok();
    assert!(config.contains("\nram=512M\n") && !config.contains("boot.secure"), "{config}");
}

#[test]
fn command_lines() {
    let server = TestServer::start();
    for (arguments, says) in [
        (["node", "show", "--foo"].as_slice(), "unknown option '--foo'"),
        (&["node", "create"], "missing"),
        (&["node", "create", "a", "b"], "unexpected argument 'b'"),
        (&["node", "wait", "--timeout", "x", "all-nodes"], "'x'"),
        (&["node", "show", "--al"], "unknown option '--al'"),
    ] {
        let ran = server.walt(ANN, arguments);
        assert_eq!(ran.status, Some(2), "{ran:?}");
        assert!(ran.err.starts_with("Error: ") && ran.err.contains(says), "{says}: {ran:?}");
        assert!(ran.err.contains("\n------\n") && ran.err.contains("Usage:"), "{ran:?}");
    }
    for arguments in [[].as_slice(), &["node"]] {
        let ran = server.walt(ANN, arguments);
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert!(ran.out.starts_with("No sub-command given\n------\n"), "{ran:?}");
    }
    // Scripts know 1 as the status of this one.
    server.walt(ANN, &["image", "show", "--all", "--names-only"]).fails(1, "cannot be used with --all");
    assert_eq!(server.walt(ANN, &["--help"]).status, Some(0));
}

#[test]
fn a_missing_default_image_names_the_command() {
    let server = TestServer::start();
    server
        .walt(ANN, &["node", "create", "vn1"])
        .fails(1, "walt-server default-image build pc-x86-64-default");
    no_node(&server);
}

#[test]
fn users() {
    let server = TestServer::start_tiny();
    for name in ["waltplatform", "walt", "localhost"] {
        let ran = server.walt(User::RootFor(name), &["node", "show"]);
        assert_eq!(ran.status, Some(1), "{name}: {ran:?}");
    }
    let mut command = server.walt_command(User::Account("nobody"), &["node", "show"]);
    let ran = command.env("WALT_USERNAME", "ann").output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "only root may act for another: {ran:?}");
    server.walt(User::Account("nobody"), &["node", "create", "vn1"]).ok();
    let list = server.api(None).get("/api/v1/nodes").json();
    assert_eq!(list["nodes"][0]["owner"], "nobody", "{list}");
}

#[test]
fn requests_that_are_no_requests() {
    let server = TestServer::start();
    let api = server.api(Some("ann"));
    let bad = api.node(&serde_json::json!({"action": "explode"}), None);
    assert_eq!((bad.status, bad.json()["code"].as_str()), (400, Some("bad-request")), "{bad:?}");
    let bad = api.node(&serde_json::json!({"action": "boot", "nodes": "a", "image": "b", "more": 1}), None);
    assert_eq!(bad.status, 400, "{bad:?}");
    assert_eq!(api.get("/api/v1/nothing").status, 404);
    assert_eq!(api.get("/api/v1/info").json()["user"], "ann");
}

#[test]
fn what_is_for_root_only() {
    let server = TestServer::start();
    let socket = server.socket();
    let down = |account: User| {
        let mut curl = server.as_user(Command::new("curl"), account);
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json"]);
        curl.arg("--unix-socket").arg(&socket).args(["-d", r#"{"action":"down"}"#]);
        curl.arg("http://walt/api/v1/actions/admin");
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    assert_eq!(down(User::Account("nobody")), "403");
    for path in ["store", "status"] {
        let get = |account: User| {
            let mut curl = server.as_user(Command::new("curl"), account);
            curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).arg("--unix-socket").arg(&socket);
            let answer = curl.arg(format!("http://walt/api/v1/{path}")).output().unwrap();
            String::from_utf8(answer.stdout).unwrap()
        };
        assert_eq!([get(User::Account("nobody")), get(User::Root)], ["403", "200"], "{path}");
    }
    server.walt(ANN, &["node", "show"]).ok();
}

#[test]
fn no_server() {
    let server = TestServer::prepare(walt_testkit::Options::default());
    server.walt(ANN, &["node", "show"]).fails(1, "Network connection to WalT server failed!");
}
