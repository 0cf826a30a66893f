//! `walt node boot` and `walt node deploy`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node boot` and `walt node deploy`
#[derive(Debug, Args)]
pub struct Boot {
    node_set: String,
    image_name_or_default: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Boot {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = NodeAction::Boot { nodes: self.node_set, image: self.image_name_or_default };
        context.action(action, self.confirmed.yes).await
    }
}
