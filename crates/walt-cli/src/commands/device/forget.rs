//! `walt device forget`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::DeviceAction;

/// `walt device forget`
#[derive(Debug, Args)]
pub struct Forget {
    device_name: String,
    /// do it, even if related data will be lost
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Forget {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = DeviceAction::Forget { name: self.device_name, force: self.force };
        context.action(action, self.confirmed.yes).await
    }
}
