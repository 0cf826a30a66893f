//! `walt registry …`: the server's own registry.

mod login;
mod serve;

use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// open a port on this machine for docker, podman and other WalT servers
    Serve(serve::Serve),
    /// give docker and podman credentials for that port, valid for some hours
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
