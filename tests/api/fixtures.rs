//! The states that earlier releases have left (`tests/fixtures/state`) are read by this one.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use walt_testkit::{Options, TestServer, User, repository};

/// The fixtures grow old: what would expire is kept.
const KEEP: &str = "limits: {session-keep: 36500d, trash-keep: 36500d}\nlogs: {keep: 36500d}\n";

fn unpack(archive: &Path, server: &TestServer) {
    fs::create_dir_all(server.state_dir()).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-I", "zstd", "-xpf"]).arg(archive);
    assert!(tar.arg("-C").arg(server.state_dir()).status().unwrap().success());
}

/// Whether all that was said is said again; a later server may say more.
fn says(now: &Value, then: &Value) -> bool {
    match then {
        Value::Object(fields) => fields.iter().all(|(key, value)| says(&now[key], value)),
        other => now == other,
    }
}

/// Each thing of `then` is among those of `now`.
#[track_caller]
fn all_there(what: &str, then: &Value, now: &Value) {
    for thing in then.as_array().unwrap() {
        let found = now.as_array().unwrap().iter().any(|other| says(other, thing));
        assert!(found, "{what}: {thing} is not in {now:#}");
    }
}

/// What a fixture's server said, as far as each later one must say the same.
fn stable(devices: &Value) -> BTreeSet<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = devices["devices"].as_array().unwrap();
    // The server's own address depends on where its run directory is.
    let list = list.iter().filter(|d| d["type"] != "server");
    list.map(|d| (text(&d["name"]), text(&d["mac"]), text(&d["type"]))).collect()
}

#[test]
fn the_state_of_every_release_is_read() {
    let dir = repository().join("tests/fixtures/state");
    let mut archives: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    archives.retain(|path| path.to_string_lossy().ends_with(".tar.zst"));
    archives.sort();
    assert!(!archives.is_empty(), "{} has no states", dir.display());
    for archive in archives {
        eprintln!("the state in {}", archive.display());
        let said = archive.to_string_lossy().replace(".tar.zst", ".json");
        let said: Value = serde_json::from_slice(&fs::read(said).unwrap()).unwrap();
        let mut server = TestServer::prepare(Options { config: KEEP.into(), ..Options::default() });
        unpack(&archive, &server);
        server.launch().unwrap_or_else(|e| panic!("{}: {e:?}", archive.display()));
        let get = |path: &str| server.api(None).get(path).json();
        all_there("nodes", &said["nodes"], &get("/api/v1/nodes")["nodes"]);
        all_there("images", &said["images"], &get("/api/v1/images")["images"]);
        assert_eq!(stable(&said["devices"]), stable(&get("/api/v1/devices")));
        for user in ["ann", "bob"] {
            let list = server.walt(User::RootFor(user), &["log", "list-checkpoints"]).ok();
            for name in said["checkpoints"][user].as_array().unwrap() {
                assert!(list.contains(name.as_str().unwrap()), "{name} in {list}");
            }
        }
        let history = server.walt(User::RootFor("ann"), &["image", "history", "built"]).ok();
        assert!(history.matches("walt image build").count() >= 2 || history.lines().count() > 2, "{history}");
        let log = server
            .walt(User::RootFor("ann"), &["log", "show", "--history", "full", "--issuers", "walt-server"])
            .ok();
        assert!(log.contains("vn1"), "what the old server said: {log}");
        let images = server.walt(User::RootFor("ann"), &["image", "show"]).ok();
        assert!(images.contains("stopped"), "the image shell that was left: {images}");
        let trash = server.walt(User::RootFor("ann"), &["device", "restore", "pn2"]);
        assert_eq!(trash.status, Some(0), "a node from the trash: {trash:?}");
        for command in ["check-store", "check-logs"] {
            let ran = server.server_command(&[command]).output().unwrap();
            let text = [ran.stdout, ran.stderr].map(|s| String::from_utf8(s).unwrap()).concat();
            assert!(ran.status.success() && text.ends_with("no problems found.\n"), "{command}: {text}");
        }
    }
}
