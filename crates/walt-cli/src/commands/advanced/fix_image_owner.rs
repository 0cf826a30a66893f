//! `walt advanced fix-image-owner`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt advanced fix-image-owner`
#[derive(Debug, Args)]
pub struct FixImageOwner {
    other_user: String,
    /// take them over; without this switch, the command only prints what it would do
    #[arg(long)]
    yes_i_know_do_it_please: bool,
}

impl FixImageOwner {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = ImageAction::FixOwner { user: self.other_user, sure: self.yes_i_know_do_it_please };
        context.action(action, false).await
    }
}
