//! `walt node acquire`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node acquire`
#[derive(Debug, Args)]
pub struct Acquire {
    node_set: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Acquire {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Acquire { nodes: self.node_set }, self.confirmed.yes).await
    }
}
