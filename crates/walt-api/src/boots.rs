//! Boots of a node, for `walt node boots`.

use serde::{Deserialize, Serialize};

/// Answer of [`route::NODE_BOOTS`](crate::route::NODE_BOOTS). Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootList {
    /// Name of the node.
    pub node: String,
    /// Its boots that are kept, the first one first.
    pub boots: Vec<Boot>,
}

/// One boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Boot {
    /// Its number on this node, from 1.
    pub number: u64,
    /// When it began, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub started: String,
    /// The same in seconds since the epoch.
    pub started_at: f64,
    /// Who wanted it, and why.
    pub cause: String,
    /// Full reference of the image.
    pub image: String,
    /// Digest of the image.
    pub image_id: Option<String>,
    /// View of the image that the node reads.
    pub view: Option<String>,
    /// Command line of the kernel.
    pub kernel_line: Option<String>,
    /// Boot mode (`network`, `hybrid-volatile`, `hybrid-persistent`).
    pub mode: Option<String>,
    /// Seconds until it had booted; null if it has not.
    pub seconds: Option<f64>,
    /// The stages that it has been through, the first one first.
    pub stages: Vec<BootStage>,
    /// How often the server tried to start the virtual machine.
    pub attempts: u32,
    /// How often the machine began again on its own before it had booted.
    pub restarts: u32,
    /// NFS calls until it had booted.
    pub nfs_calls: u64,
    /// Bytes of the answers to them.
    pub nfs_bytes: u64,
    /// How the boot went: `booted`, `boots` while it does, `timeout`, `panic: …` and so on.
    pub outcome: String,
    /// Line of the console that says that the kernel panicked.
    pub panic: Option<String>,
    /// How the boot, or the system that it has booted, has ended; null while it goes on.
    pub end: Option<String>,
    /// When that was, as `started`.
    pub ended: Option<String>,
    /// Why it counts as slow; null if it does not.
    pub slow: Option<SlowBoot>,
}

/// A stage of a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootStage {
    /// `start`, `firmware`, `dhcp`, `script`, `kernel`, `initrd`, `root`, `init` or `ssh`.
    pub stage: String,
    /// When it ended, in seconds since the start of the boot.
    pub at: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Bytes that were loaded in it.
    pub bytes: Option<u64>,
}

/// A boot that took much longer than others of the same image on the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowBoot {
    /// Its time divided by the median of the others.
    pub factor: f64,
    /// That median, in seconds.
    pub median: f64,
    /// The stage that grew most.
    pub stage: String,
    /// By how many seconds.
    pub grew: f64,
}
