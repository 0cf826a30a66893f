//! `walt advanced …`.

mod dump_bash_autocomplete;
mod dump_fish_autocomplete;
mod dump_zsh_autocomplete;
mod fix_image_owner;
mod health;
mod sql;
mod update_default_images;
mod update_hub_meta;

use crate::{context::Context, error::Failure};
use clap::Subcommand;

/// Commands of the category, sorted by name.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// dump bash auto-completion code
    DumpBashAutocomplete(dump_bash_autocomplete::DumpBashAutocomplete),
    /// dump fish auto-completion code
    DumpFishAutocomplete(dump_fish_autocomplete::DumpFishAutocomplete),
    /// dump zsh auto-completion code
    DumpZshAutocomplete(dump_zsh_autocomplete::DumpZshAutocomplete),
    /// take over all images of another user
    FixImageOwner(fix_image_owner::FixImageOwner),
    /// show whether the server is well: your nodes and images, room, what is wrong and what to do
    Health(health::ShowHealth),
    /// start a prompt for SQL on the database of the server
    Sql(sql::Sql),
    /// update the default images, which free nodes boot
    UpdateDefaultImages(update_default_images::UpdateDefaultImages),
    /// make images that you pushed to the docker hub by other tools visible to searches
    #[command(visible_alias = "rescan-hub-account")]
    UpdateHubMeta(update_hub_meta::UpdateHubMeta),
}

impl Command {
    /// Runs it: with a server only if it needs one.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::DumpBashAutocomplete(command) => command.run(),
            Self::DumpFishAutocomplete(command) => command.run(),
            Self::DumpZshAutocomplete(command) => command.run(),
            Self::FixImageOwner(command) => command.run(&mut Context::new().await?).await,
            Self::Health(command) => command.run(&mut Context::new().await?).await,
            Self::Sql(command) => command.run(&mut Context::new().await?).await,
            Self::UpdateDefaultImages(command) => command.run(&mut Context::new().await?).await,
            Self::UpdateHubMeta(command) => command.run(&mut Context::new().await?).await,
        }
    }
}
