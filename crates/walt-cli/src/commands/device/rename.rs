//! `walt device rename`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::DeviceAction;

/// `walt device rename`
#[derive(Debug, Args)]
pub struct Rename {
    old_name: String,
    new_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Rename {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = DeviceAction::Rename { name: self.old_name, new_name: self.new_name };
        context.action(action, self.confirmed.yes).await
    }
}
