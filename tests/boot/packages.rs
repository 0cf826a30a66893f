//! The packages: what they contain, and a machine on which they are installed, upgraded, removed and purged.

mod container;

use super::{BOOT, BOOT_SECONDS, MINI, SOON};
use container::Container;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use walt_testkit::{images, programs, repository, until};

/// How long systemd may take to start the server again.
const AGAIN: Duration = Duration::from_secs(30);
/// A version above every one that we have.
pub const NEWER: &str = "999.0-1";

/// Packs the programs under test; the directory of the result.
pub fn package(out: &Path, version: &[&str]) {
    let mut package = Command::new(repository().join("scripts/package"));
    package.args(["--profile", "dev", "--programs"]).arg(programs()).arg("--out").arg(out).args(version);
    let output = package.output().unwrap();
    assert!(output.status.success(), "scripts/package: {}", String::from_utf8_lossy(&output.stderr));
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one file of a directory whose name begins and ends so.
pub fn file(dir: &Path, begin: &str, end: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|p| {
        let name = p.file_name().unwrap().to_string_lossy();
        name.starts_with(begin) && name.ends_with(end)
    });
    assert_eq!(found.len(), 1, "{begin}*{end}: {found:?}");
    found.remove(0)
}

/// Names in the overview of a command's help: lines with two columns below the heading.
fn commands(program: &Path, path: &[&str]) -> Vec<String> {
    let help = said(program.to_str().unwrap(), &[path, &["--help"]].concat());
    let list = ["Categories:\n", "Sub-commands:\n", "Commands:\n"].iter().find_map(|h| help.split_once(h));
    let Some((_, list)) = list else { return Vec::new() };
    list.lines()
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The list of what is inside says what CycloneDX 1.5 asks for, names each thing once, and leads nowhere.
fn check_list(list: &Value, name: &str, with: &str, without: &str) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned();
    assert_eq!((text(&list["bomFormat"]), text(&list["specVersion"])), ("CycloneDX".into(), "1.5".into()));
    assert!(text(&list["serialNumber"]).starts_with("urn:uuid:") && list["version"] == 1);
    let program = &list["metadata"]["component"];
    assert_eq!((text(&program["name"]), text(&program["type"])), (name.into(), "application".into()));
    let mut known = BTreeSet::from([text(&program["bom-ref"])]);
    let mut names = BTreeSet::new();
    for component in list["components"].as_array().unwrap() {
        assert_eq!(component["type"], "library", "{component}");
        assert!(!text(&component["version"]).is_empty());
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        assert!(known.insert(text(&component["bom-ref"])), "twice: {component}");
        names.insert(text(&component["name"]));
    }
    let edges = list["dependencies"].as_array().unwrap();
    assert_eq!(edges.len(), known.len());
    for edge in edges {
        let belows = edge["dependsOn"].as_array().unwrap().iter();
        belows.chain([&edge["ref"]]).for_each(|r| assert!(known.contains(&text(r)), "{r} leads nowhere"));
    }
    assert!(names.contains(with) && names.contains("tokio"), "{names:?}");
    assert!(!names.contains(without) && !names.contains("clap_derive"), "only what is linked: {names:?}");
}

