//! The HTTP API between `walt` and `walt-server`: routes, requests, answers, stream events, errors.
//!
//! HTTP/1.1 with JSON over `<run-dir>/walt.sock`. The user is the account of the peer
//! (`SO_PEERCRED`, unix(7)); root may act for another by the header [`HEADER_USER`].
//!
//! * **Lists** are plain `GET`s with one JSON answer ([`NodeList`], [`ImageList`]).
//! * **Actions** are `POST`s. An action that is refused answers with a 4xx status and an [`ApiError`];
//!   one that would disturb something answers `409` with an [`ApiError`] that carries a
//!   [`Confirmation`]: the client asks its user and repeats the request with the token in
//!   [`HEADER_CONFIRM`]. The token is refused once the state has changed (a new 409 comes).
//!   An action that runs answers `200` with a stream of [`Event`]s, one JSON object per line, that
//!   ends with [`Event::Done`] or [`Event::Error`]. Closing the connection cancels it.
//! * **Terminals** (both shells, `run`, `console`, `ping`) are WebSockets: see [`term`].
//! * **Transfers** of files (`cp`) are WebSockets: see [`transfer`].

pub mod build;
pub mod registries;
pub mod term;
pub mod transfer;
pub mod versions;

pub use registries::{FoundImage, RegistryCredentials, RegistryInfo, RegistryList, RegistryToken};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use walt_types::{DiffId, ImageId, Mac, UserName, ViewId};

/// Version of this API; a client and a server that differ in it do not talk.
pub const PROTOCOL: u32 = 1;
/// Names the user root acts for (set from `WALT_USERNAME`).
pub const HEADER_USER: &str = "walt-user";
/// Carries the token of a [`Confirmation`] when a request is repeated.
pub const HEADER_CONFIRM: &str = "walt-confirm";
/// Largest request body a server reads, in bytes; scripts on standard input have their own limit.
pub const MAX_BODY: usize = 1 << 20;

/// The routes. `{…}` is replaced by a name; names of images may contain `:`, written as it is.
pub mod route {
    /// `GET`: [`super::Info`].
    pub const INFO: &str = "/api/v1/info";
    /// `GET`: [`super::NodeList`].
    pub const NODES: &str = "/api/v1/nodes";
    /// `GET`: [`super::ImageList`]. The query `mine=1` makes a new user's first images if needed.
    pub const IMAGES: &str = "/api/v1/images";
    /// `GET`: [`super::RegistryList`].
    pub const REGISTRIES: &str = "/api/v1/registries";
    /// `POST`: [`super::RegistryToken`], for the server's own registry, which answers below `/v2/`.
    pub const REGISTRY_TOKEN: &str = "/api/v1/registry-token";
    /// `POST` an [`super::NodeAction`]: a stream of events.
    pub const NODE_ACTIONS: &str = "/api/v1/actions/node";
    /// `POST` an [`super::ImageAction`]: a stream of events.
    pub const IMAGE_ACTIONS: &str = "/api/v1/actions/image";
    /// `GET`, query `image=NAME`: [`super::versions::ImageHistory`] of an image of the caller.
    pub const IMAGE_HISTORY: &str = "/api/v1/images/history";
    /// `GET`, query `from=IMAGE&to=IMAGE`: [`super::versions::ImageDiff`]. An image is a name of the caller's or a
    /// full name, and `@VERSION` behind it means a version of its history.
    pub const IMAGE_DIFF: &str = "/api/v1/images/diff";
    /// `POST` a [`super::SessionAction`]: a stream of events.
    pub const SESSION_ACTIONS: &str = "/api/v1/actions/session";
    /// `POST` an [`super::AdminAction`] (root only): a stream of events.
    pub const ADMIN_ACTIONS: &str = "/api/v1/actions/admin";
    /// `GET`: [`super::StoreLook`] (root only).
    pub const STORE: &str = "/api/v1/store";
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
}

/// Who answers, and as whom it sees the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the server program.
    pub version: String,
    /// [`PROTOCOL`] of the server.
    pub protocol: u32,
    /// The caller.
    pub user: UserName,
}

/// Answer of [`route::NODES`]; field names are those of the existing web API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// Number of items in `nodes`.
    pub num_nodes: usize,
    /// All registered nodes, sorted by name.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Whether it has reported the end of its boot.
    pub booted: bool,
    /// Permanent address.
    pub ip: String,
    /// Boot address, its identity.
    pub mac: Mac,
    /// Settings by key, defaults included.
    pub config: BTreeMap<String, serde_json::Value>,
    /// Owner derived from the image; `waltplatform` means the node is free.
    pub owner: String,
    /// Where it stands.
    pub state: NodeState,
    /// What the column `booted` shows: `yes`, `NO`, `booting 12s`, `off`.
    pub booted_text: String,
    /// Seconds from power-on to the end of the last boot, if it is booted.
    pub boot_seconds: Option<f64>,
    /// Last console line of a node whose boot failed.
    pub last_console_line: Option<String>,
}

