//! `walt node config`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node config`
#[derive(Debug, Args)]
pub struct Config {
    node_set: String,
    configuration: Vec<String>,
    /// print the settings as JSON
    #[arg(long, conflicts_with = "configuration")]
    json: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Config {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action =
            NodeAction::Config { nodes: self.node_set, settings: self.configuration, json: self.json };
        context.action(action, self.confirmed.yes).await
    }
}
