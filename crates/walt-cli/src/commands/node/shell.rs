//! `walt node shell`

use super::access;
use crate::{
    commands::options::Confirmed,
    context::Context,
    error::Failure,
    terminal::{self, Mode},
    ui,
};
use clap::Args;
use walt_api::term::NodeTerminal;

/// Printed before every shell.
const CAUTION: &str = "Caution: changes outside /persist will be lost on next node reboot.\n\
                       Run 'walt help show shells' for more info.";

/// Printed instead for a node that keeps changes on its disk.
const CAUTION_PERSISTENT: &str = "Caution: changes are kept on the disk of this node, until it boots another image.\n\
                                  Run 'walt help show boot-modes' for more info.";

/// `walt node shell`
#[derive(Debug, Args)]
pub struct Shell {
    node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Shell {
    /// Whether the node keeps its changes. A server that cannot answer is a failure of what comes next.
    async fn is_persistent(&self, context: &mut Context) -> bool {
        let Ok(list) = context.client.nodes().await else { return false };
        let node = list.nodes.iter().find(|node| node.name.eq_ignore_ascii_case(&self.node_name));
        node.is_some_and(|node| node.boot_mode.as_deref() == Some("hybrid-persistent"))
    }

    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        ui::note(if self.is_persistent(context).await { CAUTION_PERSISTENT } else { CAUTION });
        let tty = terminal::local_tty(&context.ui);
        let mode = if tty.is_some() { Mode::Raw } else { Mode::Pipes };
        let yes = self.confirmed.yes;
        access::result(access::open(context, &self.node_name, NodeTerminal::Shell, tty, mode, yes).await?)
    }
}
