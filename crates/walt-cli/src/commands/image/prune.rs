//! `walt image prune`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt image prune`
#[derive(Debug, Args)]
pub struct Prune {
    image_name: Option<String>,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Prune {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(ImageAction::Prune { name: self.image_name }, self.confirmed.yes).await
    }
}
