//! `walt node acquire`

use super::hold::{self, HoldOptions};
use crate::{commands::options::Confirmed, context::Context, error::Failure, ui};
use clap::Args;
use std::time::{Duration, Instant};
use walt_api::NodeAction;
use walt_client::Error;
use walt_types::Span;

/// Pause before a client that was cut off tries again: the server keeps its place for some seconds after a restart.
const RETRY: Duration = Duration::from_millis(300);
/// How long it tries.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// A connection that lasted for longer was there, so that its end is a new one.
const WAS_THERE: Duration = Duration::from_secs(2);

/// `walt node acquire`
#[derive(Debug, Args)]
#[command(after_help = "See 'walt help show node-ownership' for more info.")]
pub struct Acquire {
    node_set: String,
    /// lease them for this time, such as 30m, 2h or 1d; after that, others may acquire them without being asked
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,
    /// if others have some of them, wait in the queue until all of them are available
    #[arg(long)]
    queue: bool,
    #[command(flatten)]
    hold: HoldOptions,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Acquire {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let hold = self.hold.request();
        let action = NodeAction::Acquire {
            nodes: self.node_set,
            lease: self.span,
            hold: hold.clone(),
            queue: self.queue.then(hold::tag),
        };
        if self.queue {
            in_turn(context, action).await?;
        } else {
            context.action(action, self.confirmed.yes).await?;
        }
        match hold {
            Some(hold) => hold::keep(context, &hold, Vec::new()).await,
            None => Ok(()),
        }
    }
}

/// Waits in the queue, also over a restart of the server.
async fn in_turn(context: &mut Context, action: NodeAction) -> Result<(), Failure> {
    // A missing server is an error, unless it was there before.
    context.ui.watch(context.client.info()).await?;
    let mut cut_off = Instant::now();
    let mut is_noted = false;
    loop {
        let began = Instant::now();
        // The server does not ask: who waits disturbs nobody.
        let failure = match context.action(action.clone(), false).await {
            Err(Failure::Client(error @ (Error::Broken(_) | Error::Connect { .. }))) => error,
            other => return other,
        };
        if began.elapsed() > WAS_THERE {
            (cut_off, is_noted) = (Instant::now(), false);
        }
        if cut_off.elapsed() > RETRY_LIMIT {
            return Err(failure.into());
        }
        if !is_noted {
            ui::note("The connection to the server broke: trying again, to keep the place in the queue.");
            is_noted = true;
        }
        context.ui.watch(pause(RETRY)).await?;
    }
}

async fn pause(time: Duration) -> Result<(), Failure> {
    tokio::time::sleep(time).await;
    Ok(())
}