/// The packages have the programs with their pages, the unit and what belongs to it, and say what they need.
#[test]
fn packages_have_what_they_need() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let out = dir.path().join("out");
    package(&out, &[]);
    let tree = dir.path().join("tree");
    for begin in ["walt_", "walt-server_"] {
        said("dpkg-deb", &["-x", file(&out, begin, ".deb").to_str().unwrap(), tree.to_str().unwrap()]);
    }
    for (program, section, place) in [("walt", "1", "usr/bin"), ("walt-server", "8", "usr/sbin")] {
        let installed = tree.join(place).join(program);
        let pages = tree.join(format!("usr/share/man/man{section}"));
        let page = |words: &[&str]| {
            let page = pages.join(format!("{}.{section}.gz", words.join("-")));
            let text = said("gzip", &["-dc", page.to_str().unwrap()]);
            assert!(text.starts_with(".TH ") || text.starts_with(".so "), "{words:?}: {text}");
            text
        };
        let categories = commands(&installed, &[]);
        assert!(categories.len() >= 7, "{categories:?}");
        let mut count = 1;
        for category in &categories {
            page(&[program, category]);
            let below = commands(&installed, &[category]);
            below.iter().for_each(|command| drop(page(&[program, category, command])));
            count += 1 + below.len();
            assert!(page(&[program]).contains(&format!(
                "{}\\-{}",
                program.replace('-', "\\-"),
                category.replace('-', "\\-")
            )));
        }
        let also = usize::from(program == "walt-server");
        assert_eq!(fs::read_dir(pages).unwrap().count(), count + also, "pages of {program}");
    }
    assert_eq!(fs::read_link(tree.join("usr/sbin/walt-dhcp-event")).unwrap(), Path::new("walt-server"));
    let field = |begin: &str, name: &str| {
        said("dpkg-deb", &["-f", file(&out, begin, ".deb").to_str().unwrap(), name])
    };
    for needed in ["runc", "nftables", "openssh-client", "libc6 (>= 2."] {
        assert!(field("walt-server_", "Depends").contains(needed), "{needed}");
    }
    // Whoever gets qemu from a recommendation must not lack the loaders and the tool of recipes.
    for wanted in ["qemu-system-x86", "ipxe", "mmdebstrap", "qemu-user-static"] {
        assert!(field("walt-server_", "Recommends").contains(wanted), "{wanted}");
    }
    let list = |name: &str| -> Value {
        let doc = tree.join(format!("usr/share/doc/{name}/{name}.cdx.json"));
        serde_json::from_slice(&fs::read(doc).unwrap()).unwrap()
    };
    check_list(&list("walt"), "walt-cli", "clap", "rusqlite");
    check_list(&list("walt-server"), "walt-server", "sqlite", "proptest");
    let copyright = fs::read_to_string(tree.join("usr/share/doc/walt-server/copyright")).unwrap();
    assert!(
        copyright.starts_with("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n")
    );
    assert!(copyright.contains("\nFiles: crates/rusqlite-"), "crates are named");
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(tree.join("usr/lib/systemd/system/walt-server.service"))
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
    // The program is not installed on this machine.
    let complaints: Vec<&str> = complaints.lines().filter(|l| !l.contains("is not executable")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    // The tarball is the client alone, from one directory.
    let tarball = file(&out, "walt-", ".tar.gz");
    let inside = said("tar", &["-tzf", tarball.to_str().unwrap()]);
    let top = tarball.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz");
    assert!(inside.lines().all(|l| l.starts_with(top)) && inside.contains("/bin/walt\n"), "{inside}");
}

