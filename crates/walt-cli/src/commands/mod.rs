//! The table of commands: categories here, the commands of each in its own module, one file per command.

mod advanced;
mod cp;
mod device;
mod help;
mod image;
mod log;
mod node;
mod options;
mod proxy;
mod registry;

use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Categories, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Category {
    /// management of operating system images
    #[command(subcommand, disable_help_subcommand = true)]
    Image(image::Command),
    /// management of nodes
    #[command(subcommand, disable_help_subcommand = true)]
    Node(node::Command),
    /// management of logs
    #[command(subcommand, disable_help_subcommand = true)]
    Log(log::Command),
    /// management of devices: switches, nodes, and what else has an address
    #[command(subcommand, disable_help_subcommand = true)]
    Device(device::Command),
    /// access to the server as an image registry
    #[command(subcommand, disable_help_subcommand = true)]
    Registry(registry::Command),
    /// rarely used commands
    #[command(subcommand, disable_help_subcommand = true)]
    Advanced(advanced::Command),
    /// documentation
    #[command(subcommand, disable_help_subcommand = true)]
    Help(help::Command),
    /// connect standard input and output to the server's socket, for WALT_SERVER=ssh://
    #[command(hide = true)]
    Proxy(proxy::Proxy),
}

impl Category {
    /// Runs the command.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Image(command) => command.run(&mut Context::new()?).await,
            Self::Node(command) => command.run(&mut Context::new()?).await,
            Self::Log(command) => command.run(&mut Context::new()?).await,
            Self::Device(command) => command.run(&mut Context::new()?).await,
            Self::Registry(command) => command.run(&mut Context::new()?).await,
            Self::Advanced(command) => command.run(&mut Context::new()?).await,
            Self::Help(command) => command.run(),
            Self::Proxy(command) => command.run().await,
        }
    }
}