/// Where a node stands in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Nothing runs (a virtual node without its qemu).
    Off,
    /// It was started and has not reported yet.
    Booting,
    /// It reported the end of its boot, and its link is alive.
    Booted,
    /// It did not report in time, or its link is lost.
    Down,
}

/// Answer of [`route::IMAGES`]; field names are those of the existing web API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageList {
    /// Number of items in `images`.
    pub num_images: usize,
    /// All images of all users, sorted by full name.
    pub images: Vec<Image>,
    /// Sentences for the user, such as the one that says which default images were cloned.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Models it is made for.
    pub compatibility: Vec<String>,
    /// The open shell session of this image, if any.
    pub session: Option<SessionInfo>,
}

/// An open session of `walt image shell`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// When it was opened, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub since: String,
    /// `running`, `exited` (waits for an answer to the save prompt) or `stopped`.
    pub state: String,
}

/// What may be done to nodes. `nodes` is a set: names and keywords separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeAction {
    /// Creates a virtual node and starts it.
    Create {
        /// Name of the new node.
        name: String,
        /// Full or own name of its image; the caller's clone of the default image if absent.
        #[serde(default)]
        image: Option<String>,
        /// Create it although the memory of all nodes exceeds what the server has.
        #[serde(default)]
        force: bool,
    },
    /// Stops and forgets a virtual node.
    Remove {
        /// The node.
        name: String,
    },
    /// Gives a node another name.
    Rename {
        /// Present name.
        name: String,
        /// Name to be.
        new_name: String,
    },
    /// Associates nodes with an image and reboots them.
    Boot {
        /// Set of nodes.
        nodes: String,
        /// An image of the caller, or `default`.
        image: String,
    },
    /// Takes ownership: boots the caller's clone of the default image.
    Acquire {
        /// Set of nodes.
        nodes: String,
    },
    /// Gives ownership back: boots the default image.
    Release {
        /// Set of nodes.
        nodes: String,
    },
    /// Reboots nodes.
    Reboot {
        /// Set of nodes.
        nodes: String,
        /// Power-cycle instead of asking the running system.
        #[serde(default)]
        hard: bool,
    },
    /// Waits until all nodes have booted and prints how long each boot took.
    Wait {
        /// Set of nodes.
        nodes: String,
        /// Seconds to wait at most; no limit if absent.
        #[serde(default)]
        timeout: Option<u64>,
    },
    /// Makes an image of what a node changed in its RAM, on top of the image that it booted.
    Save {
        /// One node.
        node: String,
        /// Own image, new or overwritten.
        image: String,
        /// Only list what would be saved.
        #[serde(default)]
        dry_run: bool,
    },
    /// Reads (empty `settings`) or changes settings, `key=value` each.
    Config {
        /// Set of nodes.
        nodes: String,
        /// Settings to change.
        #[serde(default)]
        settings: Vec<String>,
    },
}

/// What may be done to images of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ImageAction {
    /// Removes a reference.
    Remove {
        /// Own image.
        name: String,
    },
    /// Renames a reference.
    Rename {
        /// Own image.
        name: String,
        /// Name to be; must be free.
        new_name: String,
    },
    /// Adds a second reference to the same image.
    Duplicate {
        /// Own image.
        name: String,
        /// Name of the copy; must be free.
        new_name: String,
    },
    /// Makes an image of another user, of the platform, of a registry or of a daemon one's own.
    Clone {
        /// `<location>:<user>/<name>[:<tag>]`; the location is `walt`, `docker`, or the label of a registry.
        link: String,
        /// Own name; the remote one if absent.
        #[serde(default)]
        name: Option<String>,
        /// Overwrite an own image of that name.
        #[serde(default)]
        force: bool,
        /// For the registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<RegistryCredentials>,
    },
    /// Lets a name mean again what it meant before: a new version of its history. Nodes that use it reboot.
    Rollback {
        /// Own image.
        name: String,
        /// A version of [`versions::ImageHistory`]; the newest one that is another image if absent.
        #[serde(default)]
        version: Option<u32>,
    },
    /// Forgets all versions of names but the present ones.
    Prune {
        /// Own image; all own images if absent.
        #[serde(default)]
        name: Option<String>,
    },
    /// Makes one layer of all layers. Nodes that use the image reboot.
    Squash {
        /// Own image.
        name: String,
    },
    /// Takes over all images of another user. Without `sure`, only says what it would do.
    FixOwner {
        /// The present owner.
        user: String,
        /// Do it.
        #[serde(default)]
        sure: bool,
    },
    /// Looks for images on this server, at registries, and at a daemon: [`Event::Found`] each.
    Search {
        /// Part of the link; all images if absent.
        #[serde(default)]
        keyword: Option<String>,
        /// By label of registry, as far as the caller has any.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        credentials: BTreeMap<String, RegistryCredentials>,
    },
    /// Gives an own image to a registry.
    Publish {
        /// Own image.
        name: String,
        /// Label of the registry; the only one if absent.
        #[serde(default)]
        registry: Option<String>,
        /// For the registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<RegistryCredentials>,
    },
    /// Tries credentials.
    RegistryLogin {
        /// Label of the registry.
        registry: String,
        /// What is tried.
        credentials: RegistryCredentials,
    },
    /// Writes anew what a user of the docker hub says about his images there.
    UpdateHubMeta {
        /// The user `waltplatform` instead of the one whose credentials these are.
        #[serde(default)]
        platform: bool,
        /// For the hub.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<RegistryCredentials>,
    },
    /// Takes newer versions of the default images, and reboots the nodes that use them.
    UpdateDefaultImages {
        /// By label of registry, as far as the caller has any.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        credentials: BTreeMap<String, RegistryCredentials>,
    },
}

