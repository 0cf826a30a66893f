//! `walt-server backup` and `restore`; no node boots. That nodes of a restored server boot: tests/boot/restore.rs.

use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use walt_testkit::{Options, TestServer, User};

const ANN: User = User::RootFor("ann");

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s).into_owned()).concat()
}

#[track_caller]
fn run(server: &TestServer, words: &[&str]) -> String {
    let ran = server.server_command(words).output().unwrap();
    assert!(ran.status.success(), "{words:?}: {}", text(&ran));
    text(&ran)
}

#[track_caller]
fn fails(server: &TestServer, words: &[&str], says: &str) {
    let ran = server.server_command(words).output().unwrap();
    let said = text(&ran);
    assert_eq!(ran.status.code(), Some(1), "{words:?}: {said}");
    assert!(said.contains(says), "{says:?} is not said by {words:?}: {said}");
}

/// A server with nodes, an own image, something in `/persist`, settings and a checkpoint.
fn filled() -> TestServer {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "mine"]).ok();
    let context = server.dir().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM mine\nCOPY file /etc/file\n").unwrap();
    fs::write(context.join("file"), "built\n").unwrap();
    server.walt(ANN, &["image", "build", "--from-dir", context.to_str().unwrap(), "built"]).ok();
    server.walt(ANN, &["node", "config", "vn1", "netsetup=NAT"]).ok();
    server.walt(ANN, &["log", "add-checkpoint", "kept"]).ok();
    let persist = server.state_dir().join("persist/02-00-00-00-00-01/ann");
    fs::create_dir_all(&persist).unwrap();
    fs::write(persist.join("data"), "of a node").unwrap();
    fs::hard_link(persist.join("data"), persist.join("same")).unwrap();
    symlink("data", persist.join("link")).unwrap();
    std::os::unix::fs::chown(persist.join("data"), Some(1234), Some(99)).unwrap();
    server
}

/// Another server, not started.
fn empty() -> TestServer {
    TestServer::prepare(Options::default())
}

fn nodes(server: &TestServer) -> Vec<(String, String, String, Value)> {
    let list = server.api(None).get("/api/v1/nodes").json();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let nodes = list["nodes"].as_array().unwrap();
    nodes
        .iter()
        .map(|n| (text(&n["name"]), text(&n["mac"]), text(&n["image"]), n["config"].clone()))
        .collect()
}

#[track_caller]
fn is_restored(server: &TestServer, like: &TestServer) {
    assert_eq!(nodes(server), nodes(like));
    let ip = |s: &TestServer| {
        s.api(None).get("/api/v1/nodes").json()["nodes"][0]["ip"].as_str().unwrap().to_owned()
    };
    let last = |ip: &str| ip.rsplit('.').next().unwrap().to_owned();
    assert_eq!(last(&ip(server)), last(&ip(like)));
    assert!(ip(server).starts_with(&server.address().to_string()[..server.address().to_string().len() - 1]));
    let images = |s: &TestServer| s.walt(ANN, &["image", "show"]).ok();
    assert_eq!(images(server), images(like));
    assert!(server.walt(ANN, &["log", "list-checkpoints"]).ok().contains("kept"));
    for name in ["id_ecdsa", "ssh_host_ecdsa_key"] {
        let key = |s: &TestServer| fs::read(s.state_dir().join("keys").join(name)).unwrap();
        assert_eq!(key(server), key(like), "{name}");
    }
    assert!(run(server, &["check-store"]).ends_with("no problems found.\n"));
    assert!(run(server, &["check-logs"]).ends_with("no problems found.\n"));
}

