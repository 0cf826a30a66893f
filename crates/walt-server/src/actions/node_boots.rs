//! `walt node boots`: what is known of the last boots of a node.

use crate::{
    actions::{
        app::App,
        ownership::{facts_of, set_error},
    },
    base::{db::NodeRow, failure::Outcome},
    services::nodes::boots,
};
use walt_api::boots::BootList;
use walt_types::{UserName, node_set};

/// The boots of one node. Everybody may look at them.
pub fn list(app: &App, caller: &UserName, node: &str) -> Outcome<BootList> {
    let rows = app.db().with(NodeRow::all)?;
    let index = node_set::resolve_one(node, &facts_of(&rows), caller).map_err(|e| set_error(app, e))?;
    Ok(boots::list(app.nodes(), &rows[index])?)
}
