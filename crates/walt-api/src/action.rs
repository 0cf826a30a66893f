//! Actions on nodes, on devices, on images, on sessions, and on the server itself.

use crate::RegistryCredentials;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr};
use walt_types::{ClientTag, LeaseChange, Mac, Span};

/// Actions on nodes. `nodes` is a set: names and keywords separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeAction {
    /// Creates a virtual node and starts it.
    Create {
        /// Name of the new node.
        name: String,
        /// Full name of its image, or name of an image of the caller; by default the caller's clone of the default image.
        #[serde(default)]
        image: Option<String>,
        /// Create it even if all nodes together need more memory than the server has.
        #[serde(default)]
        force: bool,
    },
    /// Stops and removes a virtual node.
    Remove {
        /// The node.
        name: String,
    },
    /// Removes a physical node; what belongs to it goes to the trash.
    Forget {
        /// The node.
        name: String,
    },
    /// Gives a node another name.
    Rename {
        /// Current name.
        name: String,
        /// New name.
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
        /// How long the caller wants them; by default without an end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        lease: Option<Span>,
        /// Keep them by heartbeat: see [`Hold`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
        /// If others have them, wait in the queue until all of them are available. The caller's place in it has this name:
        /// a client whose connection breaks because the server restarts gets its place back if it asks again with the same
        /// name within [`QUEUE_RETURN_SECONDS`]. A client that disconnects while the server runs leaves the queue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        queue: Option<ClientTag>,
    },
    /// Prints the leases of nodes and who waits for them, or changes the leases of nodes of the caller.
    Lease {
        /// Set of nodes.
        nodes: String,
        /// How their end changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        change: Option<LeaseChange>,
        /// Keep them by heartbeat: see [`Hold`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
    },
    /// Says that the holder is still there; the names of the nodes that it holds are results. Refused (412) if there are none.
    Beat {
        /// [`Hold::name`].
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        hold: ClientTag,
    },
    /// Ends the leases that the holder keeps, at once.
    EndHold {
        /// [`Hold::name`].
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        hold: ClientTag,
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
        /// Most seconds to wait; no limit if absent.
        #[serde(default)]
        timeout: Option<u64>,
    },
    /// Makes a node blink, so that it can be found; it stops when the action ends, however it does.
    Blink {
        /// One node.
        node: String,
        /// For so long.
        seconds: u64,
    },
    /// Saves the changes that a node made in RAM, on top of the image that it booted, as an image.
    Save {
        /// One node.
        node: String,
        /// Image of the caller, new or overwritten.
        image: String,
        /// Only list what would be saved.
        #[serde(default)]
        dry_run: bool,
    },
    /// Changes the links between virtual nodes and one of their networks.
    Link {
        /// Set of nodes.
        nodes: String,
        /// The network.
        network: String,
        /// Parameters, `key=value` each, or one of the words `down`, `up` and `reset`.
        changes: Vec<String>,
        /// After so many seconds the links get their configured shapes back; if absent, this is configured.
        #[serde(default)]
        seconds: Option<u64>,
    },
    /// Reads (empty `settings`) or changes settings, `key=value` each.
    Config {
        /// Set of nodes.
        nodes: String,
        /// Settings to change.
        #[serde(default)]
        settings: Vec<String>,
        /// The settings that are read are printed as JSON.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        json: bool,
    },
}

/// A client that keeps the leases of nodes by heartbeat: it repeats [`NodeAction::Beat`] more often than `silence`, for
/// example every third of it, and ends with [`NodeAction::EndHold`]. If nothing is heard for longer, their leases end.
/// After a restart of the server, the time begins again. Any HTTP client can do this, a shell script too:
///
/// ```text
/// walt() { curl --fail-with-body -s --unix-socket /run/walt/walt.sock -d "$1" http://walt/api/v1/actions/node; }
/// walt '{"action": "lease", "nodes": "vn1", "hold": {"name": "job-7"}}'
/// while sleep 20; do walt '{"action": "beat", "hold": "job-7"}' || break; done
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// What the client calls it. Two clients of one user that hold at the same time need two names.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: ClientTag,
    /// How long it may be silent; [`HOLD_SILENCE`] by default, at most [`HOLD_SILENCE_MAX`].
    #[serde(default = "default_silence")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub silence: Span,
}

/// How long a holder of nodes may be silent, unless it says something else.
pub const HOLD_SILENCE: Span = Span(60);
/// How long it may be silent at most.
pub const HOLD_SILENCE_MAX: Span = Span(600);
/// For how many seconds after its start the server keeps places in the queue for clients that were in it.
pub const QUEUE_RETURN_SECONDS: u64 = 15;

fn default_silence() -> Span {
    HOLD_SILENCE
}

/// Actions on devices of any type. `devices` is a set: names and keywords separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceAction {
    /// Gives a device another name.
    Rename {
        /// Current name.
        name: String,
        /// New name.
        new_name: String,
    },
    /// Removes a device from the record; what belongs to a physical node goes to the trash. An unknown name is a note.
    Forget {
        /// The device.
        name: String,
        /// Do not ask.
        #[serde(default)]
        force: bool,
    },
    /// Makes a forgotten physical node a node again, with its settings and `/persist`.
    Restore {
        /// Its name when it was forgotten.
        name: String,
    },
    /// Reads (empty `settings`) or changes settings, `key=value` each.
    Config {
        /// Set of devices.
        devices: String,
        /// Settings to change.
        #[serde(default)]
        settings: Vec<String>,
        /// The settings that are read are printed as JSON.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        json: bool,
    },
}

