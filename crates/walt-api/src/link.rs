//! Links between virtual nodes and their networks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The link between a node and a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkState {
    /// Name of the node.
    pub node: String,
    /// Name of the network.
    pub network: String,
    /// What is really done to frames now, as in the brackets of the setting `networks`; empty for a plain cable, null if
    /// nothing is connected.
    pub applied: Option<String>,
    /// What the setting says; null for a network that the node will not have after its next reboot.
    pub configured: Option<String>,
    /// For how many seconds more `applied` differs from `configured` on purpose.
    pub seconds_left: Option<f64>,
    /// What has happened to frames towards the node since the link was shaped; null for a plain cable.
    pub towards_node: Option<LinkCounters>,
    /// The same for frames from the node.
    pub from_node: Option<LinkCounters>,
}

/// What has happened to the frames of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkCounters {
    /// Frames delivered.
    pub passed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames dropped, by cause: loss, burst, queue, link-down, memory, kernel.
    pub dropped: BTreeMap<String, u64>,
    /// Frames delivered a second time.
    pub duplicated: u64,
    /// Frames that have overtaken others.
    pub reordered: u64,
    /// Frames in which a bit was flipped.
    pub corrupted: u64,
    /// Frames under way now.
    pub queued: u64,
}
