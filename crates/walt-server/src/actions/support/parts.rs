//! The parts of a bundle.

use super::{
    PART_MAX,
    collect::{file, output, text_of},
    config_of,
};
use crate::{
    actions::admin::runtime,
    base::{
        config::{Config, DEFAULT_PATH},
        db::{self, BootRow, Db, NodeRow},
        time,
    },
    services::logs,
};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{Read, Write as _},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use walt_client::{Client, Target};
use walt_logs::{Query, Retention, Store, show};

/// How long a part may take, unless it says otherwise.
const SHORT: Duration = Duration::from_secs(10);
/// How long parts that read the log store may take.
const LONG: Duration = Duration::from_secs(30);
/// Last lines of the server's log, and of what happens on the platform.
const LOG_LINES: usize = 5000;
/// Files of the log store that are copied, in bytes: the newest ones.
const LOG_COPY: u64 = 128 << 20;
/// The unit of the server.
const UNIT: &str = "walt-server.service";
/// Programs whose versions matter, with the argument that prints it.
const PROGRAMS: [(&str, &str); 11] = [
    ("runc", "--version"),
    ("nft", "--version"),
    ("ssh", "-V"),
    ("qemu-system-x86_64", "--version"),
    ("qemu-system-aarch64", "--version"),
    ("qemu-img", "--version"),
    ("git", "--version"),
    ("mmdebstrap", "--version"),
    ("ip", "-V"),
    ("systemctl", "--version"),
    ("ldd", "--version"),
];
/// Files about the machine.
const MACHINE: [&str; 14] = [
    "/etc/os-release",
    "/etc/debian_version",
    "/proc/version",
    "/proc/cmdline",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/sys/fs/cgroup/cgroup.controllers",
    "/proc/self/cgroup",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/kernel/unprivileged_userns_clone",
];

/// What the parts are made from.
pub struct Facts {
    /// The configuration; the default one if it cannot be read.
    pub config: Config,
    config_error: Option<String>,
    config_path: PathBuf,
    check_store: Duration,
    logs: Mutex<Option<(Store, TempDir)>>,
}

/// One part.
pub struct Part {
    /// Its file.
    pub file: &'static str,
    /// How long it may take.
    pub limit: Duration,
    /// Makes its text.
    pub get: fn(&Facts) -> Result<String>,
}

impl Facts {
    /// Of this machine, with the configuration of a file.
    pub fn find(config_path: Option<&Path>, check_store: Duration) -> Arc<Self> {
        let (config, config_error) = config_of(config_path);
        let config_path = config_path.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        Arc::new(Self { config, config_error, config_path, check_store, logs: Mutex::default() })
    }

    /// This program with this configuration.
    fn server(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.args(words);
        if self.config_path != Path::new(DEFAULT_PATH) {
            command.arg("--config").arg(&self.config_path);
        }
        Ok(command)
    }
}

/// All parts, the most useful ones first.
pub fn all(facts: &Facts) -> Vec<Part> {
    let part = |file, limit, get| Part { file, limit, get };
    vec![
        part("versions.txt", SHORT * 2, versions),
        part("configuration.yaml", SHORT, configuration),
        part("status.json", SHORT, status_json),
        part("health.json", SHORT, health),
        part("server-log.txt", LONG, |facts| log_lines(facts, "daemon.")),
        part("platform-log.txt", LONG, |facts| log_lines(facts, "platform.")),
        part("journal.txt", SHORT * 2, journal),
        part("unit.txt", SHORT, unit),
        part("nodes.txt", SHORT, nodes),
        part("boots.json", SHORT, boots),
        part("qemu.txt", SHORT, qemu),
        part("network.txt", SHORT, network),
        part("nftables.txt", SHORT, |_| run("nft", &["list", "ruleset"])),
        part("machine.txt", SHORT, machine),
        part("disks.txt", SHORT, disks),
        part("state-dir.txt", SHORT, state_dir),
        part("database.txt", SHORT * 2, |facts| db::describe(&facts.config.state_dir)),
        part("metrics.txt", SHORT, metrics),
        part("check-store.txt", facts.check_store + SHORT, check_store),
    ]
}

/// What is secret in the state, in the forms in which it could be written.
pub fn secrets(facts: &Facts) -> Vec<String> {
    let state_dir = facts.config.state_dir.clone();
    let read = move || Db::open_to_read(&state_dir)?.with(|c| db::get_meta(c, "token-key"));
    let key = super::collect::within(SHORT, read).ok().flatten().unwrap_or_default();
    let hex = key.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    vec![STANDARD.encode(&key), hex]
}

fn run(program: &str, words: &[&str]) -> Result<String> {
    output(Command::new(program).args(words), PART_MAX, SHORT)
}

