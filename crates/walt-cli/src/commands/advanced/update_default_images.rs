//! `walt advanced update-default-images`

use crate::{context::Context, error::Failure, registries};
use clap::Args;
use walt_api::ImageAction;

/// `walt advanced update-default-images`
#[derive(Debug, Args)]
pub struct UpdateDefaultImages {}

impl UpdateDefaultImages {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let credentials = registries::all_credentials(context).await?;
        context.action(ImageAction::UpdateDefaultImages { credentials }, false).await
    }
}
