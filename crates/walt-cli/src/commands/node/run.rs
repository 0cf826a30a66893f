//! `walt node run`

use super::access;
use crate::{
    commands::options::Confirmed,
    confirm::{Attempt, confirmed},
    context::Context,
    error::Failure,
    node_run::NodeRun,
    terminal::{self, Mode},
    ui,
};
use clap::Args;
use walt_api::term::{OpenNodeRun, ServerMessage, Tty};
use walt_client::{Error, Output, TerminalInput, TerminalOutput};
use walt_types::shell;

/// `walt node run`
///
/// One argument is a command line for the shell of the nodes: 'ls *.log | wc -l'. Of several arguments, each stays one
/// word, whatever is in it. See 'walt help show shells'.
#[derive(Debug, Args)]
#[command(long_about = None)]
pub struct Run {
    node_set: String,
    /// one argument is a command line for the shell of the nodes, such as 'ls | wc -l'; of several, each stays one word
    #[arg(required = true, allow_hyphen_values = true)]
    cmdargs: Vec<String>,
    /// run the command in a terminal
    #[arg(long)]
    term: bool,
    /// print status and output of each node as JSON, at the end
    #[arg(long, conflicts_with = "term")]
    json: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

/// The nodes of a command, and the connection.
type Opened = (Vec<String>, (TerminalInput, TerminalOutput));

impl Run {
    /// Runs the command on all nodes at once; the highest exit status is the result.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if let Some(operator) = shell::operator(&self.cmdargs) {
            ui::note(&format!(
                "Note: '{operator}' is an ordinary word here. For the shell of the nodes, write one argument: \
                 walt node run {} '{}'",
                self.node_set,
                self.cmdargs.join(" ")
            ));
        }
        let (tty, mode) = self.terminal(context);
        let has_tty = tty.is_some();
        let command = shell::command_line(&self.cmdargs);
        let mut open = OpenNodeRun { nodes: self.node_set, command, tty, confirm: None };
        let subject = "the owners of the nodes";
        let (names, pair) = confirmed(context, self.confirmed.yes, subject, async |context, token| {
            open.confirm = token;
            Attempt::from_result(attempt(context, &open).await)
        })
        .await?;
        if has_tty && names.len() == 1 {
            let end = terminal::run(&mut context.ui, pair, mode, |_| None).await?.end;
            return access::result(end);
        }
        NodeRun::new(names, self.json, has_tty)?.run(&mut context.ui, pair).await
    }

    fn terminal(&self, context: &Context) -> (Option<Tty>, Mode) {
        match (self.term, terminal::local_tty(&context.ui)) {
            (true, Some(tty)) => (Some(tty), Mode::Raw),
            (true, None) => {
                let (rows, cols) = terminal::window_size();
                (Some(Tty { term: "dumb".to_owned(), rows, cols }), Mode::Pipes)
            }
            (false, _) => (None, Mode::Pipes),
        }
    }
}

async fn attempt(context: &mut Context, open: &OpenNodeRun) -> Result<Opened, Failure> {
    let (input, mut output) = context.ui.watch(context.client.node_run(open)).await?;
    match context.ui.watch(output.next()).await? {
        Some(Output::Message(ServerMessage::Nodes { names })) => Ok((names, (input, output))),
        Some(Output::Message(ServerMessage::Error { error })) => Err(error.into()),
        Some(_) => Err(Error::Broken("the server does not say which nodes these are".to_owned()).into()),
        None => Err(Error::ended_early().into()),
    }
}
