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
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        shell(context, &self.node_name, self.confirmed.yes).await
    }
}

/// Opens a shell on a node.
pub async fn shell(context: &mut Context, node: &str, yes: bool) -> Result<(), Failure> {
    ui::note(if is_persistent(context, node).await { CAUTION_PERSISTENT } else { CAUTION });
    let tty = terminal::local_tty(&context.ui);
    let mode = if tty.is_some() { Mode::Raw } else { Mode::Pipes };
    access::result(access::open(context, node, NodeTerminal::Shell, tty, mode, yes).await?)
}

/// Whether the node keeps its changes. A server that cannot answer is a failure of what comes next.
async fn is_persistent(context: &mut Context, name: &str) -> bool {
    let Ok(list) = context.client.nodes().await else { return false };
    let node = list.nodes.iter().find(|node| node.name.eq_ignore_ascii_case(name));
    node.is_some_and(|node| node.boot_mode.as_deref() == Some("hybrid-persistent"))
}
