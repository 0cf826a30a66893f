//! `walt node create`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node create`
#[derive(Debug, Args)]
pub struct Create {
    node_name: String,
    /// image to boot, instead of your copy of the default image
    #[arg(long, value_name = "IMAGE:str", allow_hyphen_values = true)]
    image: Option<String>,
    /// create the node even if all nodes together need more memory than the server has
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Create {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Create { name: self.node_name, image: self.image, force: self.force };
        context.action(action, self.confirmed.yes).await
    }
}
