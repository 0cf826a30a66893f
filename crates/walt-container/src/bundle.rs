//! The container of a session, as an OCI runtime bundle.
//!
//! Pure: [`bundle`] makes `config.json` of a [`HoldSpec`] and a few facts about the merged tree. [`tables`] lists
//! what the container may do, with a reason per line.
//!
//! Namespaces: mount, pid, uts, ipc, cgroup, network, and user where the kernel and the filesystem can
//! ([`walt_sys::userns`]). Access to the server is refused with and without a user namespace. Without one, root in
//! the container has root's number on the server. With one, a hole in the kernel that skips a check of capabilities
//! is used by a number that has no rights on the server. Nothing is mounted over a file of the image except
//! `/proc/cpuinfo`, so that package scripts can replace any file in `/etc`.
//!
//! ```text
//! <cgroup>            limits: the container's root cannot see it, so cannot change them
//! <cgroup>/container  root of the container's cgroup namespace; an OS makes its own groups below
//! ```

pub mod runtime;
pub mod tables;

use crate::session::{HoldSpec, Mode, Tty};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use walt_sys::userns;

/// Name of the machine in every session.
pub const HOSTNAME: &str = "image-shell";
/// Process 1 of a container that runs the image's OS.
pub const OS_START: &str = "/bin/walt-image-shell-start";
/// The image's hook that shuts its OS down.
pub const OS_SHUTDOWN: &str = "/bin/walt-image-shell-shutdown";
/// Socket on which an OS reports that it is up, by `sd_notify` (as in systemd-nspawn).
pub const NOTIFY_SOCKET: &str = "/run/host/notify";
/// Home and working directory of the shell.
const HOME: &str = "/root";
/// `PATH`, unless the image's configuration sets it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most processes and threads in a session: far more than building a package needs, and too few to harm the server.
pub const PIDS_MAX: u32 = 16384;
/// The container's own control group, below the one with the limits.
pub const GROUP: &str = "container";
/// Error of system calls that are made to look absent (errno(3)).
const ENOSYS: u32 = 38;
/// Error of system calls that are refused (errno(3)).
const EPERM: u32 = 1;
/// Options of the `/run` of a container; also those of the holder's, see [`crate::hold`].
pub const RUN_TMPFS: &str = "mode=755,size=256m";

/// Directories of the image that are mount points. If the image lacks one, the runtime makes it, and a save leaves it
/// out.
pub const MOUNT_POINTS: [&str; 4] = ["proc", "sys", "dev", "run"];

/// Facts about the merged tree and the holder that the bundle depends on.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The mounted root.
    pub root: PathBuf,
    /// A tmpfs of the holder that becomes `/run`; `None`: a fresh one.
    pub run: Option<PathBuf>,
    /// A copy of the image's `/etc/cpuinfo`, shown as `/proc/cpuinfo`.
    pub cpuinfo: Option<PathBuf>,
    /// The network namespace to enter; `None`: a new one.
    pub netns: Option<PathBuf>,
    /// The user namespace to enter, to which the network namespace belongs; `None`: the server's.
    pub userns: Option<PathBuf>,
    /// The shell's program.
    pub shell: &'static str,
    /// Whether the image has the directory `/root`.
    pub has_home: bool,
}

/// `config.json` of the session's container.
pub fn bundle(spec: &HoldSpec, facts: &Facts) -> Value {
    let process = match spec.mode {
        Mode::Simple => shell_process(spec, facts),
        Mode::Os => process(spec, facts, None, &[OS_START.into()], &os_environment()),
    };
    let mut network = json!({"type": "network"});
    if let Some(path) = &facts.netns {
        network["path"] = json!(path);
    }
    let namespaces = ["mount", "pid", "uts", "ipc", "cgroup"].map(|kind| json!({"type": kind}));
    let user = facts.userns.as_ref().map(|path| json!({"type": "user", "path": path}));
    let mut resources = json!({"devices": device_rules(), "pids": {"limit": PIDS_MAX}});
    if let Some(limit) = spec.memory_max {
        resources["memory"] = json!({"limit": limit});
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "root": {"path": facts.root, "readonly": false},
        "process": process,
        "mounts": mounts(spec.mode, facts),
        "linux": {
            "namespaces": namespaces.into_iter().chain([network]).chain(user).collect::<Vec<_>>(),
            "cgroupsPath": format!("{}/{GROUP}", spec.cgroup),
            "resources": resources,
            "seccomp": seccomp(),
            "maskedPaths": tables::MASKED.map(|(path, _)| path),
            "readonlyPaths": tables::READ_ONLY.map(|(path, _)| path),
        },
    });
    if let Some(users) = &spec.users {
        // Repeated here, although the namespace has it: runc 1.1 needs it.
        let map = userns::map(users.first)
            .map(|e| json!({"containerID": e.inside, "hostID": e.outside, "size": e.count}));
        let map = json!(map);
        (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
    }
    config
}

