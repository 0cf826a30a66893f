//! `walt node ping`

use super::access;
use crate::{
    context::Context,
    error::Failure,
    terminal::{self, End, Mode},
};
use clap::Args;
use walt_api::term::NodeTerminal;

/// `walt node ping`
#[derive(Debug, Args)]
pub struct Ping {
    node_name: String,
}

impl Ping {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        ping(context, &self.node_name, NodeTerminal::Ping).await
    }
}

/// Pings a node or a device.
pub async fn ping(context: &mut Context, name: &str, what: NodeTerminal) -> Result<(), Failure> {
    let tty = terminal::local_tty(&context.ui);
    let mode = if tty.is_some() { Mode::Raw } else { Mode::NoInput };
    match access::open(context, name, what, tty, mode, false).await? {
        End::Interrupted => Err(Failure::reported()),
        end => access::result(end),
    }
}
