//! `walt image …`.

mod build;
mod clone;
mod diff;
mod duplicate;
mod history;
mod prune;
mod publish;
mod remove;
mod rename;
mod rollback;
mod search;
mod shell;
mod show;
mod squash;

use super::cp::{self, Entity};
use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// show your images
    Show(show::Show),
    /// search for images on this server, in registries and in a docker daemon
    Search(search::Search),
    /// copy an image of the platform, of another user or of a registry to your images
    Clone(clone::Clone),
    /// change an image in an interactive shell
    Shell(shell::Shell),
    /// build an image from a Dockerfile
    Build(build::Build),
    /// copy files to or from an image of yours
    Cp(cp::Cp),
    /// give an image of yours a second name
    Duplicate(duplicate::Duplicate),
    /// remove an image of yours
    Remove(remove::Remove),
    /// rename an image of yours
    Rename(rename::Rename),
    /// publish an image of yours to a registry
    Publish(publish::Publish),
    /// squash all layers of an image into one
    Squash(squash::Squash),
    /// list the versions of an image: when, by whom and by which command each was made
    History(history::History),
    /// restore an earlier version of an image
    Rollback(rollback::Rollback),
    /// delete the earlier versions of images
    Prune(prune::Prune),
    /// list the files that differ between two images; IMAGE@N is version N of its history
    Diff(diff::Diff),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(context).await,
            Self::Search(command) => command.run(context).await,
            Self::Clone(command) => command.run(context).await,
            Self::Shell(command) => command.run(context).await,
            Self::Build(command) => command.run(context).await,
            Self::Cp(command) => command.run(context, Entity::Image).await,
            Self::Duplicate(command) => command.run(context).await,
            Self::Remove(command) => command.run(context).await,
            Self::Rename(command) => command.run(context).await,
            Self::Publish(command) => command.run(context).await,
            Self::Squash(command) => command.run(context).await,
            Self::History(command) => command.run(context).await,
            Self::Rollback(command) => command.run(context).await,
            Self::Prune(command) => command.run(context).await,
            Self::Diff(command) => command.run(context).await,
        }
    }
}
