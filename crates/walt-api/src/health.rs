//! Whether the server is well, as one of its users sees it, for `walt advanced health`.
//!
//! The same facts as [`Status`](crate::Status), which is for root, without what only an administrator can use: process
//! numbers, paths. Messages of the server's log are those of its stream `daemon.…`, which every user may read.

use crate::{LogEntry, NodeCounts};
use serde::{Deserialize, Serialize};

/// Answer of [`route::HEALTH`](crate::route::HEALTH), and what `walt advanced health --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Whether nothing is wrong: no finding is an error.
    pub healthy: bool,
    /// Version of the server.
    pub version: String,
    /// When it was started, `YYYY-MM-DD HH:MM:SS` in its local time.
    pub since: String,
    /// Seconds since then.
    pub uptime: u64,
    /// The caller.
    pub user: String,
    /// The caller's nodes.
    pub nodes: NodeCounts,
    /// Number of the nodes of all users.
    pub all_nodes: usize,
    /// The caller's images.
    pub images: OwnImages,
    /// Room for images, logs and `/persist`.
    pub room: Room,
    /// What is wrong, and what to do; errors first.
    pub findings: Vec<Finding>,
    /// The last warnings and errors of the server's log, oldest first.
    pub errors: Vec<LogEntry>,
}

/// The images of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OwnImages {
    /// All.
    pub total: usize,
    /// Those among them that nodes use.
    pub in_use: usize,
    /// Those among them that have an open shell.
    pub shells: usize,
}

/// Room on the server's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Room {
    /// Bytes of the file system.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may not work, or soon.
    Warning,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What is wrong: a sentence.
    pub what: String,
    /// What to do about it: a sentence.
    pub advice: String,
}
