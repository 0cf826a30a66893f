//! The disk of the state directory fills up in every operation: who is hit is told, sessions stay, nothing is
//! half done, and all is well once there is room.

use super::{BOOT, MINI, SOON, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walt_testkit::{Options, TestServer, User, images};

/// Size of the disk.
const DISK: &str = "300M";
const ANN: User = User::RootFor("ann");

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let ran = Command::new(program).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A small disk under the state directory of a server; unmounted when it is dropped.
struct Disk {
    file: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(file: PathBuf, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let disk = Self { file, at };
        let (file, at) = (disk.file.to_str().unwrap(), disk.at.to_str().unwrap());
        run("truncate", &["-s", DISK, file]);
        run("mkfs.ext4", &["-q", "-m", "0", file]);
        run("mount", &["-o", "loop", file, at]);
        disk
    }

    /// Leaves no room.
    fn fill(&self) {
        let ballast = |n: u32| self.at.join(format!("ballast{n}"));
        let mut size = 256_u64 << 20;
        let mut number = 0;
        while size >= 1024 {
            let mut fallocate = Command::new("fallocate");
            let ran = fallocate.args(["-l", &size.to_string()]).arg(ballast(number)).output().unwrap();
            if ran.status.success() {
                number += 1;
            } else {
                let said = String::from_utf8_lossy(&ran.stderr).into_owned();
                assert!(said.contains("No space left"), "{said}");
                size /= 2;
            }
        }
    }

    fn make_room(&self) {
        for entry in fs::read_dir(&self.at).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("ballast") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).output();
    }
}

/// A server with its disk, taken down in the right order.
struct Full {
    server: Option<TestServer>,
    disk: Option<Disk>,
}

impl Drop for Full {
    fn drop(&mut self) {
        // What a server leaves on the machine is taken down by its state, for which there has to be room.
        let disk = self.disk.take();
        disk.iter().for_each(Disk::make_room);
        if let Some(server) = &self.server {
            // Its success is another test's matter.
            let _ = server.server_command(&["down"]).output();
            server.wait_for_end();
        }
        drop(disk);
    }
}

