//! The state of the server, for `walt-server status`.

use serde::{Deserialize, Serialize};

/// Answer of [`route::STATUS`](crate::route::STATUS), and what `walt-server status --json` prints. Field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Whether a server runs. If not, `version` and `since` are null, and the rest comes from the state directory.
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
    /// Ports that the server could not open.
    pub ports_missing: Vec<MissingPort>,
    /// Whether image shells have user namespaces; null without a server.
    #[serde(default)]
    pub user_namespaces: Option<UserNamespaces>,
    /// Rules of other programs that would drop traffic of the server.
    pub foreign_rules: Vec<ForeignRule>,
    /// The cable of walt-net; null without one.
    #[serde(default)]
    pub cable: Option<Cable>,
    /// Other DHCP servers that answered on walt-net.
    #[serde(default)]
    pub dhcp_servers: Vec<DhcpServer>,
    /// The last warnings and errors, oldest first.
    pub errors: Vec<LogEntry>,
}

/// Whether containers of image shells have a user namespace, in which root is an unprivileged user of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserNamespaces {
    /// Whether they have one.
    pub used: bool,
    /// Why not, if they have none.
    pub why: Option<String>,
}

/// The physical interface of walt-net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cable {
    /// Name of the interface.
    pub device: String,
    /// VLAN on it.
    pub vlan: Option<u16>,
    /// Whether it is in the bridge.
    pub attached: bool,
    /// Whether a station is at the other end.
    pub carrier: bool,
    /// Speed in Mbit/s, if the driver says it.
    pub speed: Option<u32>,
    /// Largest packet in bytes; null if the interface is absent.
    pub mtu: Option<u32>,
    /// Why it is not in the bridge.
    pub problem: Option<String>,
}

/// A DHCP server on walt-net that is not this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DhcpServer {
    /// How it identifies itself (option 54).
    pub ip: String,
    /// Ethernet address that its answer came from.
    pub mac: String,
}

/// Nodes by state, see [`NodeState`](crate::NodeState).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeCounts {
    /// All.
    pub total: usize,
    /// [`NodeState::Booted`](crate::NodeState::Booted).
    pub booted: usize,
    /// [`NodeState::Booting`](crate::NodeState::Booting).
    pub booting: usize,
    /// [`NodeState::Down`](crate::NodeState::Down).
    pub down: usize,
    /// [`NodeState::Off`](crate::NodeState::Off).
    pub off: usize,
    /// Those among them that the server has given up on, see [`Node::needs_look`](crate::Node::needs_look).
    #[serde(default)]
    pub needs_look: usize,
}

/// Sessions by state, see [`SessionInfo::state`](crate::SessionInfo::state).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionCounts {
    /// All.
    pub total: usize,
    /// A container is being started, or its shell runs.
    pub running: usize,
    /// The shell has exited, and its changes are neither saved nor dropped.
    pub exited: usize,
    /// Without a container; it can be resumed.
    pub stopped: usize,
}

/// What the image store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageCounts {
    /// References of all users.
    pub references: usize,
    /// Images.
    pub images: usize,
    /// Layers, including those that the server adds.
    pub layers: usize,
    /// Sum of the sizes of the layers as tars, in bytes.
    pub bytes: u64,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Disk {
    /// The state directory.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
}

/// A port that the server could not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingPort {
    /// Its number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// What it is for.
    pub service: String,
    /// Name of the program that uses it now; null if none does, or it is unknown.
    pub holder: Option<String>,
    /// Process id of that program.
    pub pid: Option<u32>,
    /// What does not work without the port.
    pub effect: String,
}

/// A chain of another firewall that drops unknown traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForeignRule {
    /// Family, table and chain as `nft` has them, or `iptables`.
    pub chain: String,
    /// Whether the server has added a rule that accepts its own traffic.
    pub accepted: bool,
    /// A sentence for people.
    pub message: String,
}

/// A warning or an error of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// When it was logged last, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub time: String,
    /// `warning` or `error`.
    pub level: String,
    /// The message.
    pub message: String,
    /// How many times in a row it was logged.
    pub times: u32,
}
