//! The commands that are one action on the server.

use crate::commands::{Confirmed, Context};
use crate::error::Failure;
use clap::Args;
use walt_api::NodeAction;

/// `walt node acquire`
#[derive(Debug, Args)]
pub struct Acquire {
    node_set: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Acquire {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Acquire { nodes: self.node_set }, self.confirmed.yes).await
    }
}

/// `walt node release`
#[derive(Debug, Args)]
pub struct Release {
    node_set: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Release {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Release { nodes: self.node_set }, self.confirmed.yes).await
    }
}

/// `walt node boot` and `walt node deploy`
#[derive(Debug, Args)]
pub struct Boot {
    node_set: String,
    image_name_or_default: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Boot {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Boot { nodes: self.node_set, image: self.image_name_or_default };
        context.action(action, self.confirmed.yes).await
    }
}

/// `walt node reboot`
#[derive(Debug, Args)]
pub struct Reboot {
    node_set: String,
    /// cut the power instead of asking the running system
    #[arg(long)]
    hard: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Reboot {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Reboot { nodes: self.node_set, hard: self.hard }, self.confirmed.yes).await
    }
}

/// `walt node config`
#[derive(Debug, Args)]
pub struct Config {
    node_set: String,
    configuration: Vec<String>,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Config {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Config { nodes: self.node_set, settings: self.configuration };
        context.action(action, self.confirmed.yes).await
    }
}

/// `walt node create`
#[derive(Debug, Args)]
pub struct Create {
    node_name: String,
    /// image it boots, instead of your copy of the default image
    #[arg(long, value_name = "IMAGE:str", allow_hyphen_values = true)]
    image: Option<String>,
    /// do it although all nodes together have more memory than the server
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Create {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Create { name: self.node_name, image: self.image, force: self.force };
        context.action(action, self.confirmed.yes).await
    }
}

/// `walt node remove`
#[derive(Debug, Args)]
pub struct Remove {
    node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Remove {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Remove { name: self.node_name }, self.confirmed.yes).await
    }
}

/// `walt node rename`
#[derive(Debug, Args)]
pub struct Rename {
    old_node_name: String,
    new_node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Rename {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Rename { name: self.old_node_name, new_name: self.new_node_name };
        context.action(action, self.confirmed.yes).await
    }
}

/// `walt node wait`
#[derive(Debug, Args)]
pub struct Wait {
    node_set: String,
    /// stop if still waiting after this number of seconds; -1, the default, is for ever
    #[arg(long, value_name = "SECONDS:int", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    timeout: i64,
}

impl Wait {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let timeout = u64::try_from(self.timeout).ok();
        context.action(NodeAction::Wait { nodes: self.node_set, timeout }, false).await
    }
}

/// `walt node save`
#[derive(Debug, Args)]
pub struct Save {
    node_name: String,
    image_name: String,
    /// list what would be saved, and save nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Save {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Save { node: self.node_name, image: self.image_name, dry_run: self.dry_run };
        context.action(action, self.confirmed.yes).await
    }
}