#[test]
fn a_running_server_is_backed_up_and_restored_elsewhere() {
    let mut server = filled();
    let backup = server.dir().join("backup");
    let to = backup.to_str().unwrap();
    let said = run(&server, &["backup", to, "--persist"]);
    assert!(
        said.contains("with their layers, log lines, /persist.") && said.contains("private keys"),
        "{said}"
    );
    for path in walk(&backup) {
        let meta = path.symlink_metadata().unwrap();
        assert_eq!((meta.mode() & 0o077, meta.uid()), (0, 0), "{}", path.display());
    }
    // Again: what never changes is not copied again, and what is not needed any more goes.
    server.walt(ANN, &["image", "remove", "built"]).ok();
    server.walt(ANN, &["image", "prune"]);
    let layer = |dir: &Path| -> Vec<(PathBuf, u64)> {
        walk(&dir.join("images/layers"))
            .into_iter()
            .map(|p| (p.clone(), p.metadata().unwrap().ino()))
            .collect()
    };
    let before = layer(&backup);
    run(&server, &["backup", to, "--persist"]);
    assert!(layer(&backup).iter().all(|l| before.contains(l)), "layers were copied again");

    let mut other = empty();
    let said = run(&other, &["restore", to]);
    let changed = format!("node vn1 has the address {}", other.address().to_string().trim_end_matches('1'));
    assert!(said.contains(&changed) && said.contains("compare them"), "{said}");
    let persist = other.state_dir().join("persist/02-00-00-00-00-01/ann");
    assert_eq!(fs::read_to_string(persist.join("link")).unwrap(), "of a node");
    let (data, same) = (persist.join("data").metadata().unwrap(), persist.join("same").metadata().unwrap());
    assert_eq!((data.ino(), data.uid(), data.gid()), (same.ino(), 1234, 99));
    other.launch().unwrap_or_else(|e| panic!("{e:?}"));
    is_restored(&other, &server);

    // A state is not overwritten, not even a stopped server's.
    fails(&other, &["restore", to], "in use by another walt-server");
    other.down();
    fails(&other, &["restore", to], "has a state of a server already");
    let said = run(&other, &["restore", to, "--force"]);
    assert!(said.contains("What was there before is in "), "{said}");
    other.launch().unwrap_or_else(|e| panic!("{e:?}"));
    is_restored(&other, &server);
    server.down();
    // Without a server, too.
    run(&server, &["backup", to]);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].symlink_metadata().unwrap().is_dir() {
            found.extend(fs::read_dir(&found[at]).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>());
        }
        at += 1;
    }
    found
}

#[test]
fn a_backup_is_a_stream_as_well() {
    let server = filled();
    let tar = server.dir().join("backup.tar");
    let ran = server
        .server_command(&["backup", "-", "--persist"])
        .stdout(File::create(&tar).unwrap())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
    let listed = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.ends_with("manifest.json\n") && listed.contains("/walt.sqlite\n"), "{listed}");
    let restore = |server: &TestServer, from: &Path| {
        let mut command = server.server_command(&["restore", "-"]);
        command.stdin(File::open(from).unwrap()).stdout(Stdio::piped()).output().unwrap()
    };
    let mut other = empty();
    // One that was cut off is not taken for a whole one, and does not leave a state that a server takes.
    let cut = server.dir().join("cut.tar");
    let bytes = fs::read(&tar).unwrap();
    for length in [bytes.len() / 2, bytes.len() - 200_000] {
        fs::write(&cut, &bytes[..length]).unwrap();
        let ran = restore(&other, &cut);
        assert_eq!(ran.status.code(), Some(1), "{}", text(&ran));
        let ended = other.launch().err().expect("it started on half a state");
        assert!(ended.log.contains("a restore that was interrupted"), "{ended:?}");
    }
    let ran = restore(&other, &tar);
    assert!(ran.status.success(), "{}", text(&ran));
    assert!(!other.state_dir().join("stage").exists());
    other.launch().unwrap_or_else(|e| panic!("{e:?}"));
    is_restored(&other, &server);
}