/// What of the server is on a machine: processes, links, rules, control groups, files of the run directory.
const LEFT: &str = "for p in /proc/[0-9]*/exe; do readlink $p | grep -E 'walt|qemu' || :; done
    ip -o link | grep -E 'walt|w[a-z]*[0-9a-f]{4}' || :
    nft list tables | grep walt || :
    ls -d /sys/fs/cgroup/*/walt /sys/fs/cgroup/walt /run/walt 2>/dev/null || :";

/// Packages are installed on a Debian with systemd; the server starts when it is told, and outlives a crash; a newer
/// package restarts it, with a node and a shell that go on; what is removed leaves the state, what is purged nothing.
#[test]
fn installed_upgraded_removed_purged() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        println!("skipped: packages on a machine with systemd take minutes; WALT_TEST_LONG=1 asks for it");
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    package(dir.path(), &[]);
    package(&dir.path().join("newer"), &["--version", NEWER]);
    let machine = Container::start(dir.path());
    machine.must(
        "apt-get -q update
        apt-get -q install -y --no-install-recommends /packages/walt_*.deb /packages/walt-server_*.deb",
    );
    // It takes over a network: not before somebody has said so.
    assert_eq!(machine.must("systemctl is-active walt-server || :"), "inactive\n");
    assert_eq!(machine.must("systemctl is-enabled walt-server || :"), "disabled\n");
    assert!(machine.must("id walt-qemu").contains("(kvm)"));
    assert_eq!(machine.must("stat -c %a /var/lib/walt /run/walt"), "700\n711\n");
    assert_eq!(machine.must("walt-server check-config"), "The configuration is valid.\n");

    configure(&machine);
    started(&machine);
    assert!(machine.must("su -s /bin/sh nobody -c 'walt node show' 2>&1").contains("No nodes"));
    a_crash_and_an_order(&machine);
    a_node_and_a_shell_through_an_upgrade(&machine);

    machine.must("apt-get -q remove -y walt-server");
    assert_eq!(machine.must(LEFT), "", "after removal");
    machine.must("test -s /var/lib/walt/walt.sqlite && test -s /etc/walt/server.conf && ! test -e /usr/sbin/walt-server");
    // What was enabled starts when it is installed again, with its state.
    machine.must("apt-get -q install -y --no-install-recommends /packages/newer/walt-server_*.deb");
    started(&machine);
    assert!(machine.must("walt node show --all").contains("n1"));

    machine.must("apt-get -q purge -y walt-server walt");
    assert_eq!(machine.must(LEFT), "", "after purge");
    let names = "find / -xdev -path /packages -prune -o -name '*walt*' -print; getent passwd walt-qemu || :";
    assert_eq!(machine.must(names), "", "after purge");
    assert_eq!(machine.must("systemctl list-units --all --no-legend 'walt*'"), "");
}

/// Makes the server's network and starts it, as the message of the package says.
fn configure(machine: &Container) {
    // A program without sd_notify never says that it is ready.
    if !fs::read(programs().join("walt-server")).unwrap().windows(13).any(|w| w == b"WATCHDOG_USEC") {
        machine.must(
            "mkdir -p /etc/systemd/system/walt-server.service.d
            printf '[Service]\\nType=exec\\nWatchdogSec=0\\n' >/etc/systemd/system/walt-server.service.d/test.conf
            systemctl daemon-reload",
        );
    }
    machine.must("walt-server setup --yes --default-image none");
    assert_eq!(machine.must("systemctl is-enabled walt-server"), "enabled\n");
}

/// Waits for the server; its process.
#[track_caller]
fn started(machine: &Container) -> String {
    until("the server in the container", AGAIN, || {
        machine.run("walt node show --all").status.success().then_some(())
    });
    machine.must("systemctl show -P MainPID walt-server").trim().to_owned()
}

/// A server that is killed comes back; one that is told to go stays away.
fn a_crash_and_an_order(machine: &Container) {
    let first = started(machine);
    machine.must(&format!("kill -9 {first}"));
    until("another server", AGAIN, || {
        let now = machine.must("systemctl show -P MainPID walt-server");
        (now.trim() != first && now.trim() != "0").then_some(())
    });
    started(machine);
    machine.must("walt-server down");
    machine.must("sleep 4; systemctl show -P ActiveState walt-server | grep -x inactive");
    assert!(!machine.must("ip -o link").contains("walt-net"));
    machine.must("systemctl start walt-server");
    started(machine);
}

/// The sandbox lets the server do its work: a virtual node boots, a shell has a user namespace, an image is built. A
/// newer package restarts the server; the node and the shell do not notice.
fn a_node_and_a_shell_through_an_upgrade(machine: &Container) {
    let status = machine.must("walt-server status");
    assert!(status.contains("Shells:    in user namespaces"), "{status}");
    assert!(status.contains("Errors:    none"), "{status}");
    machine.must("apt-get -q install -y --no-install-recommends qemu-system-x86");
    let made = images::built(MINI);
    for name in ["rootfs.tar", "config.json"] {
        fs::copy(made.join(name), machine.path("/var/tmp").join(name)).unwrap();
    }
    let import = json!({"action": "import-default-image", "name": MINI, "dir": "/var/tmp"});
    let reply = machine.api().post("/api/v1/actions/admin", &import, None);
    assert!(reply.events().last().is_some_and(|e| e["ok"] == true), "{reply:?}");
    machine.must(&format!(
        "walt image clone -y walt:waltplatform/{MINI}
        walt node create -y --image {MINI} n1
        walt node config n1 boot.timeout=none
        walt node wait --timeout {BOOT_SECONDS} n1
        mkdir /var/tmp/context
        printf 'FROM {MINI}\\nRUN echo built >/built && chown 1:1 /built\\n' >/var/tmp/context/Dockerfile
        walt image build --from-dir /var/tmp/context made"
    ));
    let boot = machine.must("walt node run n1 cat /proc/sys/kernel/random/boot_id");
    let mut shell = machine.walt(&["image", "shell", MINI]);
    shell.expect("# ", BOOT);
    shell.must("echo before >/upgrade", SOON);

    let first = started(machine);
    let configuration = machine.must("sha256sum /etc/walt/server.conf");
    machine.must("apt-get -q install -y --no-install-recommends /packages/newer/walt-server_*.deb");
    let second = started(machine);
    assert_ne!(first, second, "a newer package restarts the server");
    assert_eq!(machine.must("sha256sum /etc/walt/server.conf"), configuration);
    assert_eq!(machine.must("dpkg-query -W -f '${Version}' walt-server"), NEWER);
    assert_eq!(machine.must("walt node run n1 cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(shell.must("cat /upgrade", SOON).trim(), "before");
    shell.line("exit");
    shell.expect("New image name", SOON);
    shell.line("after");
    let (ended, text) = shell.end(SOON);
    assert!(ended.success(), "{text}");
    let errors = machine.must("walt-server status | sed -n '/^Errors/,$p'");
    assert!(errors.starts_with("Errors:    none"), "{errors}");
}
