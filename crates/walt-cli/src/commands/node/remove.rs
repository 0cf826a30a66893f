//! `walt node remove`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node remove`
#[derive(Debug, Args)]
pub struct Remove {
    node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Remove {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Remove { name: self.node_name }, self.confirmed.yes).await
    }
}