#[test]
fn images_by_digest_are_named() {
    let server = filled();
    let backup = server.dir().join("backup");
    let to = backup.to_str().unwrap();
    run(&server, &["backup", to, "--images", "digests", "--no-logs"]);
    assert!(!backup.join("images/layers").exists() && backup.join("images/configs").exists());
    let mut other = empty();
    let said = run(&other, &["restore", to]);
    for part in [
        "4 name(s) of images have no layers here",
        "ann/built:latest",
        "default-image build pc-x86-64-default",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    other.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let images = other.walt(ANN, &["image", "show"]).ok();
    assert!(images.contains("built"), "{images}");
    // The same default image comes back, with all that is above it but what only this server had.
    let tiny = server.dir().join("tiny");
    other.import(walt_testkit::images::TINY, &tiny);
    let report = other.server_command(&["check-store", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().all(|f| f["fault"] == "missing") && !findings.is_empty(), "{report}");
}

#[test]
fn what_is_damaged_interrupted_or_newer_is_refused() {
    let server = filled();
    let backup = server.dir().join("backup");
    let to = backup.to_str().unwrap();
    // Killed while it was made.
    let ran = server.server_command(&["backup", to]).env("WALT_FAIL_STORE", "backup-layer").output().unwrap();
    assert_eq!(ran.status.code(), None, "{}", text(&ran));
    assert!(backup.join("images/layers").exists());
    let mut other = empty();
    fails(&other, &["restore", to], "it is not a backup, or one that was interrupted");
    run(&server, &["backup", to]);

    let manifest = fs::read_to_string(backup.join("manifest.json")).unwrap();
    fs::write(backup.join("manifest.json"), manifest.replace("\"format\": 1", "\"format\": 2")).unwrap();
    fails(&other, &["restore", to], "it has format 2, and this walt-server");
    fs::write(backup.join("manifest.json"), &manifest).unwrap();
    assert!(!other.state_dir().join("walt.sqlite").exists() && !other.state_dir().join("restoring").exists());

    // Killed while it is restored: no server takes it, another restore does.
    for point in ["state-images", "state-database"] {
        let ran = other.server_command(&["restore", to]).env("WALT_FAIL_STORE", point).output().unwrap();
        assert_eq!(ran.status.code(), None, "{point}: {}", text(&ran));
        let ended = other.launch().err().unwrap_or_else(|| panic!("{point}: it started"));
        assert!(ended.log.contains("a restore that was interrupted"), "{ended:?}");
    }
    let layer = fs::read_dir(backup.join("images/layers")).unwrap().next().unwrap().unwrap().path();
    let right = fs::read(&layer).unwrap();
    let mut wrong = right.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    fs::write(&layer, &wrong).unwrap();
    fails(&other, &["restore", to], "is damaged: it does not have the digest that the manifest says");
    fs::write(&layer, &right).unwrap();
    run(&other, &["restore", to]);
    other.launch().unwrap_or_else(|e| panic!("{e:?}"));
    is_restored(&other, &server);
    // Killed while a state is moved aside: it is not lost.
    other.down();
    let ran = other
        .server_command(&["restore", to, "--force"])
        .env("WALT_FAIL_STORE", "state-moved")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), None, "{}", text(&ran));
    let said = run(&other, &["restore", to]);
    let kept = said.split("What was there before is in ").nth(1).unwrap().split(':').next().unwrap();
    assert!(Path::new(kept).join("walt.sqlite").exists() && Path::new(kept).join("keys").exists(), "{said}");

    fails(
        &server,
        &["backup", server.state_dir().join("here").to_str().unwrap()],
        "inside of the state directory",
    );
    let mine = server.dir().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("file"), "").unwrap();
    fails(&server, &["backup", mine.to_str().unwrap()], "'file' in it is not of a backup");
    assert_eq!(fs::metadata(server.state_dir()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn nothing_is_removed_while_a_backup_is_made() {
    let server = filled();
    let lock = File::create(server.state_dir().join("backup.lock")).unwrap();
    lock.lock().unwrap();
    let layers = || fs::read_dir(server.state_dir().join("images/layers")).unwrap().count();
    server.walt(ANN, &["image", "remove", "built"]).ok();
    server.walt(User::Root, &["image", "show"]).ok();
    let count = layers();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(layers(), count, "a layer was removed meanwhile");
    assert!(server.log().contains("a backup is made"), "{}", server.log());
    drop(lock);
    run(&server, &["backup", server.dir().join("b").to_str().unwrap()]);
}
