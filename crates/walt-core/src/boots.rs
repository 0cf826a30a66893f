//! Records of boots: which stage was reached when, how a boot ended, and which boots were slow, and why.
//!
//! ```text
//!   begun ─▶ stages, each when it ends ─▶ Ssh: booted ─▶ end: rebooted, panicked, stopped, …
//!                                     └──────────────▶ end: timeout, panic, not started, …
//! ```
//! A stage is what ends at its moment: the time of `kernel` is that from the end of the stage before to the moment
//! at which the machine has its kernel. So all times of a boot together are its whole time.
//!
//! | stage | ends when |
//! |---|---|
//! | start | the virtual machine runs |
//! | firmware | the firmware asks for an address |
//! | dhcp | it has one, for its boot loader or for the boot scripts |
//! | script | the last boot script has been read |
//! | kernel, initrd | the file has arrived |
//! | root | the system mounts its image |
//! | init | the image's own init is about to start (HELLO of the node link) |
//! | ssh | the ssh server of the image answers (BOOTED) |
//!
//! A virtual machine that is started without firmware has its script, kernel and initrd before it starts.
//!
//! Times are seconds since the epoch, passed in by the caller; those of stages are seconds since the start of the boot.
//! Limits: [`BOOTS_KEPT`] records per node, [`TEXT_MAX`] characters of each text that comes from a node.

use serde::{Deserialize, Serialize};

/// Records that are kept per node.
pub const BOOTS_KEPT: usize = 50;
/// Longest text from a node that is kept, in characters: a line of its console, its kernel's command line.
pub const TEXT_MAX: usize = 2048;
/// A boot that takes this many times the median counts as slow.
pub const SLOW_FACTOR: f64 = 1.5;
/// Other boots of the same image that a median needs.
pub const OTHERS_MIN: usize = 2;

/// A stage of a boot, in the order of a boot by firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The server starts the virtual machine.
    Start,
    /// Power-on until the firmware asks for an address.
    Firmware,
    /// The machine gets an address.
    Dhcp,
    /// Boot loaders and boot scripts.
    Script,
    /// The kernel is loaded.
    Kernel,
    /// The initial RAM disk is loaded.
    Initrd,
    /// The kernel and the initial RAM disk run.
    Root,
    /// The node prepares its image for the image's init.
    Init,
    /// The image's system starts.
    Ssh,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Firmware,
        Self::Dhcp,
        Self::Script,
        Self::Kernel,
        Self::Initrd,
        Self::Root,
        Self::Init,
        Self::Ssh,
    ];

    /// Its name, in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Firmware => "firmware",
            Self::Dhcp => "dhcp",
            Self::Script => "script",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Root => "root",
            Self::Init => "init",
            Self::Ssh => "ssh",
        }
    }
}

/// A stage that a boot has been through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Which.
    pub stage: Stage,
    /// When it ended, in seconds since the start of the boot.
    pub at: f64,
    /// Bytes that were loaded in it.
    #[serde(default)]
    pub bytes: u64,
}

/// Who wanted a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A user.
    User(String),
    /// The server.
    Server,
    /// The node itself, or a person at its power switch.
    Node,
}

/// Who wanted a boot, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Who.
    pub by: By,
    /// Why, in a few words; empty if that is not known.
    pub why: String,
}

impl Cause {
    /// A user's.
    pub fn user(name: impl Into<String>, why: &str) -> Self {
        Self { by: By::User(name.into()), why: why.to_owned() }
    }

    /// The server's.
    pub fn server(why: &str) -> Self {
        Self { by: By::Server, why: why.to_owned() }
    }

    /// The node's.
    pub fn node() -> Self {
        Self { by: By::Node, why: String::new() }
    }

    /// As a part of a sentence: `ann (image change)`.
    pub fn text(&self) -> String {
        let who = match &self.by {
            By::User(name) => name.as_str(),
            By::Server => "the server",
            By::Node => "the node itself",
        };
        if self.why.is_empty() { who.to_owned() } else { format!("{who} ({})", self.why) }
    }
}

/// How a boot, or the system that it has booted, has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It did not boot within `boot.timeout`, or was out of reach for so long.
    Timeout,
    /// The kernel panicked; the line of the console that says so.
    Panic(String),
    /// Another boot was wanted.
    Rebooted(Cause),
    /// It was switched off by the server.
    PoweredOff,
    /// The virtual machine ended by itself; the last line of its console.
    Stopped(String),
    /// The server could not start it; the reason.
    NotStarted(String),
}

impl End {
    /// In a few words, for a table.
    pub fn text(&self) -> String {
        match self {
            Self::Timeout => "timeout".into(),
            Self::Panic(line) => format!("panic: {line}"),
            Self::Rebooted(cause) => format!("rebooted by {}", cause.text()),
            Self::PoweredOff => "powered off".into(),
            Self::Stopped(line) if line.is_empty() => "stopped by itself".into(),
            Self::Stopped(line) => format!("stopped by itself: {line}"),
            Self::NotStarted(reason) => format!("not started: {reason}"),
        }
    }
}

