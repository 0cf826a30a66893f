//! The HTTP API between `walt` and `walt-server`: routes, requests, answers, stream events, errors.
//!
//! HTTP/1.1 with JSON over `<run-dir>/walt.sock`. The user is the account of the peer
//! (`SO_PEERCRED`, unix(7)); root may act for another user with the header [`HEADER_USER`].
//!
//! * **Lists** are plain `GET`s with one JSON answer ([`NodeList`], [`DeviceList`], [`ImageList`]).
//! * **Actions** are `POST`s. The answer to a refused action is a 4xx status and an [`ApiError`]. If an action would disturb
//!   others, the answer is `409` and an [`ApiError`] with a [`Confirmation`]: the client asks its user and repeats the request
//!   with the token in [`HEADER_CONFIRM`]. If the state has changed since, the token is refused by another 409. If the action
//!   runs, the answer is `200` and a stream of [`Event`]s, one JSON object per line, that ends with [`Event::Done`] or
//!   [`Event::Error`]. Closing the connection cancels the action.
//! * **Terminals** (shells, `run`, `console`, `ping`, `expose`) are WebSockets: see [`term`].
//! * **State as it changes** is a stream without an end: see [`live`].
//! * **Transfers** of files (`cp`) are WebSockets: see [`transfer`].
//! * **Resources** (`POST /api/v1/nodes/{name}/boot`, …) do what actions do, for programs that are not `walt`: see
//!   [`resource`]. Port 80 has a read-only part with types of its own: see [`web`].
//!
//! Both sides of the versions: the server refuses fields that it does not know in the bodies of requests, clients ignore
//! those that they do not know in answers. Below `/api/v1` there are only additions; [`FEATURES`] says which a server has.
//! With the feature `openapi`, [`openapi`] describes all this for generators of clients.

pub mod action;
pub mod boots;
pub mod build;
pub mod device;
pub mod event;
pub mod link;
pub mod live;
pub mod logs;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod registries;
pub mod resource;
pub mod status;
pub mod store;
pub mod term;
pub mod transfer;
pub mod versions;
pub mod web;
pub mod words;

pub use action::{
    AdminAction, DeviceAction, HOLD_SILENCE, HOLD_SILENCE_MAX, Hold, ImageAction, NodeAction,
    QUEUE_RETURN_SECONDS, SessionAction,
};
pub use device::{Device, DeviceList, TrashedNode};
pub use event::{ApiError, Confirmation, ErrorCode, Event};
pub use link::{LinkCounters, LinkState};
pub use registries::{FoundImage, RegistryCredentials, RegistryInfo, RegistryList, RegistryToken};
pub use status::{
    Cable, DhcpServer, Disk, ForeignRule, ImageCounts, LogEntry, MissingPort, NodeCounts, SessionCounts,
    Status, UserNamespaces,
};
pub use store::{StoreFault, StoreFinding, StoreLook};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use walt_types::{Mac, UserName};

/// Version of this API; client and server must have the same.
pub const PROTOCOL: u32 = 1;
/// Header that names the user root acts for (set from `WALT_USERNAME`).
pub const HEADER_USER: &str = "walt-user";
/// Header with the token of a [`Confirmation`], when a request is repeated.
pub const HEADER_CONFIRM: &str = "walt-confirm";
/// What this server can do, in words for programs: [`Info::features`]. A word is never removed, nor does its meaning change.
///
/// | word | |
/// |---|---|
/// | `resources` | nodes and images as resources ([`resource`]) |
/// | `confirm-any` | the query `confirm=any` there |
/// | `events` | [`route::EVENTS`] |
/// | `logs` | log lines: [`route::LOG_LINES`], and [`route::LOGS`] on port 80 |
/// | `problem-json` | errors there are [`resource::Problem`]s, and `Prefer: errors=…` counts |
/// | `metrics` | [`route::METRICS`], on both doors |
/// | `openapi` | [`route::OPENAPI`] |
/// | `web` | the read-only API and the help pages on port 80 ([`web`]) |
pub const FEATURES: &[&str] =
    &["confirm-any", "events", "logs", "metrics", "openapi", "problem-json", "resources", "web"];
/// Largest request body that the server reads, in bytes; scripts on standard input have their own limit.
pub const MAX_BODY: usize = 1 << 20;

