//! Sets of nodes, for the command that goes through one by itself (`node run`).

use crate::error::Failure;
use walt_api::Node;

/// Owner of free nodes.
const FREE: &str = "waltplatform";
/// Keywords of sets of nodes.
const KEYWORDS: [&str; 3] = ["my-nodes", "free-nodes", "all-nodes"];

/// Whether the server must be asked which nodes are meant.
pub fn is_set(text: &str) -> bool {
    text.contains(',') || KEYWORDS.contains(&text)
}

/// Names of the nodes in a set, each once, in order.
///
/// # Errors
/// A name that no node has, or a set without members.
pub fn resolve(text: &str, nodes: &[Node], user: &str) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for item in text.split(',') {
        let belongs = |node: &&Node| match item {
            "my-nodes" => node.owner == user,
            "free-nodes" => node.owner == FREE,
            "all-nodes" => true,
            name => node.name == name,
        };
        let found: Vec<String> = nodes.iter().filter(belongs).map(|n| n.name.clone()).collect();
        if found.is_empty() && !KEYWORDS.contains(&item) {
            return Err(Failure::with_hint(
                format!("No device with name '{item}' found."),
                "(tip: walt node show --all)",
            ));
        }
        names.extend(found);
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(Failure::with_hint("No matching devices found!", "(tip: walt help show node-ownership)"));
    }
    Ok(names)
}

#[cfg(test)]
pub mod samples {
    //! Nodes for tests.

    use std::collections::BTreeMap;
    use walt_api::{Node, NodeState};

    /// A booted virtual node with this image.
    pub fn node(name: &str, image: &str) -> Node {
        Node {
            name: name.into(),
            model: "pc-x86-64".into(),
            is_virtual: true,
            image: image.into(),
            booted: true,
            ip: "192.168.183.2".into(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            config: BTreeMap::from([("netsetup".into(), "LAN".into())]),
            owner: image.split('/').next().unwrap().into(),
            state: NodeState::Booted,
            booted_text: "yes".into(),
            boot_seconds: Some(3.5),
            last_console_line: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::node;
    use super::*;

    #[test]
    fn sets() {
        let nodes =
            [node("b", "ann/x:latest"), node("a", "waltplatform/x:latest"), node("c", "bob/x:latest")];
        let names = |set: &str| resolve(set, &nodes, "ann").map_err(|f| f.text());
        assert_eq!(names("all-nodes").unwrap(), ["a", "b", "c"]);
        assert_eq!(names("my-nodes").unwrap(), ["b"]);
        assert_eq!(names("c,my-nodes,b").unwrap(), ["b", "c"]);
        assert_eq!(names("free-nodes").unwrap(), ["a"]);
        assert!(names("x,b").unwrap_err().contains("No device with name 'x' found."));
        assert!(resolve("my-nodes", &nodes, "eve").is_err());
        assert!(is_set("a,b") && is_set("my-nodes") && !is_set("a"));
    }
}