/// The shell, or the requested command: process 1 or `process.json` of an exec.
pub fn shell_process(spec: &HoldSpec, facts: &Facts) -> Value {
    let shell = [facts.shell.to_owned()];
    let arguments = spec.command.as_deref().unwrap_or(&shell);
    process(spec, facts, spec.tty.as_ref(), arguments, &[])
}

/// The hook that ends the OS, for an exec.
pub fn shutdown_process(spec: &HoldSpec, facts: &Facts) -> Value {
    process(spec, facts, None, &[OS_SHUTDOWN.into()], &[])
}

/// Variables for the OS: that it runs in a container, its host name (instead of `/etc/hostname`), and where to report
/// that it is up. An init that does not know them ignores them.
fn os_environment() -> [String; 3] {
    [
        "container=oci".into(),
        format!("SYSTEMD_PROC_CMDLINE=systemd.hostname={HOSTNAME}"),
        format!("NOTIFY_SOCKET={NOTIFY_SOCKET}"),
    ]
}

fn process(
    spec: &HoldSpec,
    facts: &Facts,
    tty: Option<&Tty>,
    arguments: &[String],
    more: &[String],
) -> Value {
    let mut env = vec![format!("PATH={PATH}")];
    let ours = |line: &String| ["HOME=", "TERM=", "HOSTNAME="].iter().any(|name| line.starts_with(name));
    env.extend(spec.env.iter().filter(|line| !ours(line)).cloned());
    if spec.env.iter().any(|line| line.starts_with("PATH=")) {
        env.remove(0);
    }
    env.push(format!("HOME={HOME}"));
    env.extend(tty.map(|t| format!("TERM={}", t.term)));
    env.extend_from_slice(more);
    let capabilities: Vec<String> =
        tables::CAPABILITIES.iter().map(|(name, _)| format!("CAP_{name}")).collect();
    let mut value = json!({
        "terminal": tty.is_some(),
        "user": {"uid": 0, "gid": 0},
        "args": arguments,
        "env": env,
        // A missing working directory would be made, and saved.
        "cwd": if facts.has_home { HOME } else { "/" },
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": false,
    });
    if let Some(t) = tty {
        value["consoleSize"] = json!({"height": t.rows, "width": t.cols});
    }
    value
}

fn device_rules() -> Vec<Value> {
    let nothing = json!({"allow": false, "access": "rwm"});
    let allowed = tables::DEVICES.iter().map(|d| {
        let mut rule = json!({"allow": true, "type": d.kind, "access": d.access});
        for (key, number) in [("major", d.major), ("minor", d.minor)] {
            if let Some(number) = number {
                rule[key] = json!(number);
            }
        }
        rule
    });
    std::iter::once(nothing).chain(allowed).collect()
}

/// The system-call filter. Other architectures have other call numbers: those that this processor also supports are
/// filtered in the same way, and the runtime kills programs that use any other.
fn seccomp() -> Value {
    let architectures: &[&str] = match std::env::consts::ARCH {
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    };
    let refused = tables::REFUSED_CALLS.map(|(name, _)| name);
    let mut calls = vec![
        json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}),
        json!({"names": tables::ABSENT_CALLS, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
    ];
    let flag = tables::CLONE_NEWUSER;
    calls.extend(tables::NO_USER_NAMESPACE.map(|(name, index)| {
        let asked = json!({"index": index, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"});
        json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": [asked]})
    }));
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": calls})
}

fn mounts(mode: Mode, facts: &Facts) -> Vec<Value> {
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "nodev", "mode=1777"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    // An OS manages its own groups below that of the container; a shell without an OS only reads them.
    let cgroup: &[&str] = match mode {
        Mode::Os => &["nosuid", "noexec", "nodev", "relatime", "rw"],
        Mode::Simple => &["nosuid", "noexec", "nodev", "relatime", "ro"],
    };
    list.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup));
    let run: Vec<&str> = ["nosuid", "nodev"].into_iter().chain(RUN_TMPFS.split(',')).collect();
    match &facts.run {
        Some(path) => list.push(bind(path, "/run", &["rbind", "rw", "nosuid", "nodev"])),
        None => list.push(mount("/run", "tmpfs", "tmpfs", &run)),
    }
    if mode == Mode::Os {
        // Debian's systemd does not start without it, and may not mount it.
        list.push(mount(
            "/run/lock",
            "tmpfs",
            "tmpfs",
            &["nosuid", "nodev", "noexec", "mode=1777", "size=5m"],
        ));
    }
    if let Some(path) = &facts.cpuinfo {
        list.push(bind(path, "/proc/cpuinfo", &["bind", "ro", "nosuid", "nodev", "noexec"]));
    }
    list
}

