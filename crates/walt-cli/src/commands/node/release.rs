//! `walt node release`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node release`
#[derive(Debug, Args)]
pub struct Release {
    node_set: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Release {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Release { nodes: self.node_set }, self.confirmed.yes).await
    }
}
