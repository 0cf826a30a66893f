//! The state of an older server is migrated, that of a newer one is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use walt_testkit::{Options, TestServer, User, repository};

/// The version of the database in `tests/fixtures/database`.
const OLD: u32 = 14;
/// Where its version stands in a database file (SQLite's file format, 1.3).
const USER_VERSION: usize = 60;

/// A server, not started, on the database of an older one.
fn with_old_database() -> TestServer {
    let server = TestServer::prepare(Options::default());
    fs::create_dir_all(server.state_dir()).unwrap();
    let from = repository().join(format!("tests/fixtures/database/v{OLD}.sqlite.zst"));
    let unpacked =
        Command::new("zstd").args(["-d", "-q", "-f"]).arg(from).arg("-o").arg(database(&server)).status();
    assert!(unpacked.unwrap().success());
    server
}

fn database(server: &TestServer) -> PathBuf {
    server.state_dir().join("walt.sqlite")
}

fn version(database: &Path) -> u32 {
    let bytes = fs::read(database).unwrap();
    u32::from_be_bytes(bytes[USER_VERSION..USER_VERSION + 4].try_into().unwrap())
}

/// Copies that were put aside.
fn copies(server: &TestServer) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.state_dir()).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("db.before-v")).collect()
}

/// All that the old database says is there.
#[track_caller]
fn is_whole(server: &TestServer) {
    let devices = server.walt(User::Root, &["device", "show"]).ok();
    assert!(devices.contains("old-printer") && devices.contains("old-switch"), "{devices}");
    // Its address is not one of this server's network, where the setting would be in effect.
    let settings = "select mac, value from main.device_settings;\n";
    let settings = server.walt_with_input(User::Root, &["advanced", "sql"], settings).ok();
    assert!(settings.contains("52:54:00:00:99:01 | NAT"), "{settings}");
    // In a table that the migration has made.
    server.walt(User::RootFor("ann"), &["log", "add-checkpoint", "after"]).ok();
    let list = server.walt(User::RootFor("ann"), &["log", "list-checkpoints"]).ok();
    assert!(list.contains("after"), "{list}");
    server.walt(User::RootFor("ann"), &["log", "remove-checkpoint", "after"]).ok();
}

#[test]
fn an_older_database_is_put_aside_and_migrated() {
    let mut server = with_old_database();
    let check = server.server_command(&["check-config"]).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains(&format!("brings the database from version {OLD} to ")), "{said}");
    assert_eq!(version(&database(&server)), OLD, "a check changes nothing");
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    is_whole(&server);
    let [copy] = copies(&server).try_into().unwrap();
    assert_eq!(version(&copy), OLD);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(server.log().contains("migrating the database"), "{}", server.log());

    // Back to the copy, by hand, as the help page says.
    server.down();
    let newer = server.state_dir().join("newer");
    fs::create_dir(&newer).unwrap();
    for entry in fs::read_dir(server.state_dir()).unwrap().map(|e| e.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("walt.sqlite") {
            fs::rename(&entry, newer.join(entry.file_name().unwrap())).unwrap();
        }
    }
    fs::rename(&copy, database(&server)).unwrap();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    is_whole(&server);
}

#[test]
fn a_crash_while_it_is_migrated_does_not_matter() {
    for point in ["migrate-copied", "migrate-kept", "migrate-steps", "migrate-done"] {
        let mut server = with_old_database();
        let ended = server.launch_with(&[("WALT_FAIL_STORE", point)]).err();
        let ended = ended.unwrap_or_else(|| panic!("it was not killed at {point}"));
        assert_eq!(ended.status, None, "{point}: {ended:?}");
        server.launch().unwrap_or_else(|e| panic!("{point}: {e:?}"));
        is_whole(&server);
        let copies = copies(&server);
        assert!(!copies.is_empty() && copies.iter().all(|copy| version(copy) == OLD), "{point}: {copies:?}");
    }
}

#[test]
fn the_state_of_a_newer_server_is_refused_and_left_as_it_is() {
    let mut server = TestServer::start();
    server.down();
    let path = database(&server);
    assert!(!path.with_extension("sqlite-wal").exists(), "the file is not all of the database");
    let ours = version(&path);
    let formats = server.state_dir().join("formats.json");
    let says = fs::read_to_string(&formats).unwrap();
    let newer_release =
        says.replace(&format!("\"release\": \"{}\"", env!("CARGO_PKG_VERSION")), "\"release\": \"99.1.0\"");
    assert_ne!(newer_release, says, "{says}");
    let field = |name: &str| format!("\"{name}\": 1");
    let cases = [
        ("database", newer_release.clone(), ours + 1, ours),
        ("store of log lines", newer_release.replace(&field("logs"), "\"logs\": 2"), 2, 1),
        ("image store", newer_release.replace(&field("images"), "\"images\": 2"), 2, 1),
        ("image shell", newer_release.replace(&field("sessions"), "\"sessions\": 2"), 2, 1),
    ];
    let content = fs::read(&path).unwrap();
    for (what, text, theirs, known) in cases {
        fs::write(&formats, &text).unwrap();
        let mut bytes = content.clone();
        if what == "database" {
            bytes[USER_VERSION..USER_VERSION + 4].copy_from_slice(&theirs.to_be_bytes());
        }
        fs::write(&path, &bytes).unwrap();
        let wanted = format!(
            "{what} has version {theirs}, and this walt-server {} knows version {known} only",
            env!("CARGO_PKG_VERSION")
        );
        let ended = server.launch().err().unwrap_or_else(|| panic!("{what}: it started"));
        let refusal = ended.log.lines().last().unwrap().to_owned();
        for part in [&wanted, "was last used by walt-server 99.1.0", "nothing was changed", "server-upgrade"]
        {
            assert!(refusal.contains(part), "{part} in {refusal}");
        }
        for command in [&["down"][..], &["check-config"], &["backup", "/nonexistent/x"]] {
            let ran = server.server_command(command).output().unwrap();
            let said = String::from_utf8(ran.stderr).unwrap();
            assert_eq!(ran.status.code(), Some(1), "{command:?}: {said}");
            assert!(said.contains(&wanted) && said.lines().count() == 1, "{command:?}: {said}");
        }
        if what == "database" {
            let ran = server.server_command(&["status"]).output().unwrap();
            let said = String::from_utf8(ran.stderr).unwrap();
            assert!(said.contains(&wanted), "status: {said}");
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: the database was changed");
        assert_eq!(fs::read_to_string(&formats).unwrap(), text, "{what}: the record was changed");
        assert_eq!(copies(&server), [] as [PathBuf; 0]);
    }
    fs::write(&path, &content).unwrap();
    fs::write(&formats, says).unwrap();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
}
