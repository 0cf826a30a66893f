//! Control groups of our own, outside of that of the service that started us.
//!
//! On a host with cgroup v2 there is one hierarchy; on a v1 or hybrid host there are several, and a
//! process has a place in each. A group of ours is the same relative path in all of them.

use crate::{During, Result};
use std::io;
use std::path::{Path, PathBuf};

/// Where hierarchies are mounted (cgroups(7)).
const ROOT: &str = "/sys/fs/cgroup";
/// Passes of killing until a group must be empty; a pass misses only what was forked meanwhile.
const KILL_PASSES: usize = 10;

/// Whether the host has the unified hierarchy only.
pub fn cgroup_version_2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Whether the host's init is systemd: it then ends what stays in a service's control group.
pub fn systemd_is_init() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The mount points of all hierarchies. A symbolic link (`cpu -> cpu,cpuacct`) is not one.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    if cgroup_version_2() {
        return Ok(vec![ROOT.into()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(ROOT)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A control group by its path relative to every hierarchy's root, such as `walt/1f2e/hold-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Names a group; nothing is made. A leading `/` is ignored.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self { path: path.strip_prefix("/").unwrap_or(path).to_owned() }
    }

    /// Makes the group in the hierarchies that track processes without limiting them (v2's only one;
    /// else `systemd`, `unified` and `pids`) and puts a process into it.
    pub fn join(&self, pid: i32) -> Result<()> {
        let what = || format!("put process {pid} into the control group {}", self.path.display());
        let v2 = cgroup_version_2();
        for root in hierarchies().during(what)? {
            let name = root.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            // In cpuset (v1) a new group has no processor until it is given some: leave the others alone.
            if v2 || ["systemd", "unified", "pids"].contains(&name) {
                let dir = root.join(&self.path);
                std::fs::create_dir_all(&dir).during(what)?;
                std::fs::write(dir.join("cgroup.procs"), pid.to_string()).during(what)?;
            }
        }
        Ok(())
    }

    /// Makes the group where [`Cgroup::join`] does, and gives it to a user who may make groups below and move
    /// processes between them, but not change its limits (cgroups(7), "Delegation"). In v1, no controller is given
    /// away: they are not made for it.
    pub fn delegate(&self, user: u32) -> Result<()> {
        /// Files that go with a directory, if it has them.
        const FILES: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"];
        let what = || format!("give the control group {} to user {user}", self.path.display());
        let v2 = cgroup_version_2();
        for root in hierarchies().during(what)? {
            let name = root.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if !v2 && !["systemd", "unified"].contains(&name) {
                continue;
            }
            let dir = root.join(&self.path);
            std::fs::create_dir_all(&dir).during(what)?;
            let files = FILES.iter().map(|name| dir.join(name)).filter(|path| path.exists());
            for path in std::iter::once(dir.clone()).chain(files) {
                std::os::unix::fs::lchown(path, Some(user), Some(user)).during(what)?;
            }
        }
        Ok(())
    }

    /// A group below this one.
    pub fn below(&self, name: &str) -> Self {
        Self { path: self.path.join(name) }
    }

    /// Bounds all processes in it and below it together: memory in bytes (`None`: as it is), and the number of
    /// processes and threads. With v2 the controllers must have been enabled by the groups above it.
    pub fn limit(&self, memory: Option<u64>, tasks: u32) -> Result<()> {
        let v2 = cgroup_version_2();
        let set = |controller: &str, file: &str, value: String| {
            let hierarchy = if v2 { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controller) };
            let dir = hierarchy.join(&self.path);
            std::fs::create_dir_all(&dir)
                .and_then(|()| std::fs::write(dir.join(file), &value))
                .during(|| format!("write {value} to {}", dir.join(file).display()))
        };
        set("pids", "pids.max", tasks.to_string())?;
        match memory {
            Some(bytes) if v2 => set("memory", "memory.max", bytes.to_string()),
            Some(bytes) => set("memory", "memory.limit_in_bytes", bytes.to_string()),
            None => Ok(()),
        }
    }

    /// The processes in it and in the groups below, in any hierarchy.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let what = || format!("list the processes of the control group {}", self.path.display());
        let mut found = Vec::new();
        for root in hierarchies().during(what)? {
            collect(&root.join(&self.path), &mut found).during(what)?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The processes directly in it, in the hierarchy that tracks services (v2's only one, else `systemd`).
    pub fn direct_processes(&self) -> Result<Vec<i32>> {
        let root = if cgroup_version_2() { PathBuf::from(ROOT) } else { Path::new(ROOT).join("systemd") };
        let path = root.join(&self.path).join("cgroup.procs");
        let text = std::fs::read_to_string(&path).during(|| format!("read {}", path.display()))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Kills every process in it with `SIGKILL`. Processes that were forked during the last pass stay.
    pub fn kill(&self) -> Result<()> {
        for _ in 0..KILL_PASSES {
            let list = self.processes()?;
            if list.is_empty() {
                break;
            }
            for pid in list.into_iter().filter_map(rustix::process::Pid::from_raw) {
                // A process that has ended already is fine.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Removes it and the groups below, in all hierarchies. A group that is not there is fine; `EBUSY`
    /// means that a process is still in it.
    pub fn remove(&self) -> Result<()> {
        let what = || format!("remove the control group {}", self.path.display());
        hierarchies()
            .during(what)?
            .iter()
            .try_for_each(|root| remove_tree(&root.join(&self.path)))
            .during(what)
    }

    /// Removes those groups above it that are empty. Not to be called while others may be making groups
    /// there: they would find their parent gone.
    pub fn remove_empty_parents(&self) -> Result<()> {
        for root in hierarchies().during(|| "list the control groups".into())? {
            let parents = self.path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
            for parent in parents {
                if std::fs::remove_dir(root.join(parent)).is_err() {
                    break; // other groups are in it
                }
            }
        }
        Ok(())
    }
}

fn subgroups(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn collect(dir: &Path, found: &mut Vec<i32>) -> io::Result<()> {
    match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A threaded group (v2) refuses; its processes are listed by the group above.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(e) => return Err(e),
    }
    subgroups(dir)?.iter().try_for_each(|sub| collect(sub, found))
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    subgroups(dir)?.iter().try_for_each(|sub| remove_tree(sub))?;
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A user that does not exist.
    const OTHER: u32 = 0x7900_0000;

    #[test]
    fn join_list_kill_remove() {
        let group = Cgroup::new(format!("/walt-test-{}/a/b", std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        group.join(child.id() as i32).unwrap();
        group.delegate(OTHER).unwrap();
        let given = hierarchies().unwrap().into_iter().filter(|h| {
            let owner = |name: &str| h.join(&group.path).join(name).metadata().map(|m| m.uid()).ok();
            owner("") == Some(OTHER) && owner("cgroup.procs") == Some(OTHER)
        });
        let given: Vec<PathBuf> = given.collect();
        let limits = ["memory", "pids", "devices"].map(|name| Path::new(ROOT).join(name));
        assert!(!given.is_empty() && limits.iter().all(|l| !given.contains(l)), "{given:?}");
        let above = Cgroup::new(group.path.parent().unwrap());
        assert_eq!(above.processes().unwrap(), [child.id() as i32]);
        above.kill().unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
        group.remove_empty_parents().unwrap();
        assert!(above.processes().unwrap().is_empty());
        assert!(hierarchies().unwrap().iter().all(|h| !h.join(&above.path).exists()));
        group.remove().unwrap();
    }
}
