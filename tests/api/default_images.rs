//! `walt advanced update-default-images`: recipes that are newer than what they have made.

use crate::registries::id_of;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use walt_testkit::cut::{How, cut};
use walt_testkit::{Options, TestServer, User, images, until};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
const EVE: User = User::RootFor("eve");
const DEFAULT: &str = "waltplatform/pc-x86-64-default:latest";
const MINI: &str = "waltplatform/pc-x86-64-mini:latest";
const UPDATE: [&str; 2] = ["advanced", "update-default-images"];
/// How long something may take that needs no network.
const SOON: Duration = Duration::from_secs(120);

/// What makes a Debian for the recipe: a few files, or what `mode` says.
const MMDEBSTRAP: &str = r#"#!/bin/sh
while [ $# -gt 3 ]; do shift; done
here=${0%/*}
echo "$TMPDIR" >>"$here/dirs"
case $(cat "$here/mode") in
fail) echo "E: the mirror is on fire" >&2; exit 3 ;;
hang) exec 9>"$here/held"; flock 9; : >"$here/hangs"; sleep 3600; exit 1 ;;
once) echo hang-next >"$here/mode" ;;
esac
mkdir -p "$2" && cd "$2" || exit 1
mkdir -p etc/ssh/sshd_config.d etc/default etc/apt/apt.conf.d etc/dpkg/dpkg.cfg.d etc/tmpfiles.d \
    etc/systemd/system usr/bin boot/pc-x86-64
echo 'root:*:1:0:99999:7:::' >etc/shadow
cp "$here/kernel" boot/pc-x86-64/kernel
echo initrd >boot/pc-x86-64/initrd
"#;
/// Where the packages would come from; what recipes call first.
const APT_GET: &str = r#"#!/bin/sh
here=${0%/*}
if [ "$(cat "$here/mode")" = hang-next ]; then
    echo "$TMPDIR" >>"$here/dirs"
    exec 9>"$here/held"; flock 9; : >"$here/hangs"; sleep 3600; exit 1
fi
echo 'http://debian.example/debian bookworm main Debian'
"#;

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn newer_recipes_are_run_and_clones_stay() {
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    program(&room.path().join("mmdebstrap"), MMDEBSTRAP);
    program(&room.path().join("apt-get"), APT_GET);
    let mode = |mode: &str| fs::write(room.path().join("mode"), mode).unwrap();
    mode("fail");
    let path = format!("{}:{}", room.path().display(), std::env::var("PATH").unwrap());
    let mut server = TestServer::prepare(Options { config: "registries: []\n".into(), ..Options::default() });
    server.launch_with(&[("PATH", &path)]).unwrap_or_else(|e| panic!("{e:?}"));
    // An image that no recipe of ours has made has none that is newer.
    let dir = images::tiny(server.dir());
    fs::copy(dir.join("rootfs/boot/pc-x86-64/kernel"), room.path().join("kernel")).unwrap();
    server.import(images::TINY, &dir);
    let said = server.walt(ANN, &UPDATE).ok();
    assert!(said.contains("No updates available."), "{said}");

    fs::write(dir.join("recipe"), "0123456789abcdef\n").unwrap();
    server.import(images::TINY, &dir);
    let old = id_of(&server, DEFAULT);
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["node", "release", "vn1"]).ok();
    let clone = id_of(&server, "ann/pc-x86-64:latest");

    // A failure costs its line.
    let failed = server.walt(ANN, &UPDATE);
    let says =
        format!("{DEFAULT} was not updated: its recipe failed (exit status: 3: E: the mirror is on fire)");
    assert!(failed.status == Some(1) && failed.err.contains(&says), "{failed:?}");
    assert_eq!(id_of(&server, DEFAULT), old);
    assert!(server.log().contains("the mirror is on fire"), "{}", server.log());

    // Whoever does not wait for it any more stops it, and what it has started; so does the server's end.
    mode("hang");
    let held = || File::options().write(true).open(room.path().join("held")).unwrap();
    for server_dies in [false, true] {
        let _ = fs::remove_file(room.path().join("hangs"));
        let mut waiting = server.walt_command(ANN, &UPDATE);
        let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the recipe to hang", SOON, || room.path().join("hangs").exists().then_some(()));
        assert!(held().try_lock().is_err(), "it runs");
        server.walt(BOB, &UPDATE).fails(1, "another update of the default images is running");
        if server_dies {
            server.kill();
            let _ = waiting.wait();
        } else {
            waiting.kill().unwrap();
            waiting.wait().unwrap();
        }
        until("the recipe to end", SOON, || held().try_lock().ok());
    }
    mode("work");
    server.launch_with(&[("PATH", &path)]).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(id_of(&server, DEFAULT), old);

    let said = server.walt(ANN, &UPDATE).ok();
    assert!(said.contains(&format!("Updating {DEFAULT} using a newer recipe...")), "{said}");
    assert!(said.contains("Trying to reboot Node vn1 using this image..."), "{said}");
    let new = id_of(&server, DEFAULT);
    assert_ne!(new, old);
    assert_eq!(id_of(&server, "ann/pc-x86-64:latest"), clone);
    server.walt(EVE, &["image", "show"]).ok();
    assert_eq!(id_of(&server, "eve/pc-x86-64-default:latest"), new);
    let said = server.walt(ANN, &UPDATE).ok();
    assert!(said.contains("No updates available."), "{said}");

    // A client that goes while the next recipe runs: what has landed reboots its nodes.
    let machine = || {
        let mut nodes = fs::read_dir(server.state_dir().join("nodes")).unwrap().flatten();
        fs::read(nodes.next().unwrap().path().join("vm.json")).unwrap_or_default()
    };
    for how in How::ALL {
        server.import(images::TINY, &dir);
        server.import("pc-x86-64-mini", &dir);
        let _ = fs::remove_file(room.path().join("hangs"));
        mode("once");
        let (old, mini) = (id_of(&server, DEFAULT), id_of(&server, MINI));
        let before = machine();
        assert!(!before.is_empty(), "the node runs");
        cut(&server, ANN, &UPDATE, how, |_| room.path().join("hangs").exists());
        assert_ne!(id_of(&server, DEFAULT), old, "that had landed");
        // No file: it is between the two.
        until("the node to reboot", SOON, || {
            let now = machine();
            (!now.is_empty() && now != before).then_some(())
        });
        until("the recipe to end", SOON, || held().try_lock().ok());
        assert_eq!(id_of(&server, MINI), mini);
    }

    let dirs = fs::read_to_string(room.path().join("dirs")).unwrap();
    assert_eq!(dirs.lines().count(), 8, "{dirs}");
    until("the recipes' directories to go", SOON, || {
        dirs.lines().all(|dir| !Path::new(dir).exists()).then_some(())
    });
    let ran = server.server_command(&["check-store", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["clean"], true, "{report:#}");
}
