//! Sets of nodes, for the command that goes through one by itself (`node run`).

use crate::context::Context;
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
