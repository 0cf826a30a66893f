//! `walt image remove`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt image remove`
#[derive(Debug, Args)]
pub struct Remove {
    image_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Remove {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(ImageAction::Remove { name: self.image_name }, self.confirmed.yes).await
    }
}
