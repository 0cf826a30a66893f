//! What is asked of the server about nodes, images, sessions and itself.

use crate::RegistryCredentials;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
