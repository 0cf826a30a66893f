//! `walt node …`.

mod access;
mod console;
mod run;
mod shell;
mod show;
mod simple;

use super::Context;
use super::cp::{self, Entity};
use crate::error::Failure;
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// show nodes
    Show(show::Show),
    /// take ownership of nodes: they boot your copy of their default image
    Acquire(simple::Acquire),
    /// give up ownership of nodes: they boot their default image
    Release(simple::Release),
    /// let nodes boot an operating system image
    Boot(simple::Boot),
    /// open a shell on a node
    Shell(shell::Shell),
    /// copy files to or from a node
    Cp(cp::Cp),
    /// run a command on nodes
    Run(run::Run),
    /// make an image of what was changed on a node
    Save(simple::Save),
    /// reboot nodes
    Reboot(simple::Reboot),
    /// print or change the settings of nodes (such as ram=1G, boot.road=pxe)
    Config(simple::Config),
    /// create a virtual node
    Create(simple::Create),
    /// remove a virtual node
    Remove(simple::Remove),
    /// rename a node
    Rename(simple::Rename),
    /// check that a node answers on the network
    Ping(console::Ping),
    /// connect to the console of a node
    Console(console::Console),
    /// wait until nodes have booted
    Wait(simple::Wait),
    /// the same as 'boot'
    Deploy(simple::Boot),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(context).await,
            Self::Acquire(command) => command.run(context).await,
            Self::Release(command) => command.run(context).await,
            Self::Boot(command) | Self::Deploy(command) => command.run(context).await,
            Self::Shell(command) => command.run(context).await,
            Self::Cp(command) => command.run(context, Entity::Node).await,
            Self::Run(command) => command.run(context).await,
            Self::Save(command) => command.run(context).await,
            Self::Reboot(command) => command.run(context).await,
            Self::Config(command) => command.run(context).await,
            Self::Create(command) => command.run(context).await,
            Self::Remove(command) => command.run(context).await,
            Self::Rename(command) => command.run(context).await,
            Self::Ping(command) => command.run(context).await,
            Self::Console(command) => command.run(context).await,
            Self::Wait(command) => command.run(context).await,
        }
    }
}
