//! `walt node save`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node save`
#[derive(Debug, Args)]
pub struct Save {
    node_name: String,
    image_name: String,
    /// only list what would be saved
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Save {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Save { node: self.node_name, image: self.image_name, dry_run: self.dry_run };
        context.action(action, self.confirmed.yes).await
    }
}
