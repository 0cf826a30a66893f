//! `walt node run`

use super::access;
use crate::{
    commands::options::Confirmed,
    context::Context,
    error::Failure,
    node_set,
    terminal::{self, End, Mode},
    ui,
};
use clap::Args;
use walt_api::term::{NodeTerminal, Tty};

/// `walt node run`
#[derive(Debug, Args)]
pub struct Run {
    node_set: String,
    #[arg(required = true, allow_hyphen_values = true)]
    cmdargs: Vec<String>,
    /// run the command in a terminal
    #[arg(long)]
    term: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run {
    /// Runs the command on one node after another, in the order of their names; the highest exit status is the
    /// result.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let nodes = node_set::resolve(context, &self.node_set).await?;
        let command = self.cmdargs.join(" ");
        let mut worst = 0;
        for (number, node) in nodes.iter().enumerate() {
            let (tty, mode) = self.terminal(context, number == 0);
            let what = NodeTerminal::Run { command: command.clone() };
            match access::open(context, node, what, tty, mode, self.confirmed.yes).await {
                Ok(End::Exited(status)) => worst = worst.max(status),
                Ok(End::Detached) => {}
                Ok(End::Interrupted) => return Err(Failure::Aborted { newline: true }),
                // A node that cannot be reached must not stop the command on the others.
                Err(failure @ Failure::Api(_)) if nodes.len() > 1 => {
                    ui::note(&format!("{node}: {}", failure.text()));
                    worst = worst.max(1);
                }
                Err(failure) => return Err(failure),
            }
        }
        if worst == 0 { Ok(()) } else { Err(Failure::Status(worst)) }
    }

    /// The first node gets our input; nothing would be left for the others.
    fn terminal(&self, context: &Context, first: bool) -> (Option<Tty>, Mode) {
        let pipes = if first { Mode::Pipes } else { Mode::NoInput };
        match (self.term, terminal::local_tty(&context.ui)) {
            (true, Some(tty)) => (Some(tty), Mode::Raw),
            (true, None) => {
                let (rows, cols) = terminal::window_size();
                (Some(Tty { term: "dumb".to_owned(), rows, cols }), pipes)
            }
            (false, _) => (None, pipes),
        }
    }
}
