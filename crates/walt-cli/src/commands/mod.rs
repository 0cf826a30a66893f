//! The commands: one file each.

pub mod advanced;
pub mod cp;
pub mod help;
pub mod image;
pub mod node;
pub mod proxy;
pub mod registry;

use crate::error::Failure;
use crate::ui::Ui;
use clap::{Args, Subcommand};
use walt_client::Client;

/// What every command that talks to the server works with.
#[derive(Debug)]
pub struct Context {
    /// The server.
    pub client: Client,
    /// The user.
    pub ui: Ui,
}

impl Context {
    fn new() -> Result<Self, Failure> {
        Ok(Self { client: Client::from_env()?, ui: Ui::new()? })
    }

    /// Does an action and prints what it says; `yes` confirms without asking.
    pub async fn action(
        &mut self,
        action: impl Into<crate::actions::Action>,
        yes: bool,
    ) -> Result<(), Failure> {
        crate::actions::run(&mut self.client, &mut self.ui, action, yes).await
    }
}

/// Categories, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Category {
    /// management of the operating system images of nodes
    #[command(subcommand, disable_help_subcommand = true)]
    Image(image::Command),
    /// management of nodes
    #[command(subcommand, disable_help_subcommand = true)]
    Node(node::Command),
    /// the server as a registry of images
    #[command(subcommand, disable_help_subcommand = true)]
    Registry(registry::Command),
    /// what is seldom needed
    #[command(subcommand, disable_help_subcommand = true)]
    Advanced(advanced::Command),
    /// documentation
    #[command(subcommand, disable_help_subcommand = true)]
    Help(help::Command),
    /// copy standard input and output from and to the server's socket, for WALT_SERVER=ssh://
    #[command(hide = true)]
    Proxy(proxy::Proxy),
}

/// The switch of commands that may ask.
#[derive(Debug, Args)]
pub struct Confirmed {
    /// answer yes to confirmations
    #[arg(short, long)]
    pub yes: bool,
}

/// Does what the command line says.
pub async fn run(category: Category) -> Result<(), Failure> {
    match category {
        Category::Image(command) => command.run(&mut Context::new()?).await,
        Category::Node(command) => command.run(&mut Context::new()?).await,
        Category::Registry(command) => command.run(&mut Context::new()?).await,
        Category::Advanced(command) => command.run(&mut Context::new()?).await,
        Category::Help(command) => command.run(),
        Category::Proxy(command) => command.run().await,
    }
}
