//! `walt log show`

use super::selection::{Selection, print};
use crate::{
    context::Context,
    error::Failure,
    ui::prompt::{Decision, decide},
};
use clap::Args;

/// Past lines above which a user at a terminal is asked.
const MANY: u64 = 1000;

/// `walt log show`
#[derive(Debug, Args)]
pub struct Show {
    /// enable realtime mode (see walt help show log-realtime)
    #[arg(long)]
    realtime: bool,
    /// history range to be retrieved (see walt help show log-history)
    #[arg(
        long,
        value_name = "HISTORY_RANGE:str",
        allow_hyphen_values = true,
        default_value = "none",
        hide_default_value = true
    )]
    history: String,
    #[command(flatten)]
    selection: Selection,
    logline_regexp: Option<String>,
}

impl Show {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut query = self.selection.query(self.logline_regexp);
        query.realtime = self.realtime;
        query.history = Some(self.history);
        if context.ui.interactive && query.pattern.is_none() {
            let count = context.ui.watch(context.client.log_count(&query)).await?.lines;
            if count > MANY {
                let question = format!("This will print about {count} log lines. Are you sure?");
                match decide(&mut context.ui, &question).await? {
                    Decision::Yes => {}
                    Decision::No => return Ok(()),
                    Decision::None => return Err(Failure::Aborted { newline: true }),
                }
            }
        }
        print(context, &query).await
    }
}
