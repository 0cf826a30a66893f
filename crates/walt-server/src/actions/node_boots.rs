//! `walt node boots`: what is known of the last boots of a node.

use crate::{
    actions::{app::App, ownership::one_node},
    base::failure::Outcome,
    services::nodes::boots,
};
use walt_api::boots::BootList;
use walt_types::UserName;

/// The boots of one node. Everybody may look at them.
pub fn list(app: &App, caller: &UserName, node: &str) -> Outcome<BootList> {
    Ok(boots::list(app.nodes(), &one_node(app, caller, node)?)?)
}
