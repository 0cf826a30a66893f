//! `walt device config`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::DeviceAction;

/// `walt device config`
#[derive(Debug, Args)]
pub struct Config {
    device_set: String,
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
            DeviceAction::Config { devices: self.device_set, settings: self.configuration, json: self.json };
        context.action(action, self.confirmed.yes).await
    }
}
