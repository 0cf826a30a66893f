//! What a save leaves out: one table, with a reason per line.
//!
//! In addition, [`SaveRules::standard`] leaves out files that equal those of the platform layer, and directories of
//! which only the time changed: package scripts, editors and every start of the system make and remove files in them.

/// When a rule applies to a path that its pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always: the image keeps what it had, whatever the session did.
    Always,
    /// If it is an empty file or directory that is not in the image.
    NewAndEmpty,
    /// If the image has it with the same type, content, owner and mode: only its time changed.
    SameContent,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Path below the root. `*` stands for any part of one name, a last part `**` for everything below.
    pub pattern: &'static str,
    /// Condition.
    pub when: When,
    /// Why; shown to users.
    pub reason: &'static str,
}

const fn rule(pattern: &'static str, when: When, reason: &'static str) -> Rule {
    Rule { pattern, when, reason }
}

const MOUNT_POINT: &str = "a mount point made for the session";
const MEMORY: &str = "in memory on a running system";
const MACHINE_ID: &str = "made by the session; nodes must not share a machine identity";
const HISTORY: &str = "the history of commands typed in the session";
const JOURNAL: &str = "a log of the session itself";
const SEED: &str = "a secret of one machine; nodes must not share it";
const STAMP: &str = "a record of when something last ran in the session";
const STARTED: &str = "an empty directory made by every start of the system";
const LEASE: &str = "an address lease of a single machine";
const OF_NODE: &str = "made by the server's own scripts on the node";
const CACHE: &str = "rebuilt from unchanged files";

/// The table.
pub const RULES: &[Rule] = &[
    rule("proc", When::NewAndEmpty, MOUNT_POINT),
    rule("sys", When::NewAndEmpty, MOUNT_POINT),
    rule("dev", When::NewAndEmpty, MOUNT_POINT),
    rule("run", When::NewAndEmpty, MOUNT_POINT),
    rule("tmp", When::NewAndEmpty, MOUNT_POINT),
    rule("persist", When::NewAndEmpty, MOUNT_POINT),
    rule("local", When::NewAndEmpty, MOUNT_POINT),
    rule("proc/**", When::Always, MOUNT_POINT),
    rule("sys/**", When::Always, MOUNT_POINT),
    rule("dev/**", When::Always, MOUNT_POINT),
    rule("persist/**", When::Always, MOUNT_POINT),
    rule("run/**", When::Always, MEMORY),
    rule("tmp/**", When::Always, MEMORY),
    rule("var/tmp/systemd-private-*", When::Always, MEMORY),
    rule("var/tmp/systemd-private-*/**", When::Always, MEMORY),
    rule("etc/machine-id", When::Always, MACHINE_ID),
    rule("var/lib/dbus/machine-id", When::Always, MACHINE_ID),
    rule("root/.bash_history", When::Always, HISTORY),
    rule("root/.ash_history", When::Always, HISTORY),
    rule("root/.sh_history", When::Always, HISTORY),
    rule("root/.zsh_history", When::Always, HISTORY),
    rule("root/.python_history", When::Always, HISTORY),
    rule("root/.lesshst", When::Always, HISTORY),
    rule("root/.viminfo", When::Always, HISTORY),
    rule("home/*/.bash_history", When::Always, HISTORY),
    rule("home/*/.ash_history", When::Always, HISTORY),
    rule("home/*/.sh_history", When::Always, HISTORY),
    rule("home/*/.zsh_history", When::Always, HISTORY),
    rule("home/*/.python_history", When::Always, HISTORY),
    rule("home/*/.lesshst", When::Always, HISTORY),
    rule("home/*/.viminfo", When::Always, HISTORY),
    rule("var/log/journal", When::NewAndEmpty, JOURNAL),
    rule("var/log/journal/**", When::Always, JOURNAL),
    rule("var/log/wtmp", When::Always, JOURNAL),
    rule("var/log/btmp", When::Always, JOURNAL),
    rule("var/log/lastlog", When::Always, JOURNAL),
    rule("var/log/faillog", When::Always, JOURNAL),
    rule("etc/.pwd.lock", When::Always, "a lock file"),
    rule("var/lib/systemd/random-seed", When::Always, SEED),
    rule("var/lib/urandom/random-seed", When::Always, SEED),
    rule("var/lib/random-seed", When::Always, SEED),
    rule("var/lib/seedrng", When::NewAndEmpty, SEED),
    rule("var/lib/seedrng/**", When::Always, SEED),
    rule("var/lib/systemd/credential.secret", When::Always, SEED),
    rule("var/lib/systemd/timers/**", When::Always, STAMP),
    rule("var/lib/systemd/timesync/**", When::Always, STAMP),
    rule("var/lib/systemd/rfkill/**", When::Always, STAMP),
    rule("etc/.updated", When::Always, STAMP),
    rule("var/.updated", When::Always, STAMP),
    rule("var/lib/systemd/*", When::NewAndEmpty, STARTED),
    rule("var/lib/systemd/pstore", When::NewAndEmpty, STARTED),
    rule("var/lib/private", When::NewAndEmpty, STARTED),
    rule("var/lib/private/**", When::NewAndEmpty, STARTED),
    rule("var/cache/private", When::NewAndEmpty, STARTED),
    rule("var/log/private", When::NewAndEmpty, STARTED),
    rule("var/lib/dhcp/*.leases", When::Always, LEASE),
    rule("var/lib/dhcp/*.lease", When::Always, LEASE),
    rule("var/lib/dhcpcd/**", When::Always, LEASE),
    rule("var/lib/NetworkManager/*.lease", When::Always, LEASE),
    rule("var/lib/NetworkManager/timestamps", When::Always, STAMP),
    rule("bin/walt-env", When::Always, OF_NODE),
    rule("usr/bin/walt-env", When::Always, OF_NODE),
    rule("local/README.nonlocal", When::Always, OF_NODE),
    rule("var/lib/walt/logs.fifo", When::Always, OF_NODE),
    rule("etc/ld.so.cache", When::SameContent, CACHE),
    rule("etc/udev/hwdb.bin", When::SameContent, CACHE),
    rule("var/cache/ldconfig/aux-cache", When::SameContent, CACHE),
    rule("var/lib/systemd/catalog/database", When::SameContent, CACHE),
];

