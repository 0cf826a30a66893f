//! What a server may leave on a machine, to be compared before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Settings of the kernel that a server may change.
const SYSCTLS: &[&str] = &[
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/forwarding",
    "net/ipv4/conf/default/arp_ignore",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/disable_ipv6",
];
/// First letters of the names of the processes that a server starts.
const PROCESSES: &[&str] = &["walt", "qemu", "runc"];

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    parts: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Machine {
    /// Takes one.
    pub fn now() -> Self {
        let mut parts = BTreeMap::new();
        parts.insert("link", names("/sys/class/net"));
        parts.insert(
            "address",
            lines(&output("ip", &["-o", "address"]), |l| {
                let words: Vec<&str> = l.split_whitespace().collect();
                (words.len() > 3).then(|| format!("{} {}", words[1], words[3]))
            }),
        );
        parts.insert(
            "route",
            lines(&output("ip", &["route", "show", "table", "all"]), |l| Some(l.trim().to_owned())),
        );
        parts.insert("mount", mounts().into_iter().collect());
        parts.insert(
            "network namespace",
            lines(&output("lsns", &["-t", "net", "-n", "-o", "NS"]), |l| Some(l.trim().to_owned())),
        );
        parts.insert("named network namespace", names("/run/netns"));
        parts.insert("control group", {
            let mut found = BTreeSet::new();
            directories(Path::new("/sys/fs/cgroup"), &mut found);
            found
        });
        parts.insert(
            "sysctl",
            SYSCTLS
                .iter()
                .filter_map(|key| {
                    let value = std::fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?;
                    Some(format!("{key} = {}", value.trim()))
                })
                .collect(),
        );
        parts.insert("binfmt entry", names("/proc/sys/fs/binfmt_misc"));
        parts.insert("nft rule", lines(&output("nft", &["list", "ruleset"]), |l| Some(l.to_owned())));
        parts.insert("process", processes());
        Self { parts }
    }

    /// What `self` has that `before` had not, and the reverse; empty if they are alike.
    pub fn changes_since(&self, before: &Self) -> String {
        let mut text = String::new();
        for (part, now) in &self.parts {
            let then = &before.parts[part];
            for more in now.difference(then) {
                let _ = writeln!(text, "{part} is there now: {more}");
            }
            for less in then.difference(now) {
                let _ = writeln!(text, "{part} is gone: {less}");
            }
        }
        text
    }
}

/// Mount points of this process's namespace.
pub fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|l| l.split(' ').nth(4).map(str::to_owned)).collect()
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).map(|d| d.flatten().collect()).unwrap_or_else(|_| Vec::new());
    entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn directories(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.insert(entry.path().display().to_string());
            directories(&entry.path(), found);
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

fn lines(text: &str, f: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    text.lines().filter_map(f).collect()
}

/// Whether a process is a zombie: it has ended, and its parent (init, for what we detach) has yet to notice.
fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything (proc_pid_stat(5)).
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn processes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in names("/proc").iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if PROCESSES.iter().any(|p| comm.starts_with(p)) && !has_ended(pid) {
            found.insert(format!("{} ({pid})", comm.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_have_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().to_string();
        let start = std::time::Instant::now();
        while !has_ended(&pid) {
            assert!(start.elapsed().as_secs() < 10, "waited 10 s for the end of 'true'");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!has_ended(&std::process::id().to_string()));
    }

    #[test]
    fn changes_are_named() {
        let before = Machine::now();
        let mut after = before.clone();
        after.parts.get_mut("link").unwrap().insert("walt-x".into());
        assert_eq!(after.changes_since(&before), "link is there now: walt-x\n");
        assert_eq!(before.changes_since(&after), "link is gone: walt-x\n");
        assert_eq!(before.changes_since(&before), "");
    }
}
