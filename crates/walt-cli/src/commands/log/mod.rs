//! `walt log …`: log lines of nodes, and of the platform.

mod add_checkpoint;
mod list_checkpoints;
mod remove_checkpoint;
mod selection;
mod show;
mod wait;

use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Dump logs on standard output
    Show(show::Show),
    /// Wait for a given log line
    Wait(wait::Wait),
    /// Record a checkpoint (reference point in time)
    AddCheckpoint(add_checkpoint::AddCheckpoint),
    /// Remove a checkpoint
    RemoveCheckpoint(remove_checkpoint::RemoveCheckpoint),
    /// List checkpoints
    ListCheckpoints(list_checkpoints::ListCheckpoints),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(context).await,
            Self::Wait(command) => command.run(context).await,
            Self::AddCheckpoint(command) => command.run(context).await,
            Self::RemoveCheckpoint(command) => command.run(context).await,
            Self::ListCheckpoints(command) => command.run(context).await,
        }
    }
}
