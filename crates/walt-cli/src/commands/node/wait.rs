//! `walt node wait`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;

/// `walt node wait`
#[derive(Debug, Args)]
pub struct Wait {
    node_set: String,
    /// stop if still waiting after this number of seconds; -1, the default, means no limit
    #[arg(long, value_name = "SECONDS:int", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    timeout: i64,
}

impl Wait {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let timeout = u64::try_from(self.timeout).ok();
        context.action(NodeAction::Wait { nodes: self.node_set, timeout }, false).await
    }
}