/// What several programs and files say, each with a heading; those that fail say why.
fn several<const N: usize>(commands: [&[&str]; N]) -> String {
    commands.iter().fold(String::new(), |text, words| {
        let said = run(words[0], &words[1..]).unwrap_or_else(|e| format!("({e:#})\n"));
        text + &format!("# {}\n{said}\n", words.join(" "))
    })
}

fn versions(_: &Facts) -> Result<String> {
    let mut text = format!(
        "walt-server {} ({})\nAPI {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::current_exe().map_or_else(|e| e.to_string(), |path| path.display().to_string()),
        walt_api::PROTOCOL
    );
    for (program, argument) in PROGRAMS {
        let said = run(program, &[argument]).unwrap_or_else(|e| format!("({e:#})"));
        let _ = writeln!(text, "{program}: {}", said.lines().take(2).collect::<Vec<_>>().join(" | "));
    }
    Ok(text)
}

/// The file without comments, which may contain anything.
fn configuration(facts: &Facts) -> Result<String> {
    let mut text = format!("# {}\n", facts.config_path.display());
    if let Some(why) = &facts.config_error {
        let _ = writeln!(text, "# It is not valid, so the default configuration was taken: {why}");
    }
    if !facts.config_path.exists() {
        return Ok(text + "# There is no such file.\n");
    }
    for line in file(&facts.config_path, PART_MAX)?.lines() {
        let line =
            if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or("") };
        if !line.trim().is_empty() {
            let _ = writeln!(text, "{line}");
        }
    }
    Ok(text)
}

fn status_json(facts: &Facts) -> Result<String> {
    output(&mut facts.server(&["status", "--json"])?, PART_MAX, SHORT)
}

/// Asks the server; an error if it does not answer.
fn ask<T>(facts: &Facts, question: impl AsyncFnOnce(&mut Client) -> walt_client::Result<T>) -> Result<T> {
    runtime()?.block_on(async {
        let mut client = Client::new(Target::Unix(facts.config.socket()), None)?;
        Ok(question(&mut client).await?)
    })
}

fn health(facts: &Facts) -> Result<String> {
    Ok(serde_json::to_string_pretty(&ask(facts, async |client| client.health().await)?)?)
}

fn metrics(facts: &Facts) -> Result<String> {
    let socket = facts.config.socket();
    let mut server =
        UnixStream::connect(&socket).with_context(|| format!("cannot reach {}", socket.display()))?;
    server.set_read_timeout(Some(SHORT))?;
    write!(server, "GET {} HTTP/1.0\r\nHost: walt\r\n\r\n", walt_api::route::METRICS)?;
    let mut answer = Vec::new();
    server.take(PART_MAX as u64).read_to_end(&mut answer)?;
    Ok(text_of(answer, PART_MAX))
}

/// The last lines of the streams of the server whose names begin like this. They are read from a copy of the newest files of
/// the store: a running server has the store open, and nobody else may.
fn log_lines(facts: &Facts, prefix: &'static str) -> Result<String> {
    let mut copy = facts.logs.lock();
    if copy.is_none() {
        *copy = Some(copy_of_logs(&logs::dir(&facts.config))?);
    }
    let Some((store, _)) = copy.as_ref() else { bail!("no copy of the logs") };
    let query = Query::new(Arc::new(move |stream| stream.name.starts_with(prefix)));
    let mut text = String::new();
    for record in store.last(&query, LOG_LINES)? {
        let name = store.stream_info(record.stream).map(|info| info.name.to_string()).unwrap_or_default();
        let _ =
            writeln!(text, "{} {name} {}", time::local_micros(record.timestamp), show::escaped(&record.line));
    }
    Ok(text)
}

/// A store with the newest files of another one.
fn copy_of_logs(dir: &Path) -> Result<(Store, TempDir)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let data = entry.metadata()?;
        if data.is_file() {
            files.push((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), data.len(), entry.path()));
        }
    }
    files.sort();
    let copy = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut left = LOG_COPY;
    for (_, size, path) in files.iter().rev() {
        let is_lines = path.extension().is_some_and(|e| e == "zst" || e == "log");
        if is_lines && *size > left {
            continue;
        }
        if is_lines {
            left -= size;
        }
        let to = copy.path().join(path.file_name().unwrap_or_default());
        std::fs::copy(path, to).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok((Store::open(copy.path(), Retention::default())?, copy))
}

fn journal(_: &Facts) -> Result<String> {
    let lines = LOG_LINES.to_string();
    run("journalctl", &["--no-pager", "--quiet", "-o", "short-iso", "-u", UNIT, "-n", &lines])
}

fn unit(_: &Facts) -> Result<String> {
    Ok(several([
        &["systemctl", "status", "--no-pager", "--lines=0", UNIT],
        &["systemctl", "cat", "--no-pager", UNIT],
        &["systemctl", "show", "--no-pager", UNIT],
    ]))
}

