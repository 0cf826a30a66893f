//! `walt node console`

use super::access;
use crate::{
    commands::options::Confirmed,
    context::Context,
    error::Failure,
    terminal::{self, Mode},
    ui::{self, prompt::Dialog},
};
use clap::Args;
use walt_api::term::NodeTerminal;

/// Printed before the console opens; test tools wait for its end.
const INTRO: &str = "This is the console of the node, shared with everyone connected to it.\n\
                     ctrl-a d quits, ctrl-a a sends ctrl-a to the node.\n\
                     Press <enter> to connect or ctrl-C to abort: ";
/// Clears the screen.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// Undoes the modes that a program on the node may have set: soft reset, colours off, main screen, cursor on.
const RESET: &str = "\x1b[!p\x1b[0m\x1b[?1049l\x1b[?25h\r\n";

/// `walt node console`
#[derive(Debug, Args)]
pub struct Console {
    node_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Console {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let tty = terminal::local_tty(&context.ui);
        if tty.is_some() {
            context.ask(INTRO).await?.line()?;
            ui::out_text(CLEAR)?;
        }
        let yes = self.confirmed.yes;
        let interactive = tty.is_some();
        let end =
            access::open(context, &self.node_name, NodeTerminal::Console, tty, Mode::Console, yes).await;
        if interactive {
            ui::out_text(RESET)?;
        }
        if end.is_ok() {
            ui::out("Disconnected from console.")?;
        }
        access::result(end?)
    }
}
