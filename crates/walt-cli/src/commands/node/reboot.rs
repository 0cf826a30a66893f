//! `walt node reboot`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node reboot`
#[derive(Debug, Args)]
pub struct Reboot {
    node_set: String,
    /// cut the power instead of asking the running system
    #[arg(long)]
    hard: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Reboot {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Reboot { nodes: self.node_set, hard: self.hard }, self.confirmed.yes).await
    }
}
