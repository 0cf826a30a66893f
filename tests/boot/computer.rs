//! A computer of a newcomer: Debian with systemd in a virtual machine, which reaches the packages' mirror. Two packages,
//! four commands, and a node runs.

use super::{BOOT, SOON};
use crate::packages::{NEWER, file, package};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::{Terminal, images, until};

/// For the start of the computer: its CPU is emulated.
const STARTED: Duration = Duration::from_secs(600);
/// For each of the four commands. The node's CPU is emulated on an emulated one.
const COMMAND: Duration = Duration::from_secs(3600);
/// Memory of the computer: the server, and a node of 512 MB.
const MEMORY: &str = "3G";
/// What makes the disk.
const RECIPE: &str = "tests/boot/computer/recipe.sh";
/// What of us is on a computer: files of the system's own directories, an account, interfaces, rules, processes.
const LEFT: &str =
    "find / -xdev -name '*walt*' -not -path '/root/*' -not -path '/var/log/*' -not -path '/var/cache/apt/*'
    getent passwd | grep walt; ip -o link | grep walt; nft list tables 2>/dev/null | grep walt
    pgrep -a 'walt|qemu'; systemctl list-units --all --no-legend 'walt*'";

/// A computer, until it is dropped.
struct Computer {
    qemu: Child,
    port: u16,
    key: PathBuf,
    console: PathBuf,
}

impl Computer {
    /// One with this release of Debian, with a disk as it was when Debian had been installed.
    fn start(dir: &Path, suite: &str) -> Self {
        let made = images::built_for(RECIPE, suite);
        let (disk, console) = (made.join("disk.raw"), dir.join("console"));
        // ssh refuses a key that others can read.
        let key = dir.join("key");
        std::fs::copy(made.join("key"), &key).unwrap();
        // Free for the moment: nobody else on this machine asks for ports of loopback at this rate.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // What is written goes into a file that has no name, below TMPDIR.
        let qemu = Command::new("setpriv")
            .env("TMPDIR", "/var/tmp")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config"])
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                MEMORY,
                "-display",
                "none",
            ])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-drive", &format!("file={},if=virtio,format=raw,snapshot=on", disk.display())])
            .args(["-netdev", &format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22")])
            .args(["-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci"])
            .arg("-kernel")
            .arg(made.join("kernel"))
            .arg("-initrd")
            .arg(made.join("initrd"))
            .args(["-append", "root=/dev/vda rw console=ttyS0 mitigations=off"])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu can be started");
        let computer = Self { qemu, port, key, console };
        until("ssh on the computer", STARTED, || {
            computer.ssh().arg("true").output().unwrap().status.success().then_some(())
        });
        computer.must("rm -f /root/.ssh/authorized_keys.new; for p in /packages; do mkdir -p $p; done");
        computer
    }

    fn options(&self) -> Vec<String> {
        let key = self.key.display();
        [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
            "BatchMode=yes",
        ]
        .into_iter()
        .flat_map(|o| ["-o".to_owned(), o.to_owned()])
        .chain(["-i".to_owned(), key.to_string()])
        .collect()
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(self.options()).args(["-p", &self.port.to_string(), "root@127.0.0.1"]).stdin(Stdio::null());
        ssh
    }

    /// Runs a command as root, which must succeed; what it printed.
    #[track_caller]
    fn must(&self, command: &str) -> String {
        let output = self.ssh().arg(command).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command}: {}\n{out}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        out
    }

    /// Like [`Self::must`]; says how long it took.
    #[track_caller]
    fn timed(&self, command: &str) -> String {
        let start = Instant::now();
        let out = self.must(command);
        eprintln!("{:8.1} s  {command}", start.elapsed().as_secs_f64());
        assert!(start.elapsed() < COMMAND, "{command}");
        out
    }

    fn copy(&self, files: &[PathBuf], to: &str) {
        let copied = Command::new("scp")
            .args(self.options())
            .args(["-P", &self.port.to_string()])
            .args(files)
            .arg(format!("root@127.0.0.1:{to}"))
            .status();
        assert!(copied.unwrap().success());
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            let text = std::fs::read(&self.console).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// From a Debian that has never heard of us to a node's shell; a newer package; nothing of us any more.
fn four_commands(suite: &str) {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!(
            "skipped: a server in an emulated computer takes half an hour; WALT_TEST_LONG=1 asks for it"
        );
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (now, newer) = (dir.path().join("now"), dir.path().join("newer"));
    package(&now, &[]);
    package(&newer, &["--version", NEWER]);
    let computer = Computer::start(dir.path(), suite);
    computer.copy(&[file(&now, "walt-server_", ".deb"), file(&now, "walt_", ".deb")], "/packages");
    computer.must("apt-get -q update");
    let before = computer.must("systemctl list-units --no-legend --state failed");

    eprintln!("{suite}, on an emulated CPU:");
    computer.timed("DEBIAN_FRONTEND=noninteractive apt-get -q install -y /packages/*.deb");
    let said = computer.timed("walt-server setup --yes --default-image pc-x86-64-mini");
    eprintln!("{said}");
    // The third and the fourth as a user without privileges.
    computer.must("useradd -m -s /bin/bash ada");
    computer.timed("su - ada -c 'walt node create n1'");
    let start = Instant::now();
    let mut ssh = computer.ssh();
    ssh.args(["-tt", "su - ada -c 'walt node shell n1'"]);
    let mut shell = Terminal::spawn(ssh);
    shell.expect("# ", COMMAND);
    eprintln!("{:8.1} s  walt node shell n1, until its prompt", start.elapsed().as_secs_f64());
    shell.line("uname -n");
    shell.expect("\nn1\n", BOOT);

    // A newer package, while the shell is open.
    let id = computer.must("su - ada -c 'walt node run n1 cat /proc/sys/kernel/random/boot_id'");
    let first = computer.must("systemctl show -P MainPID walt-server");
    computer.copy(&[file(&newer, "walt-server_", ".deb"), file(&newer, "walt_", ".deb")], "/packages");
    computer
        .timed(&format!("DEBIAN_FRONTEND=noninteractive apt-get -q install -y /packages/*_{NEWER}_*.deb"));
    assert_ne!(computer.must("systemctl show -P MainPID walt-server"), first, "the server is the newer one");
    assert_eq!(computer.must("su - ada -c 'walt node run n1 cat /proc/sys/kernel/random/boot_id'"), id);
    shell.line("echo still; hostname");
    shell.expect("\nstill\nn1\n", BOOT);
    shell.line("exit");
    shell.end(SOON);

    computer.timed("apt-get -q remove -y walt-server walt");
    let left = computer.must("ip -o link; nft list tables; pgrep -a 'walt|qemu' || :");
    assert!(!left.contains("walt") && !left.contains("qemu"), "after removal: {left}");
    computer.must("test -s /etc/walt/server.conf && test -d /var/lib/walt/images");
    computer.timed("apt-get -q purge -y walt-server walt");
    let left = computer.must(&format!("rm -rf /packages; {LEFT}; :"));
    assert_eq!(left, "", "after purge");
    assert_eq!(computer.must("systemctl list-units --no-legend --state failed"), before);
}

#[test]
fn four_commands_on_debian_12() {
    four_commands("bookworm");
}

#[test]
fn four_commands_on_debian_13() {
    four_commands("trixie");
}
