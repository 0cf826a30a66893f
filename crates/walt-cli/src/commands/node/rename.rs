//! `walt node rename`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node rename`
#[derive(Debug, Args)]
pub struct Rename {
    old_node_name: String,
    new_node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Rename {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Rename { name: self.old_node_name, new_name: self.new_node_name };
        context.action(action, self.confirmed.yes).await
    }
}
