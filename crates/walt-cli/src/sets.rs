//! Sets of nodes, for the command that goes through one by itself (`node run`).

use crate::commands::Context;
use crate::error::Failure;
use walt_types::node_set::{self, SetError};

/// Names of the nodes in a set, each once, in order. The server is asked only if the text may mean several nodes.
///
/// # Errors
/// A name that no node has, or a set without members.
pub async fn resolve(context: &mut Context, text: &str) -> Result<Vec<String>, Failure> {
    if !node_set::is_set(text) {
        return Ok(vec![text.to_owned()]);
    }
    let user = context.ui.watch(context.client.info()).await?.user;
    let nodes = context.ui.watch(context.client.nodes()).await?.nodes;
    let members = node_set::resolve(text, &nodes, &user)?;
    Ok(members.into_iter().map(|i| nodes[i].name.clone()).collect())
}

impl From<SetError> for Failure {
    fn from(error: SetError) -> Self {
        Self::Failed { message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
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
