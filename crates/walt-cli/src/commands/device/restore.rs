//! `walt device restore`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::DeviceAction;

/// `walt device restore`
#[derive(Debug, Args)]
pub struct Restore {
    device_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Restore {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = DeviceAction::Restore { name: self.device_name };
        context.action(action, self.confirmed.yes).await
    }
}