/// The routes. `{…}` is replaced by a name; names of images may contain `:`, written as it is.
pub mod route {
    /// `GET`: [`super::Info`].
    pub const INFO: &str = "/api/v1/info";
    /// `GET`: [`super::NodeList`]; on port 80, [`super::web::WebNodeList`]. `POST` a [`super::resource::CreateNode`].
    pub const NODES: &str = "/api/v1/nodes";
    /// `GET`: [`super::Node`]. `DELETE`: removes a virtual node. In the routes of a node, `{name}` may be a set of nodes,
    /// such as `vn1,vn2`, for all `POST`s but [`NODE_RENAME`].
    pub const NODE: &str = "/api/v1/nodes/{name}";
    /// `GET`: [`super::boots::BootList`].
    pub const BOOTS_OF_NODE: &str = "/api/v1/nodes/{name}/boots";
    /// `GET`: [`super::resource::NodeConfig`]. `PATCH` an object of settings.
    pub const NODE_CONFIG: &str = "/api/v1/nodes/{name}/config";
    /// `POST` a [`super::resource::BootNode`].
    pub const NODE_BOOT: &str = "/api/v1/nodes/{name}/boot";
    /// `POST` a [`super::resource::RebootNode`].
    pub const NODE_REBOOT: &str = "/api/v1/nodes/{name}/reboot";
    /// `POST` a [`super::resource::WaitNode`].
    pub const NODE_WAIT: &str = "/api/v1/nodes/{name}/wait";
    /// `POST` a [`super::resource::AcquireNode`].
    pub const NODE_ACQUIRE: &str = "/api/v1/nodes/{name}/acquire";
    /// `POST` a [`super::resource::Nothing`].
    pub const NODE_RELEASE: &str = "/api/v1/nodes/{name}/release";
    /// `POST` a [`super::resource::NewName`].
    pub const NODE_RENAME: &str = "/api/v1/nodes/{name}/rename";
    /// `GET`: a list of [`super::LinkState`]. The query `nodes=SET` names nodes; without it, all of them.
    pub const LINKS: &str = "/api/v1/links";
    /// `GET`, query `node=NAME`: [`super::boots::BootList`].
    pub const NODE_BOOTS: &str = "/api/v1/nodes/boots";
    /// `GET`, or WebSocket: the state, and its changes as they happen ([`super::live`]).
    pub const EVENTS: &str = "/api/v1/events";
    /// `GET`: figures for Prometheus, in its text format.
    pub const METRICS: &str = "/metrics";
    /// `GET`: [`super::DeviceList`].
    pub const DEVICES: &str = "/api/v1/devices";
    /// `GET`: [`super::ImageList`]; on port 80, [`super::web::WebImageList`]. The query `mine=1` makes a new user's first
    /// images if needed. `POST` a [`super::resource::CloneImage`].
    pub const IMAGES: &str = "/api/v1/images";
    /// `GET`: [`super::Image`]. `DELETE`: removes the name. In the routes of an image, `{image}` is `<name>[:<tag>]`, and
    /// all but `GET` are for images of the caller.
    pub const IMAGE: &str = "/api/v1/images/{user}/{image}";
    /// `GET`: [`super::versions::ImageHistory`].
    pub const HISTORY_OF_IMAGE: &str = "/api/v1/images/{user}/{image}/history";
    /// `POST` a [`super::resource::NewName`].
    pub const IMAGE_RENAME: &str = "/api/v1/images/{user}/{image}/rename";
    /// `POST` a [`super::resource::NewName`].
    pub const IMAGE_DUPLICATE: &str = "/api/v1/images/{user}/{image}/duplicate";
    /// `POST` a [`super::resource::RollBackImage`].
    pub const IMAGE_ROLLBACK: &str = "/api/v1/images/{user}/{image}/rollback";
    /// `POST` a [`super::resource::Nothing`].
    pub const IMAGE_PRUNE: &str = "/api/v1/images/{user}/{image}/prune";
    /// `POST` a [`super::resource::Nothing`].
    pub const IMAGE_SQUASH: &str = "/api/v1/images/{user}/{image}/squash";
    /// `POST` a [`super::resource::PublishImage`].
    pub const IMAGE_PUBLISH: &str = "/api/v1/images/{user}/{image}/publish";
    /// `GET`: the description of this API; on port 80, of its read-only part.
    pub const OPENAPI: &str = "/api/v1/openapi.json";
    /// `GET` on port 80: [`super::web::WebLogList`].
    pub const LOGS: &str = "/api/v1/logs";
    /// `GET`: [`super::RegistryList`].
    pub const REGISTRIES: &str = "/api/v1/registries";
    /// `POST`: [`super::RegistryToken`], for the server's own registry, which answers below `/v2/`.
    pub const REGISTRY_TOKEN: &str = "/api/v1/registry-token";
    /// `POST` a [`super::logs::LogQuery`]: lines of text, or JSON objects ([`super::logs::LogLine`]), one on each line.
    pub const LOG_LINES: &str = "/api/v1/logs/lines";
    /// `POST` a [`super::logs::LogQuery`]: [`super::logs::LogCount`].
    pub const LOG_COUNT: &str = "/api/v1/logs/count";
    /// `GET`: the caller's checkpoints, a list of [`super::logs::Checkpoint`].
    pub const CHECKPOINTS: &str = "/api/v1/logs/checkpoints";
    /// `POST` a [`super::logs::LogAction`]: a stream of events.
    pub const LOG_ACTIONS: &str = "/api/v1/actions/log";
    /// `POST` an [`super::NodeAction`]: a stream of events.
    pub const NODE_ACTIONS: &str = "/api/v1/actions/node";
    /// `POST` a [`super::DeviceAction`]: a stream of events.
    pub const DEVICE_ACTIONS: &str = "/api/v1/actions/device";
    /// `POST` an [`super::ImageAction`]: a stream of events.
    pub const IMAGE_ACTIONS: &str = "/api/v1/actions/image";
    /// `GET`, query `image=NAME`: [`super::versions::ImageHistory`] of an image of the caller.
    pub const IMAGE_HISTORY: &str = "/api/v1/images/history";
    /// `GET`, query `from=IMAGE&to=IMAGE`: [`super::versions::ImageDiff`]. An image is the name of one of
    /// the caller's images or a full name; a suffix `@VERSION` selects a version of its history.
    pub const IMAGE_DIFF: &str = "/api/v1/images/diff";
    /// `POST` a [`super::SessionAction`]: a stream of events.
    pub const SESSION_ACTIONS: &str = "/api/v1/actions/session";
    /// `POST` an [`super::AdminAction`] (root only): a stream of events.
    pub const ADMIN_ACTIONS: &str = "/api/v1/actions/admin";
    /// `GET`: [`super::StoreLook`] (root only).
    pub const STORE: &str = "/api/v1/store";
    /// `GET`: [`super::logs::LogStoreReport`] (root only); it reads all log lines.
    pub const LOG_STORE: &str = "/api/v1/logs/store";
    /// `GET`: [`super::Status`] (root only: messages of errors name users and files).
    pub const STATUS: &str = "/api/v1/status";
    /// WebSocket: `walt image shell`; the first message is [`super::term::OpenImageShell`].
    pub const IMAGE_SHELL: &str = "/api/v1/terminals/image-shell";
    /// WebSocket: files to or from the server; the first message is [`super::transfer::Open`].
    pub const TRANSFER: &str = "/api/v1/transfer";
    /// WebSocket: `walt image build`; the first message is [`super::build::OpenImageBuild`].
    pub const IMAGE_BUILD: &str = "/api/v1/terminals/image-build";
    /// WebSocket: a program on or about a node; the first message is [`super::term::OpenNodeTerminal`].
    pub const NODE_TERMINAL: &str = "/api/v1/terminals/node";
    /// WebSocket: a command on a set of nodes; the first message is [`super::term::OpenNodeRun`].
    pub const NODE_RUN: &str = "/api/v1/terminals/node-run";
}

