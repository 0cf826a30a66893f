//! Opening a terminal on one node, for `shell`, `run`, `console` and `ping`.

use crate::{
    confirm::{Attempt, confirmed},
    context::Context,
    error::Failure,
    terminal::{self, End, Mode},
};
use walt_api::term::{NodeTerminal, OpenNodeTerminal, Tty};

/// Opens a terminal and waits for its end; asks first if the node is another user's.
pub async fn open(
    context: &mut Context,
    node: &str,
    what: NodeTerminal,
    tty: Option<Tty>,
    mode: Mode,
    yes: bool,
) -> Result<End, Failure> {
    let mut open = OpenNodeTerminal { node: node.to_owned(), what, tty, confirm: None };
    confirmed(context, yes, &format!("the owner of '{node}'"), async |context: &mut Context, token| {
        open.confirm = token;
        Attempt::from_result(attempt(context, &open, mode).await)
    })
    .await
}

async fn attempt(context: &mut Context, open: &OpenNodeTerminal, mode: Mode) -> Result<End, Failure> {
    let pair = context.ui.watch(context.client.node_terminal(open)).await?;
    Ok(terminal::run(&mut context.ui, pair, mode, |_| None).await?.end)
}

/// The command's result: the status of what ran on the node.
pub fn result(end: End) -> Result<(), Failure> {
    match end {
        End::Exited(0) | End::Detached => Ok(()),
        End::Exited(status) => Err(Failure::Status(status)),
        End::Interrupted => Err(Failure::Aborted { newline: true }),
    }
}
