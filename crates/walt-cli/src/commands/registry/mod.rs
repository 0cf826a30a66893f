//! `walt registry …`: the server's own registry.

mod login;
mod serve;

use crate::context::Context;
use crate::error::Failure;
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// open a port of this machine for docker, podman and other WalT servers
    Serve(serve::Serve),
    /// let docker and podman of this account in there, for some hours
    Login(login::Login),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Serve(command) => command.run(context).await,
            Self::Login(command) => command.run(context).await,
        }
    }
}
