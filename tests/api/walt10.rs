//! `walt-server import-walt10`: a made-up server of WalT 10 comes here.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use walt_testkit::{TestServer, User, images, repository};

const ANN: User = User::RootFor("ann");
/// The network of the fixture.
const NETWORK: &str = "192.168.152.";

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/walt10").join(name)
}

/// The addresses of a server's network, as the fixture has them.
fn network(server: &TestServer) -> String {
    let address = server.address().to_string();
    address[..=address.rfind('.').unwrap()].to_owned()
}

/// The dump of the fixture, with the network of a server.
fn dump(server: &TestServer) -> PathBuf {
    let text = fs::read_to_string(fixture("dump.sql")).unwrap().replace(NETWORK, &network(server));
    let file = server.dir().join("walt10.sql");
    fs::write(&file, text).unwrap();
    file
}

/// What was `/var/lib/walt/nodes`: `/persist` of a node that comes, of one that does not, and a link.
fn nodes_dir(server: &TestServer) -> PathBuf {
    let dir = server.dir().join("nodes");
    let own = dir.join("52:54:00:0a:0b:01/persist_dirs/ann");
    fs::create_dir_all(&own).unwrap();
    fs::create_dir_all(dir.join("00:11:22:33:44:66/persist_dirs/ann")).unwrap();
    std::os::unix::fs::symlink("52:54:00:0a:0b:01", dir.join("pc-one")).unwrap();
    let made = Command::new("sh")
        .arg("-ec")
        .arg(
            "echo kept >file; ln file second; chown 1234:5678 file; chmod 4751 file; touch -d '2020-01-02 03:04:05.678901234 UTC' file
             truncate -s 100M holes; echo end >>holes; mkfifo fifo; ln -s nowhere link; printf x >\"$(printf 'odd\\377')\"
             python3 -c 'import os; os.setxattr(\"file\", \"user.note\", b\"hello\")'; chmod 1777 .",
        )
        .current_dir(&own)
        .status();
    assert!(made.unwrap().success());
    dir
}

struct Import<'a> {
    server: &'a TestServer,
    dump: PathBuf,
    archive: PathBuf,
    nodes: PathBuf,
}

impl Import<'_> {
    fn run(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (dump, archive, nodes) = (path(&self.dump), path(&self.archive), path(&self.nodes));
        let mut words = vec!["import-walt10", &dump, "--images", &archive, "--persist", &nodes];
        words.extend(more);
        let ran = self.server.server_command(&words).env("TZ", "UTC").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    }
}