/// One boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it began.
    pub started: f64,
    /// Who wanted it.
    pub cause: Cause,
    /// Full reference of the image.
    pub image: String,
    /// Digest of the image.
    #[serde(default)]
    pub image_id: Option<String>,
    /// View that the node reads.
    #[serde(default)]
    pub view: Option<String>,
    /// Command line of the kernel.
    #[serde(default)]
    pub kernel_line: Option<String>,
    /// Where the root file system is, as the node reports it.
    #[serde(default)]
    pub mode: Option<String>,
    /// The stages it has been through, the first one first.
    #[serde(default)]
    pub stages: Vec<Reached>,
    /// How often the server tried to start it.
    #[serde(default)]
    pub attempts: u32,
    /// How often the machine began again on its own, before it had booted.
    #[serde(default)]
    pub restarts: u32,
    /// NFS calls, until it had booted.
    #[serde(default)]
    pub nfs_calls: u64,
    /// Bytes of the answers to them.
    #[serde(default)]
    pub nfs_bytes: u64,
    /// The line of a panic, if there was one.
    #[serde(default)]
    pub panic: Option<String>,
    /// How it ended; none if it has not.
    #[serde(default)]
    pub end: Option<End>,
    /// When it ended, or the system that it had booted.
    #[serde(default)]
    pub ended: Option<f64>,
    /// Length of the console's log when it began.
    #[serde(default)]
    pub console_from: u64,
}

impl Record {
    /// A boot that begins.
    pub fn new(started: f64, cause: Cause, image: String) -> Self {
        Self {
            started,
            cause,
            image,
            image_id: None,
            view: None,
            kernel_line: None,
            mode: None,
            stages: Vec::new(),
            attempts: 1,
            restarts: 0,
            nfs_calls: 0,
            nfs_bytes: 0,
            panic: None,
            end: None,
            ended: None,
            console_from: 0,
        }
    }

    /// The stage, if it has been reached.
    pub fn stage(&self, stage: Stage) -> Option<&Reached> {
        self.stages.iter().find(|reached| reached.stage == stage)
    }

    /// Seconds until the node had booted, if it has.
    pub fn total(&self) -> Option<f64> {
        self.stage(Stage::Ssh).map(|reached| reached.at)
    }

    /// The last stage that it has been through.
    pub fn last_stage(&self) -> Option<Stage> {
        self.stages.last().map(|reached| reached.stage)
    }

    /// A stage ends now; `bytes` more were loaded in it. A file that is loaded in parts moves its stage.
    pub fn reach(&mut self, stage: Stage, now: f64, bytes: u64) {
        let at = (now - self.started).max(0.0);
        let before = self.stage(stage).map_or(0, |reached| reached.bytes);
        self.stages.retain(|reached| reached.stage != stage);
        // Reports come from several sockets: the order is that of the moments.
        let place = self.stages.iter().position(|reached| reached.at > at).unwrap_or(self.stages.len());
        self.stages.insert(place, Reached { stage, at, bytes: before + bytes });
        if stage == Stage::Ssh && self.end == Some(End::Timeout) {
            // It was late, and has booted after all.
            (self.end, self.ended) = (None, None);
        }
    }

    /// A stage that is only reached once ends now, unless it has.
    pub fn reach_once(&mut self, stage: Stage, now: f64) -> bool {
        let is_new = self.stage(stage).is_none();
        if is_new {
            self.reach(stage, now, 0);
        }
        is_new
    }

    /// The machine asks for an address, or gets one. `rom` is whether it is its firmware that asks, and not a boot
    /// loader. True if that is news.
    pub fn asks_for_address(&mut self, rom: bool, answered: bool, now: f64) -> bool {
        if self.stages.iter().any(|reached| reached.stage >= Stage::Script) {
            if !rom || answered || self.total().is_some() {
                return false;
            }
            // It began again: what it had loaded counts no more.
            self.restarts += 1;
            self.stages.retain(|reached| reached.stage == Stage::Start);
        }
        let is_new = self.reach_once(Stage::Firmware, now);
        if answered {
            self.reach(Stage::Dhcp, now, 0);
        }
        is_new || answered
    }

    /// The machine asks for a boot file of this kind.
    pub fn asks_for_file(&mut self, kind: FileKind, now: f64) -> bool {
        let loaded = [Stage::Kernel, Stage::Initrd].iter().any(|stage| self.stage(*stage).is_some());
        if self.total().is_some() || loaded {
            return false;
        }
        // The scripts have been read once the first file is asked for; if nothing is known of the time before, it was not
        // all for scripts.
        let counts = kind == FileKind::Script || !self.stages.is_empty();
        if counts {
            self.reach(Stage::Script, now, 0);
        }
        counts
    }

    /// A boot file of this kind has arrived, or a part of it.
    pub fn has_file(&mut self, kind: FileKind, bytes: u64, now: f64) -> bool {
        let stage = match kind {
            FileKind::Script => return false,
            FileKind::Kernel => Stage::Kernel,
            FileKind::Initrd => Stage::Initrd,
        };
        if bytes == 0 || self.stages.iter().any(|reached| reached.stage >= Stage::Root) {
            // A system that runs looks at its boot files.
            return false;
        }
        self.reach(stage, now, bytes);
        true
    }

