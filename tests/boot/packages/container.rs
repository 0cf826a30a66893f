//! A machine to install packages on: Debian with systemd, in a container of runc, with a network of its own that
//! reaches what this machine reaches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use walt_testkit::{Api, Netns, Terminal, images, programs, until};

/// Addresses of the cable: this machine's, the container's, and the network of both.
const HERE: &str = "10.177.201.1";
const THERE: &str = "10.177.201.2";
const NETWORK: &str = "10.177.201.0/30";
/// Our end of the cable, and the table of the rules for it.
const CABLE: &str = "walt-test-pkg";
/// Where the kernel switches forwarding.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// How long systemd may take to start what the machine starts: it takes half a second on an idle one.
const STARTED: Duration = Duration::from_secs(60);
/// Capabilities by their number (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The machine; it is removed when dropped.
pub struct Container {
    name: String,
    dir: tempfile::TempDir,
    _netns: Netns,
    forwarded: String,
}

impl Container {
    /// Starts one; `packages` is its directory `/packages`.
    pub fn start(packages: &Path) -> Self {
        let made = images::built_by("tests/boot/debian/recipe.sh");
        // On a disk: the server keeps images below it.
        let dir = tempfile::Builder::new().prefix("walt-test-pkg-").tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("rootfs");
        fs::create_dir(&root).unwrap();
        run(Command::new("tar").arg("-xf").arg(made.join("rootfs.tar")).arg("-C").arg(&root));
        // As long as somebody is connected to the network, it has a resolver for others to use.
        fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        let netns = Netns::new();
        let forwarded = connect(&netns);
        let name = format!("walt-test-pkg-{}", std::process::id());
        let config = config(&name, &netns.path(), packages);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let container = Self { name, dir, _netns: netns, forwarded };
        let log = fs::File::create(container.dir.path().join("runc.log")).unwrap();
        let mut start = Command::new("runc");
        start.args(["run", "-d", "--bundle"]).arg(container.dir.path()).arg(&container.name);
        // Process 1 has what runc has: it must not hold the pipes of the test.
        let started =
            start.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        let said = || fs::read_to_string(container.dir.path().join("runc.log")).unwrap_or_default();
        assert!(started.success(), "runc: {}", said());
        until("systemd in a container", STARTED, || {
            let state = container.run("systemctl is-system-running --wait");
            ["running\n", "degraded\n"].contains(&&*String::from_utf8_lossy(&state.stdout)).then_some(())
        });
        container
    }

    /// Runs a script of sh in it, as root.
    pub fn run(&self, script: &str) -> Output {
        let mut exec = Command::new("runc");
        exec.args(["exec", "-e", "DEBIAN_FRONTEND=noninteractive", &self.name, "sh", "-c", script]);
        exec.stdin(Stdio::null()).output().unwrap()
    }

    /// The output of a script that must succeed; it stops at the first command that fails.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        let output = self.run(&format!("set -e\n{script}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            let log = self.run("journalctl --no-pager --lines=40 --unit=walt-server");
            panic!("{script}: {}\n{out}\n{err}\n{}", output.status, text(&log.stdout));
        }
        out
    }

    /// A directory of the machine, as this one sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("rootfs").join(path.trim_start_matches('/'))
    }

    /// The socket of its server, as this machine sees it.
    fn socket(&self) -> PathBuf {
        let state = run(Command::new("runc").args(["state", &self.name]));
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        PathBuf::from(format!("/proc/{}/root/run/walt/walt.sock", state["pid"]))
    }

    /// Its server's API, as root.
    pub fn api(&self) -> Api {
        Api { socket: self.socket(), user: None }
    }

    /// Its server's client, on a terminal.
    pub fn walt(&self, arguments: &[&str]) -> Terminal {
        let mut walt = Command::new(programs().join("walt"));
        walt.args(arguments).env("WALT_SERVER", format!("unix:{}", self.socket().display()));
        Terminal::spawn(walt)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let gone = Command::new("runc").args(["delete", "-f", &self.name]).output();
        if !gone.as_ref().is_ok_and(|o| o.status.success()) {
            eprintln!("the container {} cannot be removed: {gone:?}", self.name);
        }
        disconnect();
        let _ = fs::write(FORWARD, &self.forwarded);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be run: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Removes the cable and its rules, also those that a killed test has left; absent is as good.
fn disconnect() {
    let _ = Command::new("ip").args(["link", "delete", CABLE]).output();
    let _ = Command::new("nft").args(["delete", "table", "ip", CABLE]).output();
}

/// Connects a namespace to this machine and what it reaches; whether the kernel forwarded before.
fn connect(netns: &Netns) -> String {
    disconnect();
    let there = netns.path().display().to_string();
    let ip = |words: &str| run(Command::new("ip").args(words.split(' ')));
    ip(&format!("link add {CABLE} type veth peer name eth0 netns {there}"));
    ip(&format!("address add {HERE}/30 dev {CABLE}"));
    ip(&format!("link set {CABLE} up"));
    netns.run(&["ip", "link", "set", "lo", "up"]);
    netns.run(&["ip", "address", "add", &format!("{THERE}/30"), "dev", "eth0"]);
    netns.run(&["ip", "link", "set", "eth0", "up"]);
    netns.run(&["ip", "route", "add", "default", "via", HERE]);
    run(Command::new("nft").args(["add", "table", "ip", CABLE]));
    let chain =
        format!("add chain ip {CABLE} leaving {{ type nat hook postrouting priority 100; policy accept; }}");
    run(Command::new("nft").arg(chain));
    let rule = format!("add rule ip {CABLE} leaving ip saddr {NETWORK} oifname != {CABLE} masquerade");
    run(Command::new("nft").arg(rule));
    let forwarded = fs::read_to_string(FORWARD).unwrap();
    fs::write(FORWARD, "1").unwrap();
    forwarded
}

/// The capabilities that this process can give away.
fn capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let bits = u64::from_str_radix(bounding.trim(), 16).unwrap();
    let given = CAPABILITIES.iter().enumerate().filter(|(number, _)| bits >> number & 1 == 1);
    given.map(|(_, name)| format!("CAP_{name}")).collect()
}

/// What runc is told: a container that may do what a machine may, so that the server can do its work in it.
fn config(name: &str, netns: &Path, packages: &Path) -> serde_json::Value {
    use serde_json::json;
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let device = |path: &str, minor: u32| json!({"path": path, "type": "c", "major": 10, "minor": minor, "fileMode": 0o666});
    let namespaces = ["mount", "pid", "uts", "ipc", "cgroup"].map(|kind| json!({"type": kind}));
    let network = json!({"type": "network", "path": netns});
    let capabilities = capabilities();
    let devices: Vec<_> = [("/dev/net/tun", 200), ("/dev/kvm", 232)]
        .iter()
        .filter(|(path, _)| Path::new(path).exists())
        .map(|(path, minor)| device(path, *minor))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "hostname": "debian",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/sbin/init"],
            "cwd": "/",
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
            mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["mode=1777"]),
            mount("/sys", "sysfs", &[]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"]),
            mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
            mount("/run/lock", "tmpfs", &["mode=1777"]),
            mount("/tmp", "tmpfs", &["mode=1777"]),
            {"destination": "/packages", "type": "bind", "source": packages, "options": ["bind", "ro"]},
        ],
        "linux": {
            "namespaces": namespaces.into_iter().chain([network]).collect::<Vec<_>>(),
            "cgroupsPath": format!("/{name}"),
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
            "devices": devices,
        },
    })
}
