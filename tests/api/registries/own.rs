//! The server's own registry: `walt registry serve` and `login`, images that are read and pushed through it.

use super::{ANN, LIMIT, SOON, clean, id_of, is_installed, line, run, server_with, walt_at};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use walt_testkit::{OwnRegistry, TestServer, images, until};

#[test]
fn ctrl_c_is_the_end_of_the_servers_registry_and_no_failure() {
    let server = TestServer::start();
    let mut terminal = server.terminal(ANN, &["registry", "serve", "--port", "0"]);
    terminal.expect("--tls-verify=false", SOON);
    terminal.send("\x03");
    let (status, said) = terminal.end(SOON);
    assert!(status.success() && !said.contains("Aborted"), "{status}: {said}");
}

/// An HTTP answer, as text.
fn ask(port: u16, head: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_servers_own_registry() {
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let home = room.path().join("home");
    fs::create_dir(&home).unwrap();
    let server = server_with("  []\n", &[]);
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "mine"]).ok();
    let id = id_of(&server, "ann/mine:latest");
    let serving = OwnRegistry::serve(&server, ANN);
    let port = serving.port;
    let (status, out, said) =
        walt_at(&server, &home, &[], &["registry", "login", "--port", &port.to_string()]);
    assert!(status == Some(0) && out.contains("it is valid for 12 hours"), "{out}{said}");
    let file = home.join(".docker/config.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let auth = file.to_str().unwrap();

    // Without a token, nothing but the question for it; and nothing of the API.
    for path in ["/v2/", "/v2/_catalog", "/v2/ann/mine/manifests/latest"] {
        let answer = ask(port, &format!("GET {path} HTTP/1.1"));
        assert!(
            answer.starts_with("HTTP/1.1 401") && answer.contains("walt registry login"),
            "{path}: {answer}"
        );
    }
    let forged = ask(port, "GET /v2/ HTTP/1.1\r\nAuthorization: Basic YW5uOmZmZmZmZmZmLjAw");
    assert!(forged.starts_with("HTTP/1.1 401"), "{forged}");
    for path in ["/api/v1/info", "/api/v1/actions/image", "//v2/", "/v2/../api/v1/info", "/v2x"] {
        let answer = ask(port, &format!("POST {path} HTTP/1.1\r\nContent-Length: 0"));
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }

    // Another server clones from it.
    let config = line("other", port, "basic");
    let second = server_with(&config, &[]);
    let (status, out, said) = walt_at(&second, &home, &[], &["image", "search", "other:"]);
    assert!(status == Some(0) && out.contains("other:ann/mine"), "{out}{said}");
    assert!(out.contains(&format!("other:waltplatform/{}", images::TINY)), "{out}");
    let (status, _, said) = walt_at(&second, &home, &[], &["image", "clone", "other:ann/mine", "theirs"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(id_of(&second, "ann/theirs:latest"), id);
    clean(&second);

    let name = format!("127.0.0.1:{port}/ann/mine");
    if is_installed("podman") {
        let storage =
            [room.path().join("podman"), room.path().join("podman-run")].map(|p| p.display().to_string());
        let store = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver", "vfs"];
        let pull = ["pull", "-q", "--authfile", auth, "--tls-verify=false", &name];
        let pulled = run("podman", &[&store[..], &pull].concat());
        assert_eq!(format!("sha256:{}", pulled.trim()), id);
        let to = format!("127.0.0.1:{port}/ann/by-podman");
        let push = ["push", "-q", "--authfile", auth, "--tls-verify=false", &name, &to];
        run("podman", &[&store[..], &push].concat());
        assert_eq!(id_of(&server, "ann/by-podman:latest"), id);
        server.walt(ANN, &["image", "remove", "by-podman"]).ok();
    }
    if is_installed("skopeo") {
        let source = format!("docker://{name}");
        let inspect =
            |source: &str| run("skopeo", &["inspect", "--authfile", auth, "--tls-verify=false", source]);
        let found: Value = serde_json::from_str(&inspect(&source)).unwrap();
        let digest = found["Digest"].as_str().unwrap();
        // What was promised by digest is there, also when the name means another image, or is gone in part.
        inspect(&format!("{source}@{digest}"));
        let layout = format!("oci:{}:x", room.path().join("oci").display());
        run("skopeo", &["copy", "-q", "--src-authfile", auth, "--src-tls-verify=false", &source, &layout]);
        if !is_installed("umoci") {
            return;
        }
        // A new layer, with gzip.
        let (image, bundle) = (layout.trim_start_matches("oci:"), room.path().join("bundle"));
        run("umoci", &["unpack", "--image", image, bundle.to_str().unwrap()]);
        fs::write(bundle.join("rootfs/hello"), "hello from umoci").unwrap();
        run("umoci", &["repack", "--image", image, bundle.to_str().unwrap()]);
        let manifest: Value = serde_json::from_str(&run("skopeo", &["inspect", "--raw", &layout])).unwrap();
        let id = manifest["config"]["digest"].as_str().unwrap();
        // What is pushed is an image here, comes back byte for byte, and is cloned from here.
        let to = |name: &str| format!("docker://127.0.0.1:{port}/{name}");
        let push = |layout: &str, name: &str| {
            let ran = Command::new("timeout")
                .args([
                    LIMIT,
                    "skopeo",
                    "copy",
                    "-q",
                    "--dest-authfile",
                    auth,
                    "--dest-tls-verify=false",
                    layout,
                ])
                .arg(to(name))
                .output()
                .unwrap();
            (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
        };
        assert_eq!(push(&layout, "ann/new:v1"), (true, String::new()));
        assert_eq!(id_of(&server, "ann/new:v1"), id);
        let raw = |source: &str| {
            run("skopeo", &["inspect", "--raw", "--authfile", auth, "--tls-verify=false", source])
        };
        let manifest = raw(&to("ann/new:v1"));
        assert!(manifest.contains("tar+gzip"), "its layer is given as it came: {manifest}");
        let (status, _, said) = walt_at(&second, &home, &[], &["image", "clone", "other:ann/new:v1", "new"]);
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(id_of(&second, "ann/new:latest"), id);
        // Again: nothing is sent, and its layers are taken from what is here.
        assert_eq!(push(&layout, "ann/new:v2"), (true, String::new()));
        assert_eq!(raw(&to("ann/new:v2")), manifest);
        let (done, said) = push(&layout, "bob/new");
        assert!(!done && said.contains("denied"), "{said}");
        run("umoci", &["config", "--image", image, "--clear", "config.labels"]);
        let (done, said) = push(&layout, "ann/plain");
        assert!(!done && said.contains("does not indicate compatible node models"), "{said}");
        clean(&server);
        // With the last name that means it, all that was kept for it goes.
        for name in ["new:v1", "new:v2"] {
            server.walt(ANN, &["image", "remove", name]).ok();
        }
        server.walt(ANN, &["image", "prune", "-y"]).ok();
        let blobs = server.state_dir().join("images/blobs");
        until("the blobs to be removed", SOON, || (fs::read_dir(&blobs).unwrap().count() == 0).then_some(()));
        clean(&server);
    }
}
