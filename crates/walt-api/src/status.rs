//! How the server is, for `walt-server status`.

use serde::{Deserialize, Serialize};

/// Answer of [`route::STATUS`], and what `walt-server status --json` prints. Field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a server runs; without one, the rest is what its state tells, and `version`, `since` are null.
    pub running: bool,
    /// Version of the server.
    pub version: Option<String>,
    /// When it was started, `YYYY-MM-DD HH:MM:SS` in its local time.
    pub since: Option<String>,
    /// Seconds since then.
    pub uptime: Option<u64>,
    /// Nodes.
    pub nodes: NodeCounts,
    /// Open sessions of image shells.
    pub sessions: SessionCounts,
    /// The image store.
    pub images: ImageCounts,
    /// The file system of the state directory.
    pub disk: Disk,
    /// Ports that the server does without.
    pub ports_missing: Vec<MissingPort>,
    /// Whether image shells have user namespaces; null without a server.
    #[serde(default)]
    pub user_namespaces: Option<UserNamespaces>,
    /// Rules of other programs that would drop traffic of the server.
    pub foreign_rules: Vec<ForeignRule>,
    /// The last warnings and errors, oldest first.
    pub errors: Vec<LogEntry>,
}

/// Whether containers of image shells have a user namespace, so that their root is nobody on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespaces {
    /// Whether.
    pub used: bool,
    /// Why not.
    pub why: Option<String>,
}

/// Nodes by state, see [`NodeState`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts {
    /// All.
    pub total: usize,
    /// [`NodeState::Booted`].
    pub booted: usize,
    /// [`NodeState::Booting`].
    pub booting: usize,
    /// [`NodeState::Down`].
    pub down: usize,
    /// [`NodeState::Off`].
    pub off: usize,
}

/// Sessions by state, see [`SessionInfo::state`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounts {
    /// All.
    pub total: usize,
    /// A container is being started, or its shell runs.
    pub running: usize,
    /// The shell has ended, and what becomes of its changes is not decided.
    pub exited: usize,
    /// No container: it can be resumed.
    pub stopped: usize,
}

/// What the image store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCounts {
    /// References of all users.
    pub references: usize,
    /// Images.
    pub images: usize,
    /// Layers, those that the server adds among them.
    pub layers: usize,
    /// Sum of the sizes of the layers as tars, in bytes.
    pub bytes: u64,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The state directory.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are left.
    pub free: u64,
}

/// A port that the server wanted and does without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPort {
    /// Its number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// What it is for.
    pub service: String,
    /// Name of the program that holds it now; null if nobody does any more, or it cannot be told.
    pub holder: Option<String>,
    /// Number of its process.
    pub pid: Option<u32>,
    /// What does not work without it.
    pub effect: String,
}

/// A chain of another firewall that drops what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignRule {
    /// Family, table and chain as `nft` has them, or `iptables`.
    pub chain: String,
    /// Whether the server has added a rule to it that accepts its own traffic.
    pub accepted: bool,
    /// A sentence.
    pub message: String,
}

/// A warning or an error of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was said last, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub time: String,
    /// `warning` or `error`.
    pub level: String,
    /// What was said.
    pub message: String,
    /// How often in succession.
    pub times: u32,
}