fn list(server: &TestServer, words: &[&str]) -> Value {
    serde_json::from_str(&server.walt(ANN, words).ok()).unwrap()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {list:#}"))
}

/// Compares with a file of the fixture; `WALT_UPDATE_SNAPSHOTS=1` writes it.
fn is_snapshot(name: &str, text: &str) {
    if std::env::var_os("WALT_UPDATE_SNAPSHOTS").is_some() {
        fs::write(fixture(name), text).unwrap();
    }
    let expected = fs::read_to_string(fixture(name)).unwrap_or_default();
    assert!(expected == text, "{name} is another text now (WALT_UPDATE_SNAPSHOTS=1 writes it):\n{text}");
}

#[test]
fn a_server_of_walt10_comes_here() {
    let mut server = TestServer::start_tiny();
    let tiny = images::tiny(&server.dir().join("again"));
    let names =
        ["docker.io/ann/pc-tools:v2", "localhost/walt/bob/extra:latest", "docker.io/library/debian:12"];
    let archive = images::saved(server.dir(), &tiny, &names);
    let (dump, nodes) = (dump(&server), nodes_dir(&server));
    let network = network(&server);
    let plain = |text: &str| text.replace(&network, NETWORK);
    let import = |server: &TestServer, words: &[&str]| {
        let (dump, archive, nodes) = (dump.clone(), archive.clone(), nodes.clone());
        Import { server, dump, archive, nodes }.run(words)
    };

    // A dry run may be made while the server runs, an import not.
    let (status, out, err) = import(&server, &["--dry-run"]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    is_snapshot("dry-run.txt", &plain(&out));
    let (status, _, err) = import(&server, &["--yes"]);
    assert!(status == Some(1) && err.contains("an import needs the server to be stopped"), "{err}");
    server.kill();
    let (status, _, err) = import(&server, &[]);
    assert!(status == Some(1) && err.contains("nobody can be asked"), "{err}");
    let before = import(&server, &["--dry-run", "--json"]);

    let (status, out, err) = import(&server, &["--yes"]);
    assert!(status == Some(0) && out.contains("Imported. Start the server"), "{out}{err}");
    let copied = server.state_dir().join("persist/52-54-00-0a-0b-01/ann");
    same_files(&nodes.join("52:54:00:0a:0b:01/persist_dirs/ann"), &copied);
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    what_came(&server, &network);

    // Again: nothing changes.
    server.kill();
    let (status, out, err) = import(&server, &["--yes"]);
    assert!(status == Some(0) && out.ends_with("Nothing new comes: nothing was changed.\n"), "{out}{err}");
    let (_, after, _) = import(&server, &["--dry-run", "--json"]);
    let after: Value = serde_json::from_str(&after).unwrap();
    let before: Value = serde_json::from_str(&before.1).unwrap();
    for (table, counts) in before["tables"].as_object().unwrap() {
        let now = &after["tables"][table];
        let sum = |keys: &[&str]| keys.iter().map(|key| counts[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!((now["comes"].as_u64(), now["kept"].as_u64()), (Some(0), Some(0)), "{table}: {after:#}");
        assert_eq!(now["here"].as_u64(), Some(sum(&["comes", "here", "kept"])), "{table}: {after:#}");
    }
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    what_came(&server, &network);
}

fn what_came(server: &TestServer, network: &str) {
    let nodes = list(server, &["node", "show", "--all", "--json"]);
    let of = |name: &str| {
        let node = named(&nodes["nodes"], name);
        let text = |key: &str| node[key].as_str().unwrap().to_owned();
        (
            text("mac"),
            text("ip").replace(network, NETWORK),
            text("model"),
            text("image"),
            node["config"].clone(),
        )
    };
    let (mac, ip, model, image, config) = of("pc-one");
    assert_eq!(
        (mac.as_str(), ip.as_str(), model.as_str(), image.as_str()),
        ("52:54:00:0a:0b:01", "192.168.152.11", "pc-x86-64", "ann/pc-tools:v2")
    );
    assert_eq!((&config["netsetup"], &config["boot.timeout"]), (&json!("NAT"), &json!(300)));
    let (_, _, model, image, config) = of("rpi-D327");
    assert_eq!((model.as_str(), image.as_str()), ("rpi-3-b", "bob/rpi:latest"));
    assert_eq!((&config["netsetup"], &config["boot.timeout"]), (&json!("LAN"), &Value::Null));
    let (_, _, _, image, config) = of("pc-two");
    assert_eq!(image, "waltplatform/pc-x86-64-default:latest");
    assert_eq!((&config["boot.retries"], &config["expose"]), (&json!(3), &json!("80:8081")));
    let (.., config) = of("vn-lab");
    assert_eq!(
        (&config["ram"], &config["disks"], &config["networks"], &config["boot.delay"]),
        (
            &json!("256M"),
            &json!("8G[template=ext4]"),
            &json!("walt-net,lab[lat=8ms,bw=100Mbps]"),
            &json!("random")
        )
    );
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 5, "{nodes:#}");
    // The names are names of nodes for the commands, too, and their owners are the owners.
    assert_eq!(
        server.walt(ANN, &["node", "show", "--names-only"]).ok(),
        "booted-image-0a0b0f\npc-one\nvn-lab\n"
    );

    let devices = list(server, &["device", "show", "--json"]);
    let switch = named(&devices["devices"], "main-switch");
    assert_eq!(
        (&switch["type"], switch["ip"].as_str().unwrap()),
        (&json!("switch"), format!("{network}2").as_str())
    );
    assert_eq!(named(&devices["devices"], "switch-000002")["ip"], Value::Null);
    assert_eq!(named(&devices["devices"], "printer")["config"]["netsetup"], "NAT");

    let checkpoints = list(server, &["log", "list-checkpoints", "--json"]);
    assert_eq!(checkpoints[0]["name"], "before-upgrade");
    assert_eq!(checkpoints[0]["timestamp"], 1_714_731_072.123_456);
    assert_eq!(checkpoints.as_array().unwrap().len(), 2, "{checkpoints:#}");

    let all = list(server, &["image", "show", "--all", "--json"]);
    let names: Vec<&str> =
        all["images"].as_array().unwrap().iter().map(|i| i["fullname"].as_str().unwrap()).collect();
    let expected =
        ["ann/pc-tools:v2", "bob/extra:latest", "library/debian:12", "waltplatform/pc-x86-64-default:latest"];
    assert_eq!(names, expected);
    let history = server.walt(ANN, &["image", "history", "pc-tools:v2"]).ok();
    assert!(history.contains("walt-server import-walt10"), "{history}");

    // What has no place yet is there for SQL, but not the password of a switch.
    let sql = |statement: &str| server.walt_with_input(ANN, &["advanced", "sql"], statement).ok();
    let ports = sql("SELECT port, name FROM switchports ORDER BY port;");
    assert!(ports.contains("   1 | uplink") && ports.contains("   7 | desk\\tof\\ann"), "{ports}");
    let certs = sql("SELECT vpnmac, certid FROM vpnauth WHERE NOT revoked;");
    assert!(certs.contains(" 52:54:00:99:00:01 | vpn_b827eb123456"), "{certs}");
    let links = sql("SELECT mac1, port1, mac2, port2, confirmed FROM topology ORDER BY mac1;");
    assert!(links.contains("(2 rows)"), "{links}");
    let check = server.server_command(&["check-store"]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
}

/// Owners, modes, times, links, holes, attributes and names.
fn same_files(from: &Path, to: &Path) {
    let list = |dir: &Path| {
        let said = Command::new("sh")
            .arg("-ec")
            .arg(
                "find . -printf '%P %y %m %U:%G %n %s %T@ %l\\n' | LC_ALL=C sort; cat file; md5sum <holes
                python3 -c 'import os; print(os.getxattr(\"file\", \"user.note\"))'",
            )
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        said.stdout
    };
    let (old, new) = (list(from), list(to));
    assert_eq!(String::from_utf8_lossy(&old), String::from_utf8_lossy(&new));
    assert!(String::from_utf8_lossy(&new).contains("1234:5678"), "{}", String::from_utf8_lossy(&new));
    let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("file"), inode("second"));
    assert!(fs::metadata(to.join("holes")).unwrap().blocks() < 10_000, "the hole has taken room");
}

#[test]
fn what_is_no_dump_changes_nothing() {
    let server = TestServer::start_tiny();
    let run = |words: &[&str]| {
        let ran = server.server_command(&[&["import-walt10"], words].concat()).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let file = |name: &str, text: &[u8]| {
        let path = server.dir().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let custom = file("custom", b"PGDMP\x01\x0e\x00");
    let cut = file("cut", b"COPY public.devices (mac) FROM stdin;\n02:00:00:00:00:01\n");
    let good = fixture("dump.sql");
    let good = good.to_str().unwrap();
    let dir = server.dir().to_str().unwrap().to_owned();
    for (words, why) in [
        (vec![custom.as_str(), "--dry-run"], "pg_restore --data-only"),
        (vec![&cut, "--dry-run"], "the dump is truncated"),
        (vec!["/nonexistent", "--dry-run"], "cannot open /nonexistent"),
        (vec![good, "--dry-run", "--images", &cut], "cut: the layer cannot be used: the tar ends"),
        (vec![good, "--dry-run", "--persist", &dir], "give the directory that was /var/lib/walt/nodes"),
        (vec![good, "--dry-run", "--user", "ann"], "is not of the form OLD=NEW"),
    ] {
        let (status, told) = run(&words);
        assert!(status == Some(1) && told.contains(why), "{words:?}: {told}");
    }
    // A dump of gzip, from a pipe; names of users that are others here.
    let piped = Command::new("sh")
        .arg("-ec")
        .arg("gzip -c \"$1\" | \"$2\" import-walt10 - --dry-run --json --user 'Jean Dupont=jean' --config \"$3\"")
        .args(["sh", good, walt_testkit::programs().join("walt-server").to_str().unwrap()])
        .arg(server.config())
        .output()
        .unwrap();
    assert!(piped.status.success(), "{piped:?}");
    let report: Value = serde_json::from_slice(&piped.stdout).unwrap();
    assert_eq!(report["tables"]["checkpoints"]["comes"], 3, "{report:#}");
    let advice = report["advice"][0].as_str().unwrap();
    assert!(advice.contains("The existing server had the address 192.168.152.1 on walt-net"), "{advice}");
}
