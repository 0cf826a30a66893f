//! `walt advanced …`.

mod fix_image_owner;
mod update_default_images;
mod update_hub_meta;

use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, sorted by name.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// take over all images of another user
    FixImageOwner(fix_image_owner::FixImageOwner),
    /// update the default images, which free nodes boot
    UpdateDefaultImages(update_default_images::UpdateDefaultImages),
    /// make images that you pushed to the docker hub by other tools visible to searches
    #[command(visible_alias = "rescan-hub-account")]
    UpdateHubMeta(update_hub_meta::UpdateHubMeta),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::FixImageOwner(command) => command.run(context).await,
            Self::UpdateDefaultImages(command) => command.run(context).await,
            Self::UpdateHubMeta(command) => command.run(context).await,
        }
    }
}