/// Login logs with a record at an offset that depends on the user's number: `useradd -u 1000000000` turns them into
/// files of hundreds of gigabytes that are almost all holes. Such logs are saved as empty files, by builds too:
/// programs create an absent log in the same way, and other tools cannot use an image with such holes.
pub(crate) const LOGIN_LOGS: [&[u8]; 3] = [b"var/log/lastlog", b"var/log/faillog", b"var/log/tallylog"];
/// The reason that is reported for such a log; `walt-build` prints it after the path.
pub const EMPTIED: &str = "a large login log that is almost all holes: kept as an empty file";

/// Which rules a commit applies.
#[derive(Debug, Clone, Copy)]
pub struct SaveRules {
    /// The table, empty for none.
    pub rules: &'static [Rule],
    /// Leave out what equals the platform layer, and directories whose only change is their time.
    pub quiet: bool,
}

impl SaveRules {
    /// For interactive sessions and everything in which a system ran.
    pub fn standard() -> Self {
        Self { rules: RULES, quiet: true }
    }

    /// Every change is kept.
    pub fn exact() -> Self {
        Self { rules: &[], quiet: false }
    }

    /// The rules whose pattern matches `path`.
    pub(crate) fn matching<'a>(&self, path: &'a [u8]) -> impl Iterator<Item = &'static Rule> + use<'a> {
        self.rules.iter().filter(move |r| matches(r.pattern.as_bytes(), path))
    }
}

fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let mut names = path.split(|b| *b == b'/');
    for part in pattern.split(|b| *b == b'/') {
        if part == b"**" {
            return names.next().is_some();
        }
        match names.next() {
            Some(name) if name_matches(part, name) => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

fn name_matches(part: &[u8], name: &[u8]) -> bool {
    match part.iter().position(|b| *b == b'*') {
        None => part == name,
        Some(star) => {
            let (start, end) = (&part[..star], &part[star + 1..]);
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("run/**", "run/a/b", true),
            ("run/**", "run", false),
            ("home/*/.bash_history", "home/u/.bash_history", true),
            ("home/*/.bash_history", "home/u/v/.bash_history", false),
            ("var/tmp/systemd-private-*", "var/tmp/systemd-private-1", true),
            ("var/tmp/systemd-private-*", "var/tmp/other", false),
            ("etc/machine-id", "etc/machine-id.bak", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }
}