fn nodes(facts: &Facts) -> Result<String> {
    let db = Db::open_to_read(&facts.config.state_dir)?;
    let (rows, settings) = db.with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
    let mut text = String::new();
    for row in &rows {
        let _ = writeln!(text, "{:#?}\nsettings: {:?}\n", row.facts, settings.get(&row.mac));
        let _ = writeln!(text, "life: {:#?}\n", row.life);
    }
    Ok(text)
}

/// The last boot of each node.
fn boots(facts: &Facts) -> Result<String> {
    let db = Db::open_to_read(&facts.config.state_dir)?;
    let mut text = String::new();
    for (mac, row) in db.with(BootRow::last)? {
        let _ = writeln!(text, "{mac} {} {}", row.number, serde_json::to_string(&row.record)?);
    }
    Ok(text)
}

/// Command lines of this server's virtual machines, and of the other processes that outlive it.
fn qemu(facts: &Facts) -> Result<String> {
    let (state, run) = (&facts.config.state_dir, &facts.config.run_dir);
    let ours = [state.as_os_str().as_encoded_bytes(), run.as_os_str().as_encoded_bytes()];
    // qemu gets its files as descriptors: its command line names no directory of ours.
    let machines = machines(state);
    let mut text = String::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        // Processes end at any moment.
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_machine = entry.file_name().to_str().is_some_and(|pid| machines.contains(pid));
        if is_machine || ours.iter().any(|dir| memchr::memmem::find(&words, dir).is_some()) {
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            let _ = writeln!(text, "{}: {}\n", entry.file_name().display(), line.trim_end());
        }
    }
    Ok(text)
}

/// Numbers of the processes of virtual machines, as their nodes' directories have them.
fn machines(state: &Path) -> BTreeSet<String> {
    let nodes = std::fs::read_dir(state.join("nodes")).into_iter().flatten().flatten();
    let identities = nodes.filter_map(|node| std::fs::read(node.path().join("vm.json")).ok());
    let parsed = identities.filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    parsed.filter_map(|identity| Some(identity.get("pid")?.as_u64()?.to_string())).collect()
}

fn network(_: &Facts) -> Result<String> {
    Ok(several([
        &["ip", "-d", "address", "show"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "rule", "show"],
        &["ip", "neighbour", "show"],
        &["bridge", "-d", "link", "show"],
        &["bridge", "vlan", "show"],
        &["ss", "-lntup"],
    ]))
}

fn machine(_: &Facts) -> Result<String> {
    let mut text = several([&["uname", "-a"], &["date", "--iso-8601=seconds"], &["lscpu"], &["lsmod"]]);
    for path in MACHINE {
        let said = file(path, PART_MAX / 16).unwrap_or_else(|e| format!("({e:#})\n"));
        let _ = write!(text, "# {path}\n{said}\n");
    }
    let kvm = std::fs::metadata("/dev/kvm");
    let _ = match kvm {
        Ok(data) => writeln!(text, "# /dev/kvm\nmode {:o}, group {}", data.mode(), data.gid()),
        Err(e) => writeln!(text, "# /dev/kvm\n{e}"),
    };
    Ok(text)
}

fn disks(facts: &Facts) -> Result<String> {
    let [state, run] = [&facts.config.state_dir, &facts.config.run_dir].map(|dir| dir.display().to_string());
    Ok(several([
        &["df", "-hT", &state, &run],
        &["df", "-i", &state],
        &["findmnt", "-T", &state],
        &["lsblk", "-o", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINTS,ROTA"],
    ]))
}

/// Names, modes and sizes two levels deep: no contents.
fn state_dir(facts: &Facts) -> Result<String> {
    fn list(dir: &Path, depth: usize, text: &mut String) -> Result<()> {
        /// Entries of one directory that are listed.
        const ENTRIES: usize = 200;
        let mut entries: Vec<_> = std::fs::read_dir(dir)
            .with_context(|| format!("cannot read {}", dir.display()))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        for path in entries.iter().take(ENTRIES) {
            let Ok(data) = std::fs::symlink_metadata(path) else { continue };
            let (mode, size, owner) = (data.mode(), data.len(), (data.uid(), data.gid()));
            let _ = writeln!(text, "{mode:06o} {}:{} {size:>12} {}", owner.0, owner.1, path.display());
            if data.is_dir() && depth > 1 {
                list(path, depth - 1, text)?;
            }
        }
        if entries.len() > ENTRIES {
            let _ = writeln!(text, "({} more in {})", entries.len() - ENTRIES, dir.display());
        }
        Ok(())
    }
    let mut text = String::new();
    list(&facts.config.state_dir, 2, &mut text)?;
    if let Err(e) = list(&facts.config.run_dir, 2, &mut text) {
        let _ = writeln!(text, "({e:#})");
    }
    Ok(text)
}

fn check_store(facts: &Facts) -> Result<String> {
    if facts.check_store.is_zero() {
        bail!("it was not wanted");
    }
    output(&mut facts.server(&["check-store"])?, PART_MAX, facts.check_store)
}
