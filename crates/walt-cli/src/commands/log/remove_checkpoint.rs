//! `walt log remove-checkpoint`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::logs::LogAction;

/// `walt log remove-checkpoint`
#[derive(Debug, Args)]
pub struct RemoveCheckpoint {
    checkpoint_name: String,
}

impl RemoveCheckpoint {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(LogAction::RemoveCheckpoint { name: self.checkpoint_name }, false).await
    }
}
