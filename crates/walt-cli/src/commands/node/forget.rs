//! `walt node forget`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node forget`
#[derive(Debug, Args)]
pub struct Forget {
    node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Forget {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Forget { name: self.node_name }, self.confirmed.yes).await
    }
}
