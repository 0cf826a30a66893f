//! The state of the platform as it changes: `GET` [`route::EVENTS`](crate::route::EVENTS). (The events of one action are
//! [`Event`](crate::Event)s.)
//!
//! ```text
//! snapshot ─▶ changed | gone | heartbeat ─▶ … ─▶ resync ─▶ snapshot ─▶ …
//! ```
//! * The answer is one JSON object per line (`application/x-ndjson`) without an end. A request with `Upgrade: websocket`
//!   gets the same objects as text messages.
//! * The first message is a snapshot. It *replaces* all that the client knows. The messages that follow change it.
//! * Numbers (`seq`) grow, and belong to one run of the server, which `server` in the snapshot identifies. They have gaps.
//! * A client that reads too slowly gets `resync`, and a new snapshot. The server does not wait for clients.
//! * A silent server sends a heartbeat each [`HEARTBEAT_SECONDS`].
//! * Of one thing (a node, say) there are at most [`UPDATES_PER_SECOND`] messages a second; what happened in between is
//!   left out.
//! * Texts that change by the clock are left out: `booted_text` of a node that boots is `booting`, and `seconds_left` of a
//!   lease is null. `boot_started` and `ends` are the times from which they are computed.
//! * Clients ignore kinds and fields that they do not know.
//!
//! The query `kinds=node,session` asks for these kinds only, `nodes=SET` for these nodes only (those that are in the set
//! when the request begins).

use crate::{Image, Node};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Silence of the server after which it sends a heartbeat, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 15;
/// Most messages about one thing in a second.
pub const UPDATES_PER_SECOND: u32 = 5;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LiveKind))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A [`Node`], by its MAC address: a renamed node is the same one.
    Node,
    /// An [`Image`], by its full name.
    Image,
    /// A [`Session`], by its id.
    Session,
    /// An [`Operation`], by its id.
    Operation,
    /// A [`Lease`], by the MAC address of its node.
    Lease,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Node, Self::Image, Self::Session, Self::Operation, Self::Lease];

    /// Its name in messages and queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Image => "image",
            Self::Session => "session",
            Self::Operation => "operation",
            Self::Lease => "lease",
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Live))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Live {
    /// The whole state. It replaces what the client knew.
    Snapshot(Box<Snapshot>),
    /// Something has changed, or is new.
    Changed {
        /// Number of the message.
        seq: u64,
        /// When the server noticed it, in seconds since the epoch.
        time: f64,
        /// What it is.
        kind: Kind,
        /// Which one.
        id: String,
        /// The fields whose values have changed, each with its whole new value; all fields of what is new.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        fields: Map<String, Value>,
    },
    /// Something is gone.
    Gone {
        /// Number of the message.
        seq: u64,
        /// When the server noticed it, in seconds since the epoch.
        time: f64,
        /// What it was.
        kind: Kind,
        /// Which one.
        id: String,
    },
    /// Nothing has happened.
    Heartbeat {
        /// Number of the last message of the server; of one that the client did not ask for, maybe.
        seq: u64,
        /// The server's clock, in seconds since the epoch.
        time: f64,
    },
    /// The client fell behind: messages were left out. A snapshot follows.
    Resync {
        /// The server's clock, in seconds since the epoch.
        time: f64,
    },
}

/// The whole state. Lists of kinds that the client did not ask for are empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LiveSnapshot))]
pub struct Snapshot {
    /// This run of the server: another one after each start.
    pub server: String,
    /// Messages with greater numbers come after this state.
    pub seq: u64,
    /// The server's clock, in seconds since the epoch.
    pub time: f64,
    /// Nodes, as in [`route::NODES`](crate::route::NODES), by MAC address.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Images, as in [`route::IMAGES`](crate::route::IMAGES), by full name.
    #[serde(default)]
    pub images: Vec<Image>,
    /// Open image shells, by id.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// What the server is busy with, by id.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// Leases of nodes, by MAC address.
    #[serde(default)]
    pub leases: Vec<Lease>,
}

/// An open session of `walt image shell`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LiveSession))]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Full name of the image that it changes.
    pub image: String,
    /// When it was opened, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub since: String,
    /// `starting`, `running`, `exited` (waiting for an answer to the save prompt) or `stopped`.
    pub state: String,
}

/// Something that a user asked for and that is not done yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LiveOperation))]
pub struct Operation {
    /// Its number in this run of the server.
    pub id: String,
    /// Who asked for it.
    pub user: String,
    /// The command, such as `node boot vn1 pc-x86-64`.
    pub what: String,
    /// Since when, in seconds since the epoch.
    pub since: f64,
    /// What it is doing, if it said so.
    pub label: Option<String>,
    /// Bytes so far, if it counts them.
    pub done: Option<u64>,
    /// Bytes in all, if that is known.
    pub total: Option<u64>,
}

/// The lease of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LiveLease))]
pub struct Lease {
    /// MAC address of the node.
    pub mac: String,
    /// Its name.
    pub node: String,
    /// Who has it.
    pub user: String,
    /// When it ends, or ended, in RFC 3339 format; null if it has no end other than that of its holder.
    pub ends: Option<String>,
    /// Whether it is over: others may take the node without being asked.
    pub expired: bool,
    /// Whether a client keeps it by heartbeat.
    pub held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_programs_see_them() {
        let fields = Map::from_iter([("booted".to_owned(), Value::Bool(true))]);
        let message = Live::Changed { seq: 7, time: 1.5, kind: Kind::Node, id: "m".into(), fields };
        let text =
            r#"{"event":"changed","seq":7,"time":1.5,"kind":"node","id":"m","fields":{"booted":true}}"#;
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(serde_json::from_str::<Live>(text).unwrap(), message);
        // Kinds that were not asked for may be absent, and fields that are not known are ignored.
        let text = r#"{"event":"snapshot","server":"s","seq":3,"time":1.0,"nodes":[],"later":1}"#;
        let Live::Snapshot(snapshot) = serde_json::from_str(text).unwrap() else { panic!() };
        assert_eq!(*snapshot, Snapshot { server: "s".into(), seq: 3, time: 1.0, ..Snapshot::default() });
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!((HEARTBEAT_SECONDS, UPDATES_PER_SECOND), (15, 5), "documented");
    }
}