/// The server, and the caller's name there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Info {
    /// Version of `walt-server`.
    pub version: String,
    /// [`PROTOCOL`] of the server.
    pub protocol: u32,
    /// The caller.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: UserName,
    /// [`FEATURES`] of the server.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Answer of [`route::NODES`]; field names are those of the existing web API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeList {
    /// Number of items in `nodes`.
    pub num_nodes: usize,
    /// All registered nodes, sorted by name.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// Hardware model.
    pub model: String,
    /// Whether the server runs it as a virtual machine.
    #[serde(rename = "virtual")]
    pub is_virtual: bool,
    /// Full reference of its image.
    pub image: String,
    /// Whether it has reported that it has booted.
    pub booted: bool,
    /// Permanent address.
    pub ip: String,
    /// Boot address, its identity.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mac: Mac,
    /// Settings by key, defaults included.
    pub config: BTreeMap<String, serde_json::Value>,
    /// Settings that a running node does not have in effect before it reboots.
    #[serde(default)]
    pub reboot_needed: Vec<String>,
    /// Owner, derived from the image; `waltplatform` if the node is free.
    pub owner: String,
    /// State in its life cycle.
    pub state: NodeState,
    /// Text of the column `booted`: `yes`, `NO`, `booting 12s`, `off`.
    pub booted_text: String,
    /// The mode of its present boot (`network`, `hybrid-volatile`, `hybrid-persistent`), once it has reported it.
    #[serde(default)]
    pub boot_mode: Option<String>,
    /// How much of its image it has copied to its disk, in percent, while it does.
    #[serde(default)]
    pub copied_percent: Option<u8>,
    /// When the present boot was started, in seconds since the epoch; null if nothing runs.
    #[serde(default)]
    pub boot_started: Option<f64>,
    /// Seconds from power-on to the end of the last boot, if it is booted.
    pub boot_seconds: Option<f64>,
    /// Why the server has given up on its boot: it needs a look. Null otherwise.
    #[serde(default)]
    pub needs_look: Option<String>,
    /// Last console line of a node whose boot failed.
    pub last_console_line: Option<String>,
    /// The model that it claims to be, if that is another one than `model`: its board was swapped.
    #[serde(default)]
    pub claimed_model: Option<String>,
    /// Until when its owner wants it.
    #[serde(default)]
    pub lease: Option<NodeLease>,
    /// Who waits for it in the queue, in order.
    #[serde(default)]
    pub waiting: Vec<NodeWaiter>,
    /// How it was last taken from its owner by another user.
    #[serde(default)]
    pub taken: Option<NodeTaken>,
}

