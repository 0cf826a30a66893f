//! `walt node blink`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node blink`
#[derive(Debug, Args)]
pub struct Blink {
    node_name: String,
    /// seconds to blink
    #[arg(default_value_t = 60, hide_default_value = true)]
    duration: u64,
}

impl Blink {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(NodeAction::Blink { node: self.node_name, seconds: self.duration }, false).await
    }
}
