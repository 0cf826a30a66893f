//! `walt device …`.

mod config;
mod expose;
mod forget;
mod ping;
mod rename;
mod restore;
mod shell;
mod show;

pub use show::other_model;

use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// show the devices of the platform
    Show(show::Show),
    /// open a shell on a device, by ssh
    Shell(shell::Shell),
    /// rename a device
    Rename(rename::Rename),
    /// print or change the settings of devices (such as netsetup=NAT, type=switch)
    Config(config::Config),
    /// check that a device answers on the network
    Ping(ping::Ping),
    /// expose a network port of a device on the local machine
    Expose(expose::Expose),
    /// remove an obsolete device from the record; a physical node can be restored for some time
    Forget(forget::Forget),
    /// restore a physical node that was forgotten
    Restore(restore::Restore),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(context).await,
            Self::Shell(command) => command.run(context).await,
            Self::Rename(command) => command.run(context).await,
            Self::Config(command) => command.run(context).await,
            Self::Ping(command) => command.run(context).await,
            Self::Expose(command) => command.run(context).await,
            Self::Forget(command) => command.run(context).await,
            Self::Restore(command) => command.run(context).await,
        }
    }
}
