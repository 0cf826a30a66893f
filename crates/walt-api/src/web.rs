//! The read-only web API of port 80: nodes, images and logs with exactly the fields of the existing web API.
//!
//! Programs of users compare these objects with what they expect, so nothing is added to them: what the socket's
//! [`Node`] and [`Image`] have besides stays there.

use crate::{Image, ImageList, Node, NodeList};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use walt_types::Mac;

/// Answer of [`route::NODES`](crate::route::NODES) on port 80.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebNodeList {
    /// Number of items in `nodes`.
    pub num_nodes: usize,
    /// The nodes, sorted by name.
    pub nodes: Vec<WebNode>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebNode {
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
    /// Settings by key, defaults included: numbers, booleans, strings, or null for `none`.
    pub config: BTreeMap<String, serde_json::Value>,
}

impl From<Node> for WebNode {
    fn from(node: Node) -> Self {
        let Node { name, model, is_virtual, image, booted, ip, mac, config, .. } = node;
        Self { name, model, is_virtual, image, booted, ip, mac, config }
    }
}

impl WebNodeList {
    /// Those nodes of a list that a filter takes.
    pub fn of(list: NodeList, takes: impl Fn(&WebNode) -> bool) -> Self {
        let nodes: Vec<WebNode> = list.nodes.into_iter().map(WebNode::from).filter(takes).collect();
        Self { num_nodes: nodes.len(), nodes }
    }
}

/// Answer of [`route::IMAGES`](crate::route::IMAGES) on port 80.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebImageList {
    /// Number of items in `images`.
    pub num_images: usize,
    /// The images of all users, sorted by full name.
    pub images: Vec<WebImage>,
}

/// One reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebImage {
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
}

impl From<Image> for WebImage {
    fn from(image: Image) -> Self {
        let Image { fullname, user, id, in_use, created, compatibility, .. } = image;
        Self { fullname, user, id, in_use, created, compatibility }
    }
}

impl WebImageList {
    /// Those images of a list that a filter takes.
    pub fn of(list: ImageList, takes: impl Fn(&WebImage) -> bool) -> Self {
        let images: Vec<WebImage> = list.images.into_iter().map(WebImage::from).filter(takes).collect();
        Self { num_images: images.len(), images }
    }
}

/// Answer of [`route::LOGS`](crate::route::LOGS) on port 80.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebLogList {
    /// Number of items in `logs`.
    pub num_logs: usize,
    /// The lines, by time.
    pub logs: Vec<WebLog>,
    /// Where the next page begins, if there are more lines than one answer has: the parameter `page` of the next request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page: Option<String>,
}

/// One line of a log. As NDJSON, each is a line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebLog {
    /// When it was logged, since 1970 in the unit of the request.
    pub timestamp: f64,
    /// The line; bytes that are not UTF-8 as `\xNN`.
    pub line: String,
    /// The device that logged it.
    pub issuer: String,
    /// Its stream.
    pub stream: String,
}

/// The body of an error for clients that send `Prefer: errors=json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebError {
    /// One sentence.
    pub error: String,
    /// The HTTP status.
    pub status_code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_node_has_eight_keys() {
        let node: Node = serde_json::from_value(json!({
            "name": "vn1", "model": "pc-x86-64", "virtual": true, "image": "ann/x:latest", "booted": false,
            "ip": "10.0.0.2", "mac": "52:54:00:00:00:01", "config": {"netsetup": "LAN", "disks": null},
            "owner": "ann", "state": "off", "booted_text": "off", "boot_seconds": null, "last_console_line": null,
            "lease": {"expired": false, "held": false},
        }))
        .unwrap();
        let list = NodeList { num_nodes: 1, nodes: vec![node] };
        let all = serde_json::to_value(WebNodeList::of(list.clone(), |_| true)).unwrap();
        assert_eq!(keys(&all), ["nodes", "num_nodes"]);
        assert_eq!(all["num_nodes"], 1);
        let one = &all["nodes"][0];
        assert_eq!(keys(one), ["booted", "config", "image", "ip", "mac", "model", "name", "virtual"]);
        assert_eq!((&one["config"]["netsetup"], &one["config"]["disks"]), (&json!("LAN"), &Value::Null));
        let none = WebNodeList::of(list, |node| node.name != "vn1");
        assert_eq!((none.num_nodes, none.nodes.len()), (0, 0));
    }

    #[test]
    fn an_image_has_six_keys() {
        let image: Image = serde_json::from_value(json!({
            "fullname": "ann/x:latest", "user": "ann", "id": "sha256:00", "in_use": true,
            "created": "2026-01-02 03:04:05", "compatibility": ["pc-x86-64"], "session": null,
        }))
        .unwrap();
        let list = ImageList { num_images: 1, images: vec![image], notes: vec!["a note".into()] };
        let all = serde_json::to_value(WebImageList::of(list.clone(), |_| true)).unwrap();
        assert_eq!(keys(&all), ["images", "num_images"]);
        assert_eq!(all["num_images"], 1);
        let wanted = ["compatibility", "created", "fullname", "id", "in_use", "user"];
        assert_eq!(keys(&all["images"][0]), wanted);
        assert_eq!(WebImageList::of(list, |_| false).num_images, 0);
    }
}