/// The lease of a node, which its owner has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeLease {
    /// When it ends, or ended, in RFC 3339 format; absent if it has no end other than that of its holder.
    #[serde(default)]
    pub ends: Option<String>,
    /// The same in seconds since the epoch.
    #[serde(default)]
    pub ends_at: Option<i64>,
    /// Seconds until then; 0 if it is over.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Whether it is over: others may take the node without being asked.
    pub expired: bool,
    /// Whether a client keeps it by heartbeat ([`Hold`]).
    pub held: bool,
}

/// Somebody who waits for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeWaiter {
    /// Who.
    pub user: String,
    /// Since when, in RFC 3339 format.
    pub since: String,
}

/// How a node was taken from its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeTaken {
    /// The owner before.
    pub from: String,
    /// Who took it.
    pub by: String,
    /// When, in RFC 3339 format.
    pub at: String,
}

/// State of a node in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Nothing runs (a virtual node without its qemu).
    Off,
    /// It was started, and has not reported that it has booted.
    Booting,
    /// It reported that it has booted, and its link is alive.
    Booted,
    /// It did not report in time, or its link is lost.
    Down,
}

/// Answer of [`route::IMAGES`]; field names are those of the existing web API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageList {
    /// Number of items in `images`.
    pub num_images: usize,
    /// All images of all users, sorted by full name.
    pub images: Vec<Image>,
    /// Notes for the user, such as the default images that were cloned.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Image {
    /// `<user>/<name>:<tag>`.
    pub fullname: String,
    /// The owner.
    pub user: String,
    /// Image id, `sha256:…`.
    pub id: String,
    /// Whether a node is associated with this reference.
    pub in_use: bool,
    /// Creation time, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub created: String,
    /// Models that it supports.
    pub compatibility: Vec<String>,
    /// The open shell session of this image, if any.
    pub session: Option<SessionInfo>,
}

/// An open session of `walt image shell`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// When it was opened, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub since: String,
    /// `running`, `exited` (waiting for an answer to the save prompt) or `stopped`.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words are for programs that were written for other versions: `web-api` names each of them.
    #[test]
    fn features_are_documented_and_stay() {
        let page = include_str!("../../../docs/help/web-api.md");
        assert!(FEATURES.is_sorted(), "{FEATURES:?}");
        for word in FEATURES {
            assert!(page.contains(&format!("`{word}`")), "{word} is not in web-api");
        }
        for word in
            ["confirm-any", "events", "logs", "metrics", "openapi", "problem-json", "resources", "web"]
        {
            assert!(FEATURES.contains(&word), "{word} was promised");
        }
    }

    /// Both sides must agree on them: an older client cuts what it sends at these sizes.
    #[test]
    fn sizes_are_part_of_the_protocol() {
        assert_eq!((MAX_BODY, transfer::MAX_FRAME, term::MAX_MESSAGE), (1_048_576, 262_144, 65_536));
        assert_eq!(
            (term::MAX_SCRIPT, build::MAX_DOCKERFILE, build::MAX_SECRET),
            (67_108_864, 1_048_576, 512_000)
        );
        assert_eq!(term::INPUT_WINDOW, 1_048_576);
    }
}