    /// The node mounts its image; true if that is news.
    pub fn mounts(&mut self, view: String, image_id: Option<String>, now: f64) -> bool {
        if self.total().is_some() {
            return false;
        }
        (self.view, self.image_id) = (Some(view), image_id);
        self.reach_once(Stage::Root, now);
        true
    }

    /// It has ended; the first end counts.
    pub fn close(&mut self, end: End, now: f64) -> bool {
        if self.end.is_some() {
            return false;
        }
        let end = match (end, self.panic.clone()) {
            (End::Stopped(_) | End::Timeout, Some(line)) => End::Panic(line),
            (end, _) => end,
        };
        (self.end, self.ended) = (Some(end), Some(now));
        true
    }

    /// Each stage and how long it took, in seconds.
    pub fn durations(&self) -> Vec<(Reached, f64)> {
        let mut before = 0.0;
        let took = |reached: &Reached| (*reached, reached.at - std::mem::replace(&mut before, reached.at));
        self.stages.iter().map(took).collect()
    }

    fn duration(&self, stage: Stage) -> f64 {
        self.durations().into_iter().find(|(reached, _)| reached.stage == stage).map_or(0.0, |(_, took)| took)
    }

    /// How it went, in a few words, for a table.
    pub fn outcome(&self) -> String {
        match (&self.end, self.total()) {
            (_, Some(_)) => "booted".into(),
            (Some(End::NotStarted(reason)), None) if self.attempts > 1 => {
                format!("not started ({} times): {reason}", self.attempts)
            }
            (Some(end), None) => end.text(),
            (None, None) => "boots".into(),
        }
    }

    /// Why a boot that has failed did so, for `needs a look`: the end, and where it was.
    pub fn failure(&self, end: &End) -> String {
        let what = match end {
            End::Timeout => "boot timeout reached".to_owned(),
            other => other.text(),
        };
        match (end, self.last_stage()) {
            (End::Timeout, Some(stage)) => format!("{what}, last stage: {}", stage.name()),
            (End::Timeout, None) => format!("{what}, and the machine has asked for nothing"),
            _ => what,
        }
    }
}

/// Text of a node for a record: printable, in one line, and bounded.
pub fn clean(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

/// What a boot file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A script of a boot loader.
    Script,
    /// A kernel.
    Kernel,
    /// An initial RAM disk.
    Initrd,
}

/// What the name of a boot file contains or ends with, by kind; the first that fits counts.
const NAMES: [(&str, FileKind); 12] = [
    ("initrd", FileKind::Initrd),
    ("initramfs", FileKind::Initrd),
    ("ramdisk", FileKind::Initrd),
    (".ipxe", FileKind::Script),
    (".uboot", FileKind::Script),
    (".scr", FileKind::Script),
    ("grub.cfg", FileKind::Script),
    ("vmlinu", FileKind::Kernel),
    ("zimage", FileKind::Kernel),
    ("uimage", FileKind::Kernel),
    ("kernel", FileKind::Kernel),
    (".itb", FileKind::Kernel),
];

/// What a boot file is, by its path: none for boot loaders, device trees and the like.
pub fn file_kind(path: &[u8]) -> Option<FileKind> {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_ascii_lowercase();
    let name = String::from_utf8_lossy(&name);
    // The server's own, which leads to the scripts.
    if name == "bootstrap.ipxe" {
        return None;
    }
    if name == "image" {
        return Some(FileKind::Kernel);
    }
    NAMES.iter().find(|(part, _)| name.contains(part)).map(|(_, kind)| *kind)
}

/// Why a boot counts as slow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// Its time divided by the median.
    pub factor: f64,
    /// Median of the other boots of the same image on the node, in seconds.
    pub median: f64,
    /// The stage that grew most, compared with its own median.
    pub stage: Stage,
    /// By how many seconds.
    pub grew: f64,
}

/// The middle of some numbers; of two, the mean of them.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match numbers.len() % 2 {
        1 => Some(numbers[half]),
        _ => Some((numbers.get(half.checked_sub(1)?)? + numbers[half]) / 2.0),
    }
}

/// Whether the boot at `index` was slow among the boots of its node.
pub fn slow(records: &[Record], index: usize) -> Option<Slow> {
    let record = records.get(index)?;
    let total = record.total()?;
    let is_like = |(other, found): &(usize, &Record)| {
        *other != index && found.image == record.image && found.total().is_some()
    };
    let others: Vec<&Record> = records.iter().enumerate().filter(is_like).map(|(_, found)| found).collect();
    if others.len() < OTHERS_MIN {
        return None;
    }
    let usual = median(others.iter().filter_map(|other| other.total()).collect())?;
    if total <= usual * SLOW_FACTOR {
        return None;
    }
    let grew = |stage: Stage| {
        let usual = median(others.iter().map(|other| other.duration(stage)).collect());
        (stage, record.duration(stage) - usual.unwrap_or(0.0))
    };
    let (stage, grew) = Stage::ALL.map(grew).into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Slow { factor: total / usual, median: usual, stage, grew })
}

#[cfg(test)]
mod tests;
