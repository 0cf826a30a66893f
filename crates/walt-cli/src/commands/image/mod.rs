//! `walt image …`.

mod keep;
mod shell;
mod show;
mod simple;

use super::Context;
use crate::error::Failure;
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// show your images
    Show(show::Show),
    /// make an image of the platform or of another user one of yours
    Clone(simple::Clone),
    /// change an image in a shell
    Shell(shell::Shell),
    /// give an image of yours a second name
    Duplicate(simple::Duplicate),
    /// remove an image of yours
    Remove(simple::Remove),
    /// rename an image of yours
    Rename(simple::Rename),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(context).await,
            Self::Clone(command) => command.run(context).await,
            Self::Shell(command) => command.run(context).await,
            Self::Duplicate(command) => command.run(context).await,
            Self::Remove(command) => command.run(context).await,
            Self::Rename(command) => command.run(context).await,
        }
    }
}
