//! `walt node …`.

pub(in crate::commands) mod access;
mod acquire;
mod blink;
mod boot;
mod boots;
mod config;
mod console;
mod create;
pub(in crate::commands) mod expose;
mod forget;
mod hold;
mod lease;
mod link;
pub(in crate::commands) mod ping;
mod reboot;
mod release;
mod remove;
mod rename;
mod run;
mod save;
pub(in crate::commands) mod shell;
mod show;
mod wait;
mod watch;

use super::cp::{self, Entity};
use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// show nodes
    Show(show::Show),
    /// take ownership of nodes; they boot your copy of their default image
    Acquire(acquire::Acquire),
    /// give up ownership of nodes; they boot their default image
    Release(release::Release),
    /// print or change until when you want nodes
    Lease(lease::Lease),
    /// boot nodes with an image
    Boot(boot::Boot),
    /// open a shell on a node
    Shell(shell::Shell),
    /// copy files to or from a node
    Cp(cp::Cp),
    /// run a command on nodes
    Run(run::Run),
    /// save the changes made on a node as an image
    Save(save::Save),
    /// reboot nodes
    Reboot(reboot::Reboot),
    /// print or change the settings of nodes (such as ram=1G, netsetup=NAT, disks=8G)
    Config(config::Config),
    /// show or change what happens to frames between virtual nodes and their networks (delay, loss, rate, …)
    Link(link::Link),
    /// create a virtual node
    Create(create::Create),
    /// remove a virtual node
    Remove(remove::Remove),
    /// remove a physical node from the platform; it can be restored for some time
    Forget(forget::Forget),
    /// rename a node
    Rename(rename::Rename),
    /// check that a node answers on the network
    Ping(ping::Ping),
    /// expose a network port of a node on the local machine
    Expose(expose::Expose),
    /// connect to the console of a node
    Console(console::Console),
    /// make a node blink for a number of seconds (60), so that you find it
    Blink(blink::Blink),
    /// show the last boots of a node: how long each stage took, and how they ended
    Boots(boots::Boots),
    /// wait until nodes have booted
    Wait(wait::Wait),
    /// the same as 'boot'
    Deploy(boot::Boot),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(context).await,
            Self::Acquire(command) => command.run(context).await,
            Self::Release(command) => command.run(context).await,
            Self::Lease(command) => command.run(context).await,
            Self::Boot(command) | Self::Deploy(command) => command.run(context).await,
            Self::Shell(command) => command.run(context).await,
            Self::Cp(command) => command.run(context, Entity::Node).await,
            Self::Run(command) => command.run(context).await,
            Self::Save(command) => command.run(context).await,
            Self::Reboot(command) => command.run(context).await,
            Self::Config(command) => command.run(context).await,
            Self::Link(command) => command.run(context).await,
            Self::Create(command) => command.run(context).await,
            Self::Remove(command) => command.run(context).await,
            Self::Forget(command) => command.run(context).await,
            Self::Rename(command) => command.run(context).await,
            Self::Ping(command) => command.run(context).await,
            Self::Expose(command) => command.run(context).await,
            Self::Console(command) => command.run(context).await,
            Self::Blink(command) => command.run(context).await,
            Self::Boots(command) => command.run(context).await,
            Self::Wait(command) => command.run(context).await,
        }
    }
}