/// Actions on images of the caller, whose names (`name`) are `<name>[:<tag>]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ImageAction {
    /// Removes a reference.
    Remove {
        /// Image of the caller.
        name: String,
    },
    /// Renames a reference.
    Rename {
        /// Image of the caller.
        name: String,
        /// New name; must be free.
        new_name: String,
    },
    /// Adds a second reference to the same image.
    Duplicate {
        /// Image of the caller.
        name: String,
        /// Name of the copy; must be free.
        new_name: String,
    },
    /// Copies an image of another user, of the platform, of a registry or of a daemon to the caller's images.
    Clone {
        /// `<location>:<user>/<name>[:<tag>]`; the location is `walt`, `docker`, or the label of a registry.
        link: String,
        /// Name of the copy; by default the remote one.
        #[serde(default)]
        name: Option<String>,
        /// Overwrite an image of the caller that has that name.
        #[serde(default)]
        force: bool,
        /// For the registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<RegistryCredentials>,
    },
    /// Points a name to an earlier version again, as a new version of its history. Nodes that use it reboot.
    Rollback {
        /// Image of the caller.
        name: String,
        /// A version of [`versions::ImageHistory`](crate::versions::ImageHistory); by default the newest one that is another image.
        #[serde(default)]
        version: Option<u32>,
    },
    /// Deletes all versions of names but the current ones.
    Prune {
        /// Image of the caller; by default all of them.
        #[serde(default)]
        name: Option<String>,
    },
    /// Squashes all layers into one. Nodes that use the image reboot.
    Squash {
        /// Image of the caller.
        name: String,
    },
    /// Takes over all images of another user. Without `sure`, only reports what it would do.
    FixOwner {
        /// The current owner.
        user: String,
        /// Do it.
        #[serde(default)]
        sure: bool,
    },
    /// Searches for images on this server, in registries and in a daemon; each is an [`Event::Found`](crate::Event::Found).
    Search {
        /// Part of the link; all images if absent.
        #[serde(default)]
        keyword: Option<String>,
        /// The caller's credentials, by label of the registry.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        credentials: BTreeMap<String, RegistryCredentials>,
    },
    /// Publishes an image of the caller to a registry.
    Publish {
        /// Image of the caller.
        name: String,
        /// Label of the registry; not needed if there is only one.
        #[serde(default)]
        registry: Option<String>,
        /// For the registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<RegistryCredentials>,
    },
    /// Checks credentials.
    RegistryLogin {
        /// Label of the registry.
        registry: String,
        /// The credentials to check.
        credentials: RegistryCredentials,
    },
    /// Rewrites the metadata by which searches find the images of a docker hub account.
    UpdateHubMeta {
        /// Of the account `waltplatform` instead of the one of the credentials.
        #[serde(default)]
        platform: bool,
        /// For the hub.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<RegistryCredentials>,
    },
    /// Updates the default images, and reboots the nodes that use them.
    UpdateDefaultImages {
        /// The caller's credentials, by label of the registry.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        credentials: BTreeMap<String, RegistryCredentials>,
    },
}

/// Actions on the session of an image shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SessionAction {
    /// Commits the changes as an image. Asks (409) before it overwrites one, except with `yes`.
    Save {
        /// The session's id.
        session: String,
        /// Name of the result; by default the image of the session.
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
    /// Ends the open session of an image of the caller and drops its changes.
    DiscardImage {
        /// Image of the caller.
        image: String,
    },
}

/// Actions of root on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminAction {
    /// Imports a root filesystem, made by a recipe, as `waltplatform/<name>:latest`.
    ImportDefaultImage {
        /// Image name.
        name: String,
        /// Directory on the server that holds `rootfs.tar` and `config.json`.
        dir: String,
    },
    /// Registers a device as if it had just got this address by DHCP.
    DhcpCommit {
        /// Vendor class (option 60).
        vendor_class: String,
        /// User class (option 77).
        user_class: String,
        /// The address.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        ip: Ipv4Addr,
        /// The device.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        mac: Mac,
        /// Host name (option 12); empty if it has none.
        host_name: String,
        /// Make `host_name` the name of the device as it is.
        #[serde(default)]
        force_name: bool,
    },
    /// Stops nodes and sessions, removes bridge and rules, and ends the server.
    Down,
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
        // As clients wrote it before there were leases.
        let action: NodeAction = serde_json::from_str(r#"{"action":"acquire","nodes":"vn1"}"#).unwrap();
        assert_eq!(action, NodeAction::Acquire { nodes: "vn1".into(), lease: None, hold: None, queue: None });
        let action = r#"{"action":"lease","nodes":"vn1","change":"+1h","hold":{"name":"job-7"}}"#;
        let NodeAction::Lease { change, hold, .. } = serde_json::from_str(action).unwrap() else { panic!() };
        assert_eq!(change, Some(LeaseChange::Later(Span(3600))));
        assert_eq!(hold, Some(Hold { name: "job-7".parse().unwrap(), silence: Span(60) }));
    }
}