/// The store is whole.
#[track_caller]
fn check(server: &TestServer) {
    let ran = server.server_command(&["check-store"]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

/// Runs a command on the node, which must succeed.
#[track_caller]
fn on(server: &TestServer, command: &str) -> String {
    server.walt(ANN, &["node", "run", "vn1", command]).ok()
}

#[track_caller]
fn is_told(said: &str, disk: &Disk) {
    assert!(said.contains("No space left") && said.contains(disk.at.to_str().unwrap()), "{said}");
}

#[test]
fn the_disk_fills_up_in_every_operation() {
    let mini = images::built(MINI);
    let server = TestServer::prepare(Options::default());
    let disk = Disk::new(server.dir().join("disk"), server.state_dir());
    let mut full = Full { server: Some(server), disk: Some(disk) };
    let (Some(server), Some(disk)) = (&mut full.server, &full.disk) else { return };
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    server.import(MINI, &mini);
    server.walt(ANN, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();

    import(server, disk, &mini);
    save(server, disk);
    references(server, disk);
    node(server, disk);
    check(server);
}

fn import(server: &TestServer, disk: &Disk, mini: &Path) {
    // Other bytes than those that are there.
    let other = server.dir().join("other");
    fs::create_dir(&other).unwrap();
    let tar = other.join("rootfs.tar");
    fs::copy(mini.join("rootfs.tar"), &tar).unwrap();
    fs::copy(mini.join("config.json"), other.join("config.json")).unwrap();
    fs::write(server.dir().join("more"), "more").unwrap();
    run("tar", &["-rf", tar.to_str().unwrap(), "-C", server.dir().to_str().unwrap(), "more"]);
    let action = serde_json::json!({"action": "import-default-image", "name": "other", "dir": other});
    let import = || server.api(None).post("/api/v1/actions/admin", &action, None).body;
    disk.fill();
    is_told(&import(), disk);
    disk.make_room();
    check(server);
    let said = import();
    assert!(said.contains("is ready"), "{said}");
    check(server);
}

fn save(server: &mut TestServer, disk: &Disk) {
    let mut shell = server.terminal(ANN, &["image", "shell", MINI]);
    shell.expect("# ", SOON);
    shell.must("echo kept >/root/kept", SOON);
    disk.fill();
    // The one who writes is told, and goes on.
    shell.line("dd if=/dev/zero of=/root/large bs=1M count=8");
    shell.expect("No space left on device", SOON);
    shell.expect("# ", SOON);
    disk.make_room();
    shell.must("rm /root/large", SOON);
    shell.line("exit 0");
    shell.expect("New image name: ", SOON);
    disk.fill();
    shell.line("saved");
    // The user is asked again; he goes, and the server is killed.
    let said = shell.expect("New image name: ", SOON);
    is_told(&said, disk);
    shell.kill();
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("a server starts on a full disk: {e:?}"));
    disk.make_room();
    check(server);
    let said = server.walt(ANN, &["image", "shell", "--resume", MINI, "--save=saved"]).ok();
    assert!(said.contains("New image saved saved."), "{said}");
    check(server);
    let read =
        || server.walt_with_input(ANN, &["image", "shell", "saved"], "cat /root/kept; ls /root/large\n");
    assert_eq!(read().out, "kept\n");
    // Nor can a shell be opened without room; nothing of it stays.
    disk.fill();
    let refused = read();
    assert_eq!(refused.status, Some(1), "{refused:?}");
    is_told(&refused.err, disk);
    disk.make_room();
    check(server);
    assert_eq!(read().out, "kept\n");
}

fn references(server: &TestServer, disk: &Disk) {
    let names = || server.walt(ANN, &["image", "show", "--names-only"]).ok();
    let before = names();
    disk.fill();
    let commands: [&[&str]; 3] = [
        &["image", "duplicate", "saved", "copy"],
        &["image", "rename", "saved", "renamed"],
        &["image", "clone", "walt:waltplatform/other", "cloned"],
    ];
    // What fits into pages that the database has may be done: then it is done as a whole.
    for command in commands {
        let ran = server.walt(ANN, command);
        if ran.status != Some(0) {
            is_told(&ran.err, disk);
        }
    }
    let now = names();
    disk.make_room();
    check(server);
    assert_eq!(names(), now, "before: {before}");
    for command in commands {
        let _ = server.walt(ANN, command);
    }
    assert_eq!(names(), "cloned\ncopy\npc-x86-64-mini\nrenamed\n");
}

fn node(server: &TestServer, disk: &Disk) {
    disk.fill();
    let refused = server.walt(ANN, &["node", "create", "vn1", "--image", "renamed"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    is_told(&refused.err, disk);
    assert_eq!(server.walt(ANN, &["node", "show", "--names-only"]).ok(), "");
    disk.make_room();
    server.walt(ANN, &["node", "create", "vn1", "--image", "renamed"]).ok();
    wait(server, "vn1");
    assert_eq!(on(server, "cat /root/kept"), "kept\n");

    on(server, "echo first >/persist/first; sync");
    disk.fill();
    let write = ["node", "run", "vn1", "dd if=/dev/zero of=/persist/large bs=1M count=4 conv=fsync"];
    let failed = server.walt(ANN, &write);
    assert_ne!(failed.status, Some(0), "{failed:?}");
    assert!(failed.err.contains("No space left on device"), "{failed:?}");
    // The node goes on.
    assert_eq!(on(server, "cat /persist/first /root/kept"), "first\nkept\n");
    disk.make_room();
    on(server, "rm -f /persist/large; echo second >/persist/second; sync");
    server.walt(ANN, &["node", "reboot", "vn1"]).ok();
    let mut shell = server.terminal(ANN, &["node", "shell", "vn1"]);
    shell.expect("# ", BOOT);
    assert_eq!(shell.must("cat /persist/first /persist/second", SOON), "first\nsecond\n");
    shell.line("exit");
    shell.end(SOON);
    server.walt(ANN, &["node", "remove", "vn1"]).ok();
}
