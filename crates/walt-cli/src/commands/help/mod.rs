//! `walt help …`: works without a server.

mod list;
mod show;

use crate::error::Failure;
use clap::Subcommand;

/// Commands of the category.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// list the help topics
    List(list::List),
    /// show the page of a help topic
    Show(show::Show),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
        }
    }
}
