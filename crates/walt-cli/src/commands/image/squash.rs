//! `walt image squash`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt image squash`
#[derive(Debug, Args)]
pub struct Squash {
    image_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Squash {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(ImageAction::Squash { name: self.image_name }, self.confirmed.yes).await
    }
}
