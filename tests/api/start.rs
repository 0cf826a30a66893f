//! A server that cannot start says why, by whom, and what to do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use walt_testkit::{Machine, Options, TestServer, User};

/// Starts a server that must not start; its log.
#[track_caller]
fn refused(options: Options) -> String {
    match TestServer::start_with(options) {
        Ok(_) => panic!("it started"),
        Err(ended) => {
            assert_eq!(ended.status, Some(1), "{ended:?}");
            assert!(ended.log.contains("Error: "), "{ended:?}");
            ended.log
        }
    }
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found =
        std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|d| d.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed"))
}

/// A `PATH` with all programs that a server calls, but one.
pub(super) fn path_without(server_dir: &Path, missing: &str) -> String {
    let dir = server_dir.join(format!("without-{missing}"));
    fs::create_dir_all(&dir).unwrap();
    for name in ["runc", "nft", "ssh", "ssh-keygen", "qemu-system-x86_64"] {
        if name != missing {
            symlink(program(name), dir.join(name)).unwrap();
        }
    }
    dir.display().to_string()
}

fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(format!("/var/tmp/walt-test-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn misspelt_configuration_key() {
    let options = Options { config: "stat-dir: /x\n".into(), ..Options::default() };
    let server = TestServer::prepare(options.clone());
    let check = server.server_command(&["check-config"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(1));
    assert!(said.contains("stat-dir") && said.contains("line 7"), "{said}");
    let log = refused(options);
    assert!(log.contains("stat-dir") && log.contains("line 7"), "{log}");
}

#[test]
fn a_second_server_on_the_same_state() {
    let server = TestServer::start();
    let log = refused(Options { state_dir: Some(server.state_dir()), ..Options::default() });
    assert!(log.contains("in use by another walt-server"), "{log}");
    server.walt(User::Root, &["node", "show"]).ok();
}

#[test]
fn a_state_directory_on_ramfs() {
    let dir = scratch("ramfs");
    let mount = format!("mount -t ramfs none {} && exec \"$@\"", dir.display());
    let wrapper = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
    let log = refused(Options { state_dir: Some(dir.join("state")), wrapper, ..Options::default() });
    assert!(log.contains("cannot open files by handle") && log.contains("ext4, xfs, btrfs"), "{log}");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_state_directory_on_overlayfs() {
    let dir = scratch("overlay");
    for part in ["lower", "upper", "work", "at"] {
        fs::create_dir(dir.join(part)).unwrap();
    }
    let mount = format!(
        "cd {} && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none at && cd / && exec \"$@\"",
        dir.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
    let log = refused(Options { state_dir: Some(dir.join("at/state")), wrapper, ..Options::default() });
    assert!(log.contains("cannot open files by handle") && log.contains("ext4, xfs, btrfs"), "{log}");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn missing_runc() {
    let dir = scratch("path");
    let log = refused(Options { path: Some(path_without(&dir, "runc")), ..Options::default() });
    assert!(log.contains("runc") && log.contains("install"), "{log}");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn missing_qemu() {
    let dir = scratch("path-qemu");
    let path = Some(path_without(&dir, "qemu-system-x86_64"));
    let server =
        TestServer::start_with(Options { path, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"));
    server.import("pc-x86-64-default", &walt_testkit::images::tiny(server.dir()));
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).fails(1, "qemu-system-x86");
    assert_eq!(server.walt(User::RootFor("ann"), &["node", "show", "--names-only"]).ok(), "");
    // Its end needs the other programs.
    drop(server);
    fs::remove_dir_all(&dir).unwrap();
}

/// In a network namespace of its own, where the port can be held without disturbing other tests.
#[test]
fn a_port_in_use_names_its_holder() {
    let script = "ip link set lo up; busybox nc -l -p 2049 & holder=$!; \
                  until ss -ltn | grep -q :2049; do sleep 0.05; done; \
                  \"$@\"; status=$?; kill $holder; exit $status";
    let wrapper = ["unshare", "-n", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let log = refused(Options { wrapper, ..Options::default() });
    assert!(log.contains("2049") && log.contains("busybox") && log.contains("process "), "{log}");
}

/// `down` removes what the server has set up, also when the server was killed before.
#[test]
fn down_leaves_the_machine_as_it_was() {
    let mut server = TestServer::prepare(Options::default());
    let before = Machine::now();
    // Other tests' servers come and go meanwhile: only what carries this one's name counts.
    let mark = server.bridge();
    let changes = || -> String {
        Machine::now()
            .changes_since(&before)
            .lines()
            .filter(|l| l.contains(&mark))
            .collect::<Vec<_>>()
            .join("\n")
    };
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert!(changes().contains("link is there now"));
    server.kill();
    assert!(changes().contains("link is there now"), "a killed server leaves its network to the next one");
    server.down();
    assert_eq!(changes(), "");
}