/// What may be done to an image shell's session once its shell has ended (or to drop it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SessionAction {
    /// Commits the changes as an image. Overwriting asks (409); with `yes`, it is done at once.
    Save {
        /// The session's id.
        session: String,
        /// Own name of the result; the image of the session if absent.
        #[serde(default)]
        name: Option<String>,
        /// Overwrite, and reboot the nodes that use the image, without asking.
        #[serde(default)]
        yes: bool,
    },
    /// Ends the session and drops its changes.
    Discard {
        /// The session's id.
        session: String,
    },
    /// Ends the open session of an own image and drops its changes.
    DiscardImage {
        /// Own image.
        image: String,
    },
}

/// What root may do on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminAction {
    /// Imports a root filesystem that a recipe made, as `waltplatform/<name>:latest`.
    ImportDefaultImage {
        /// Image name.
        name: String,
        /// Directory on the server that holds `rootfs.tar` and `config.json`.
        dir: String,
    },
    /// Stops nodes and sessions, removes bridge and rules, and ends the server.
    Down,
}

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

/// Answer of [`route::STORE`]: what the image store holds, seen while nobody changes it. The digests in it
/// are for a reader of the store's files, which `walt-server check-store` is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLook {
    /// Number of references to images.
    pub references: usize,
    /// Number of open sessions.
    pub sessions: usize,
    /// Images in use whose configuration is right.
    pub images: BTreeSet<ImageId>,
    /// Layers in use that are there.
    pub layers: BTreeSet<DiffId>,
    /// Views in use whose index file is there.
    pub views: BTreeSet<ViewId>,
    /// What is missing, or needed by nothing.
    pub findings: Vec<StoreFinding>,
}

/// Something in the image store that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreFinding {
    /// Kind and name: `image <hex>`, `layer <hex>`, `view <hex>`, `session <id>`, `reference <name>`, `node
    /// <name>`, or a path.
    pub object: String,
    /// What is wrong with it.
    pub fault: StoreFault,
    /// A sentence.
    pub message: String,
}

/// Ways in which an object of the store can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreFault {
    /// It is needed, and not there.
    Missing,
    /// It is there, and not what was written.
    Damaged,
    /// It is there, and nothing needs it.
    Orphan,
}

/// One line of an action's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A result: one line for standard output.
    Out {
        /// The line.
        text: String,
    },
    /// A note, tip or caution: one line for standard error.
    Note {
        /// The line.
        text: String,
    },
    /// What the server is busy with, for the busy indicator.
    Busy {
        /// Label without dots.
        label: String,
    },
    /// How much of what it is busy with is done.
    Progress {
        /// What that is, without dots.
        label: String,
        /// Bytes so far.
        done: u64,
        /// All bytes; 0 if not known.
        total: u64,
    },
    /// A result of [`ImageAction::Search`].
    Found {
        /// The image.
        image: FoundImage,
    },
    /// The action failed after it had begun. Part of it may be done; the message says what.
    Error {
        /// What failed.
        error: ApiError,
    },
    /// The action ended.
    Done {
        /// False if it ended without having done all that was asked (lines before it say what).
        ok: bool,
    },
}

/// A refusal or a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable word for programs.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Present with [`ErrorCode::Confirm`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    /// Finds the details in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error without hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, confirmation: None, request_id: None }
    }
    /// The same error with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What an operation would do to others, and the token that agrees to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Warnings to show, one sentence each.
    pub warnings: Vec<String>,
    /// Token for [`HEADER_CONFIRM`].
    pub token: String,
}

/// Kinds of errors; each maps to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request itself is wrong: 400.
    BadRequest,
    /// A registry wants other credentials than came with the request: 401.
    Credentials,
    /// The caller may not do this: 403.
    Forbidden,
    /// Something named does not exist: 404.
    NotFound,
    /// The state of things does not allow it: 412.
    Refused,
    /// It would disturb something: ask, then repeat with the token: 409.
    Confirm,
    /// The server failed: 500.
    Internal,
}

impl ErrorCode {
    /// HTTP status of an answer with this code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Credentials => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Confirm => 409,
            Self::Refused => 412,
            Self::Internal => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_tagged_and_strict() {
        let action: NodeAction =
            serde_json::from_str(r#"{"action":"boot","nodes":"vn1","image":"x"}"#).unwrap();
        assert_eq!(action, NodeAction::Boot { nodes: "vn1".into(), image: "x".into() });
        assert!(serde_json::from_str::<NodeAction>(r#"{"action":"boot","nodes":"vn1","imag":"x"}"#).is_err());
    }
}
