//! Starts one small container, as image shells need them: whether the runtime works here is not known otherwise (a
//! machine that is a container itself, a kernel without a namespace, control groups that cannot be written).
//!
//! Its root is a directory with the programs of this machine, which it cannot write to; it runs `true`, for at most
//! [`LIMIT`].

use anyhow::{Context, Result, bail};
use serde_json::json;
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take; a second is usual.
const LIMIT: Duration = Duration::from_secs(20);
/// How often its end is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Directories with programs and libraries.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "usr"];
/// How much of what the runtime says is repeated, in characters.
const SAID_MAX: usize = 300;

/// Starts a container by this runtime.
///
/// # Errors
/// It did not start; the error has what the runtime said.
pub fn run(runtime: &str) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("walt-setup-").tempdir_in("/var/tmp");
    let dir = dir.context("cannot make a directory in /var/tmp")?;
    let bundle = dir.path();
    let mounts = root(&bundle.join("rootfs"))?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&configuration(&mounts))?)?;
    let name = format!("walt-setup-{}", std::process::id());
    let log = File::create(bundle.join("log"))?;
    let state = bundle.join("state");
    let command = |words: &[&str]| {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(&state).args(words).stdin(Stdio::null());
        command
    };
    let mut child = command(&["run", "--bundle"])
        .arg(bundle)
        .arg(&name)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {runtime}"))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(POLL);
    };
    // The runtime has removed what has ended by itself.
    let _ = command(&["delete", "--force", &name]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let said = fs::read_to_string(bundle.join("log")).unwrap_or_default();
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID_MAX).collect();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) if said.is_empty() => bail!("{status}"),
        Some(_) => bail!("{said}"),
        None => bail!("it did not end within {} s: {said}", LIMIT.as_secs()),
    }
}

/// Makes the root directory; the directories of this machine that are mounted in it.
fn root(at: &Path) -> Result<Vec<&'static str>> {
    let mut mounts = Vec::new();
    for dir in ["proc", "dev", "sys"] {
        fs::create_dir_all(at.join(dir))?;
    }
    for name in PROGRAMS {
        let there = Path::new("/").join(name);
        match fs::read_link(&there) {
            Ok(target) => symlink(target, at.join(name))?,
            Err(_) if there.is_dir() => {
                fs::create_dir_all(at.join(name))?;
                mounts.push(name);
            }
            Err(_) => {}
        }
    }
    Ok(mounts)
}

fn configuration(mounts: &[&str]) -> serde_json::Value {
    let bind = |name: &&str| {
        json!({"destination": format!("/{name}"), "type": "bind", "source": format!("/{name}"),
            "options": ["rbind", "ro"]})
    };
    let mut all = vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})];
    all.extend(mounts.iter().map(bind));
    let namespaces = ["mount", "pid", "uts", "ipc", "network"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": all,
        "linux": {"namespaces": namespaces},
    })
}