/// A bind mount in `config.json`.
pub fn bind(source: &Path, target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mode: Mode) -> HoldSpec {
        HoldSpec {
            version: crate::session::SPEC_VERSION,
            container_id: "walt-1".into(),
            lowers: vec!["/l".into()],
            runtime: "runc".into(),
            runtime_root: "/run/x".into(),
            cgroup: "/walt/h/shell-1".into(),
            mode,
            tty: Some(Tty { rows: 24, cols: 80, term: "xterm".into() }),
            command: None,
            stdin: None,
            env: vec!["HOME=/nowhere".into(), "LANG=C.UTF-8".into()],
            network: None,
            memory_max: None,
            users: None,
            emulated: false,
        }
    }

    fn facts() -> Facts {
        Facts {
            root: "/s/root".into(),
            run: None,
            cpuinfo: None,
            netns: Some("/proc/7/fd/9".into()),
            userns: None,
            shell: "/bin/sh",
            has_home: true,
        }
    }

    #[test]
    fn simple_shell_is_process_1_with_a_terminal() {
        let config = bundle(&spec(Mode::Simple), &facts());
        assert_eq!(config["process"]["args"], json!(["/bin/sh"]));
        assert_eq!(config["process"]["terminal"], true);
        let env = &config["process"]["env"];
        assert_eq!(env, &json!([format!("PATH={PATH}"), "LANG=C.UTF-8", "HOME=/root", "TERM=xterm"]));
        assert_eq!(config["linux"]["namespaces"][5], json!({"type": "network", "path": "/proc/7/fd/9"}));
        assert_eq!(config["linux"]["resources"]["devices"][0], json!({"allow": false, "access": "rwm"}));
    }

    #[test]
    fn os_gets_its_name_and_no_terminal() {
        let config = bundle(&spec(Mode::Os), &facts());
        assert_eq!(config["process"]["args"], json!([OS_START]));
        assert_eq!(config["process"]["terminal"], false);
        let env = config["process"]["env"].to_string();
        assert!(env.contains("SYSTEMD_PROC_CMDLINE=systemd.hostname=image-shell"), "{env}");
        assert!(!env.contains("TERM="), "{env}");
    }

    #[test]
    fn users_have_numbers_of_their_own() {
        let users = crate::session::Users { first: 1000, root: "/r".into() };
        let spec = HoldSpec { users: Some(users), ..spec(Mode::Os) };
        let config = bundle(&spec, &Facts { userns: Some("/proc/7/fd/8".into()), ..facts() });
        let map = json!([
            {"containerID": 0, "hostID": 1000, "size": 65536},
            {"containerID": 65536, "hostID": 2_147_549_184u32, "size": 2_147_352_576},
        ]);
        assert_eq!(config["linux"]["uidMappings"], map);
        assert_eq!(config["linux"]["gidMappings"], map);
        assert_eq!(config["linux"]["namespaces"][6], json!({"type": "user", "path": "/proc/7/fd/8"}));
        let config = bundle(&self::spec(Mode::Os), &facts());
        assert!(config["linux"].get("uidMappings").is_none());
    }

    #[test]
    fn only_cpuinfo_is_bound_over_a_file() {
        let with = Facts { cpuinfo: Some("/s/cpuinfo".into()), run: Some("/s/run".into()), ..facts() };
        let config = bundle(&spec(Mode::Os), &with);
        let binds: Vec<&str> = config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|m| m["type"] == "bind")
            .map(|m| m["destination"].as_str().unwrap())
            .collect();
        assert_eq!(binds, ["/run", "/proc/cpuinfo"]);
    }
}
