//! Sets of nodes, for the command that resolves one on this side (`node run`).

use crate::{context::Context, error::Failure};
use walt_types::node_set::{self, SetError};

/// Names of the nodes in a set, sorted, without duplicates. Asks the server only if the text may name several nodes.
///
/// # Errors
/// An unknown name, or an empty set.
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
