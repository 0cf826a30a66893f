//! `walt node lease`

use super::hold::{self, HoldOptions};
use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::NodeAction;
use walt_types::LeaseChange;

/// `walt node lease`
#[derive(Debug, Args)]
#[command(after_help = "See 'walt help show node-ownership' for more info.")]
pub struct Lease {
    node_set: String,
    /// +1h ends it later, -30m earlier, 2h two hours from now, none never; without it, leases are printed
    #[arg(allow_hyphen_values = true)]
    change: Option<LeaseChange>,
    #[command(flatten)]
    hold: HoldOptions,
    /// with --hold: a command; its end is the end of the lease
    #[arg(last = true, requires = "hold")]
    command: Vec<String>,
}

impl Lease {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let hold = self.hold.request();
        let action = NodeAction::Lease { nodes: self.node_set, change: self.change, hold: hold.clone() };
        context.action(action, false).await?;
        match hold {
            Some(hold) => hold::keep(context, &hold, self.command).await,
            None => Ok(()),
        }
    }
}
