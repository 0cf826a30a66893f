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
        ui::note(CAUTION);
        let tty = terminal::local_tty(&context.ui);
        let mode = if tty.is_some() { Mode::Raw } else { Mode::Pipes };
        let yes = self.confirmed.yes;
        access::result(access::open(context, &self.node_name, NodeTerminal::Shell, tty, mode, yes).await?)
    }
}
