//! The NFS server against the client of a real kernel, in a qemu of its own: reading a view, what programs do
//! on `/persist`, and for every procedure the death of the server between what it did and its answer. The
//! guest must see no error.

use super::MINI;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::images;

/// How long the guest may take: about three minutes under TCG on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(1200);
/// How often the console and the server are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Variables of nfs-serve.
const FAIL: &str = "WALT_FAIL_NFS";
const LOSE: &str = "WALT_TEST_LOSE";
const MODULES: [&str; 4] = ["virtio_pci", "virtio_net", "nfsv3", "overlay"];
/// In the order in which the guest calls them: MKDIR, SYMLINK, MKNOD, LINK, RENAME, REMOVE, RMDIR, CREATE,
/// SETATTR, and CREATE with a verifier (RFC 1813, section 3.3).
const ONCE: [u32; 10] = [9, 10, 11, 15, 14, 12, 13, 8, 2, 8];
/// Those that may run twice: WRITE, COMMIT, READDIR, LOOKUP, ACCESS, GETATTR, READ, READLINK, READDIRPLUS,
/// FSSTAT, FSINFO, PATHCONF.
const REPEATED: [u32; 12] = [7, 21, 16, 3, 4, 1, 6, 5, 17, 18, 19, 20];

/// Files by their path in an initramfs (cpio format `newc`).
fn cpio(files: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for (number, (name, mode, data)) in files.iter().enumerate() {
        write!(out, "070701{number:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}", 0, 0, 1, 0).unwrap();
        write!(out, "{:08x}{:08x}{:08x}{:08x}{:08x}", data.len(), 0, 0, 0, 0).unwrap();
        write!(out, "{:08x}{:08x}{name}\0", name.len() + 1, 0).unwrap();
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// Finds all modules below a directory by name.
fn find(dir: &Path, found: &mut HashMap<String, PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            find(&path, found);
        } else if let Some(name) = path.file_name().unwrap().to_str().and_then(|n| n.strip_suffix(".ko")) {
            found.insert(name.replace('-', "_"), path);
        }
    }
}

/// Adds a module's content after those that it needs.
fn load(name: &str, all: &HashMap<String, PathBuf>, order: &mut Vec<PathBuf>) {
    let Some(path) = all.get(&name.replace('-', "_")) else { return }; // built in
    if order.contains(path) {
        return;
    }
    let bytes = std::fs::read(path).unwrap();
    let key = b"\0depends=";
    if let Some(at) = bytes.windows(key.len()).position(|w| w == key) {
        let rest = &bytes[at + key.len()..];
        let list = std::str::from_utf8(rest.split(|b| *b == 0).next().unwrap()).unwrap();
        for needed in list.split(',').filter(|n| !n.is_empty()) {
            load(needed, all, order);
        }
    }
    order.push(path.clone());
}

fn initramfs(modules: &Path, port: u16) -> Vec<u8> {
    let mut files: Vec<(String, u32, Vec<u8>)> = Vec::new();
    for dir in ["bin", "dev", "proc", "sys", "mnt", "mnt/fs", "mnt/p", "modules", "tmp", "etc", "lib"] {
        files.push((dir.into(), 0o040755, Vec::new()));
    }
    files.push(("lib/modules".into(), 0o040755, Vec::new()));
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].iter().find_map(|p| std::fs::read(p).ok());
    files.push(("bin/busybox".into(), 0o100755, busybox.expect("busybox-static is installed")));
    let script = include_str!("nfs-guest.sh").replace("$NFS_PORT", &port.to_string());
    files.push(("init".into(), 0o100755, script.into_bytes()));
    let (mut all, mut order) = (HashMap::new(), Vec::new());
    find(modules, &mut all);
    MODULES.iter().for_each(|m| load(m, &all, &mut order));
    for (n, path) in order.iter().enumerate() {
        files.push((format!("lib/modules/{n:02}.ko"), 0o100644, std::fs::read(path).unwrap()));
    }
    files.push(("TRAILER!!!".into(), 0, Vec::new()));
    cpio(&files)
}

