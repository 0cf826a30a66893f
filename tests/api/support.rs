//! `walt-server support-bundle`: it is there in all states of a server, and has no secrets.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};
use walt_testkit::{Options, TestServer, User, until};

/// What is planted: passwords, keys and tokens, none of which may be in a bundle.
const LOKI: &str = "planted-loki-password";
const COMMENT: &str = "planted-comment-password";
const URL: &str = "planted-url-token";
const QUERY: &str = "planted-query-signature";

fn bundle(server: &TestServer, to: &Path) -> Output {
    let _ = fs::remove_file(to);
    let made =
        server.server_command(&["support-bundle", "--check-store", "20", to.to_str().unwrap()]).output();
    made.unwrap()
}

/// Unpacks a bundle; its directory.
fn unpack(server: &TestServer, bundle: &Path) -> PathBuf {
    let dir = server.dir().join("unpacked");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(bundle).arg("-C").arg(&dir).output().unwrap();
    assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
    let top: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(top.len(), 1, "{top:?}");
    top[0].clone()
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Secrets of a server's state: its keys, line by line, and the key of its tokens.
fn secrets(server: &TestServer) -> Vec<String> {
    let mut secrets: Vec<String> = [LOKI, COMMENT, URL, QUERY].map(str::to_owned).into();
    for name in ["id_ecdsa", "ssh_host_ecdsa_key"] {
        let key = fs::read_to_string(server.state_dir().join("keys").join(name)).unwrap();
        let lines: Vec<&str> = key.lines().filter(|l| !l.starts_with("-----")).collect();
        assert!(lines.len() > 2, "{name} is a key");
        // The last line of such a key is short, and mostly padding.
        secrets.extend(lines.iter().filter(|l| l.len() > 40).map(|l| (*l).to_owned()));
    }
    secrets
}

#[track_caller]
fn assert_clean(dir: &Path, secrets: &[String]) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        for secret in secrets {
            assert!(!text.contains(secret.as_str()), "{secret:?} is in {}", entry.path().display());
        }
        assert!(!text.contains("PRIVATE KEY"), "a key is in {}", entry.path().display());
    }
}

#[test]
fn it_has_what_is_needed_and_no_secrets() {
    let config = format!(
        "# the old password was {COMMENT}\nlogs: {{forward: {{loki: \"http://bob:{LOKI}@127.0.0.1:9/x\"}}}}\n"
    );
    let mut server =
        TestServer::start_with(Options { config, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"));
    let tiny = walt_testkit::images::tiny(server.dir());
    server.import(walt_testkit::images::TINY, &tiny);
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).ok();
    // Secrets in what users say, which goes to the log of the platform.
    let action = serde_json::json!({"action": "clone", "link": format!("lab:x?token={QUERY}")});
    server.api(Some("ann")).post("/api/v1/actions/image", &action, None);
    server.walt(
        User::RootFor("ann"),
        &["image", "build", "--from-url", &format!("https://{URL}@127.0.0.1:9/x.git?sig={QUERY}"), "x"],
    );

    // What happens on the platform is in the store a moment later.
    until("the log of the platform", Duration::from_secs(20), || {
        let show = ["log", "show", "--issuers", "server", "--streams", "platform", "--history", "full"];
        server.walt(User::RootFor("ann"), &show).ok().contains("vn1").then_some(())
    });
    let secrets = secrets(&server);
    let to = server.dir().join("bundle.tar.gz");
    let made = bundle(&server, &to);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let dir = unpack(&server, &to);
    assert_clean(&dir, &secrets);
    let report = read(&dir, "report.txt");
    for name in
        ["status.json", "health.json", "configuration.yaml", "database.txt", "metrics.txt", "check-store.txt"]
    {
        assert!(
            report.contains(&format!("{name}: ")) && !report.contains(&format!("{name}: left out")),
            "{report}"
        );
    }
    assert!(read(&dir, "status.json").contains("\"running\": true"));
    assert!(
        read(&dir, "configuration.yaml").contains("(removed)127.0.0.1:9"),
        "{}",
        read(&dir, "configuration.yaml")
    );
    assert!(
        read(&dir, "server-log.txt").contains(" daemon.info serving"),
        "{}",
        read(&dir, "server-log.txt")
    );
    assert!(read(&dir, "platform-log.txt").contains("vn1"), "{}", read(&dir, "platform-log.txt"));
    assert!(read(&dir, "qemu.txt").contains("qemu-system"), "{}", read(&dir, "qemu.txt"));
    assert!(read(&dir, "nftables.txt").contains(&server.bridge()), "{}", read(&dir, "nftables.txt"));
    assert!(read(&dir, "network.txt").contains(&server.address().to_string()));
    let database = read(&dir, "database.txt");
    assert!(database.contains("nodes: 1 rows") && database.contains("CREATE TABLE nodes"), "{database}");
    assert!(read(&dir, "check-store.txt").contains("no problems found"), "{}", read(&dir, "check-store.txt"));
    // An existing file stays.
    let again = server.server_command(&["support-bundle", to.to_str().unwrap()]).output().unwrap();
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is not replaced"),
        "{again:?}"
    );

    // Without a server, and by standard output.
    server.kill();
    let made = server.server_command(&["support-bundle", "--check-store", "0", "-"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::write(&to, &made.stdout).unwrap();
    let dir = unpack(&server, &to);
    assert_clean(&dir, &secrets);
    let report = read(&dir, "report.txt");
    assert!(report.contains("health.json: left out: cannot reach the WalT server"), "{report}");
    assert!(report.contains("check-store.txt: left out: it was not wanted"), "{report}");
    assert!(read(&dir, "status.json").contains("\"running\": false"));
    assert!(read(&dir, "server-log.txt").contains(" daemon.info serving"));

    // With a configuration that is wrong, too.
    let config = fs::read_to_string(server.config()).unwrap();
    fs::write(server.config(), format!("{config}registry-password: {LOKI}\n")).unwrap();
    let made = bundle(&server, &to);
    fs::write(server.config(), config).unwrap();
    assert!(made.status.success(), "{made:?}");
    let dir = unpack(&server, &to);
    assert_clean(&dir, &secrets);
    assert!(
        read(&dir, "configuration.yaml").contains("It is not valid"),
        "{}",
        read(&dir, "configuration.yaml")
    );
}
