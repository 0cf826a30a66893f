//! `walt advanced …`.

mod update_default_images;
mod update_hub_meta;

use super::Context;
use crate::error::Failure;
use clap::{Args, Subcommand};
use walt_api::ImageAction;

/// Commands of the category, sorted by name.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// take over all images of another user
    FixImageOwner(FixImageOwner),
    /// take newer versions of the default images, those of free nodes
    UpdateDefaultImages(update_default_images::UpdateDefaultImages),
    /// let searches find what was pushed to your account of the docker hub without walt
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

/// `walt advanced fix-image-owner`
#[derive(Debug, Args)]
pub struct FixImageOwner {
    other_user: String,
    /// yes, I know, do it!
    #[arg(long)]
    yes_i_know_do_it_please: bool,
}

impl FixImageOwner {
    async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = ImageAction::FixOwner { user: self.other_user, sure: self.yes_i_know_do_it_please };
        context.action(action, false).await
    }
}