fn make_view(view: &Path) {
    use std::os::unix::fs::symlink;
    for dir in ["etc", "many", "sub/deep", "priv"] {
        std::fs::create_dir_all(view.join(dir)).unwrap();
    }
    std::fs::write(view.join("etc/hello"), "hello\n").unwrap();
    std::fs::hard_link(view.join("etc/hello"), view.join("sub/deep/hard")).unwrap();
    symlink("../etc/hello", view.join("sub/link")).unwrap();
    for (name, args) in [("null", &["c", "1", "3"][..]), ("fifo", &["p"])] {
        let path = view.join("sub").join(name);
        assert!(Command::new("mknod").arg(path).args(args).status().unwrap().success());
    }
    for n in 0..5000 {
        std::fs::write(view.join(format!("many/f{n:05}-{}", "y".repeat(n % 80))), "").unwrap();
    }
    let big: Vec<u8> = (0..20_000_001u32).map(|n| (n * 7 + n / 251) as u8).collect();
    std::fs::write(view.join("big"), big).unwrap();
    let sum = Command::new("md5sum").arg(view.join("big")).output().unwrap().stdout;
    std::fs::write(view.join("big.md5"), sum.split(|b| *b == b' ').next().unwrap()).unwrap();
    std::fs::write(view.join("priv/secret"), "s\n").unwrap();
    std::fs::set_permissions(view.join("priv"), PermissionsExt::from_mode(0o700)).unwrap();
}

/// A child that does not outlive the test.
struct Ends(Child);
impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves `dir`; `fail` is a fail point of `walt-nfsd/src/fail_points.rs`. What it says goes to a file.
fn server(dir: &Path, port: u16, env: Option<(&str, &str)>) -> Ends {
    let example = std::env::current_exe().unwrap().parent().unwrap().join("../examples/nfs-serve");
    let said = File::options().create(true).append(true).open(dir.join("said")).unwrap();
    let mut command = Command::new(example);
    command.arg(format!("127.0.0.1:{port}"));
    command.args(["view", "persist", "state"].map(|d| dir.join(d)));
    command.stdin(Stdio::piped()).stdout(said.try_clone().unwrap()).stderr(said);
    command.env_remove(FAIL).env_remove(LOSE).envs(env);
    Ends(command.spawn().expect("the example nfs-serve is built: cargo build --workspace --bins --examples"))
}

#[test]
fn a_kernel_sees_no_error_whenever_the_server_dies() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| dir.path().join(name);
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(at(name)).unwrap()).into_owned();
    make_view(&at("view"));
    std::fs::create_dir(at("persist")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kernel = images::kernel(MINI);
    std::fs::write(at("initrd"), initramfs(&kernel.modules, port)).unwrap();

    let points: Vec<String> = ONCE
        .iter()
        .flat_map(|p| ["executed", "recorded"].map(|at| format!("{at}:{p}")))
        .chain(REPEATED.iter().map(|p| format!("unanswered:{p}")))
        .collect();
    let mut fails = points.iter();
    let mut next = || server(dir.path(), port, fails.next().map(|point| (FAIL, point.as_str())));
    let mut serving = server(dir.path(), port, Some((LOSE, "lost")));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-m", "512", "-smp", "2", "-accel", "tcg", "-nographic", "-no-reboot"]);
    qemu.args(["-nic", "user,model=virtio-net-pci", "-append", "console=ttyS0 quiet panic=5"]);
    qemu.arg("-kernel").arg(kernel.image).arg("-initrd").arg(at("initrd"));
    qemu.stdin(Stdio::null()).stdout(File::create(at("console")).unwrap());
    let mut qemu = Ends(qemu.spawn().expect("qemu-system-x86_64 is installed"));

    let (start, mut second, mut deaths) = (Instant::now(), false, 0);
    while qemu.0.try_wait().unwrap().is_none() {
        let waited = start.elapsed();
        assert!(
            waited < PATIENCE,
            "waited {} s for the guest to end, {deaths} deaths; it said: {}",
            waited.as_secs(),
            read("console")
        );
        std::thread::sleep(LOOK);
        if !second && read("console").contains("PHASE2") {
            second = true;
            drop(serving); // kill -9
            serving = next();
            std::fs::write(at("persist/phase2"), "").unwrap();
        }
        if let Some(status) = serving.0.try_wait().unwrap() {
            assert!(second, "the server ended by itself: {status}: {}", read("said"));
            deaths += 1;
            serving = next();
        }
    }
    let console = read("console");
    assert!(console.contains("ALLDONE") && !console.contains("FAIL"), "{console}");
    assert_eq!(deaths, points.len(), "each fail point was reached: {console}");
    // What the server's disk lost came again: the guest has compared it.
    assert_eq!(read("said").matches("lost\n").count(), 1, "{}", read("said"));
    eprintln!("{deaths} deaths at {} fail points in {} s", points.len(), start.elapsed().as_secs());
}
