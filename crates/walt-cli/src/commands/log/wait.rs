//! `walt log wait`

use super::selection::{Selection, print};
use crate::{context::Context, error::Failure};
use clap::{Args, ValueEnum};
use std::time::Duration;
use walt_api::logs::LogWait;

/// When the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// After the first line that matches.
    #[value(name = "ANY")]
    Any,
    /// When each issuer has logged a line that matches.
    #[value(name = "ALL")]
    All,
}

/// `walt log wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// specify mode (see walt help show log-wait): ANY, the default, or ALL
    #[arg(
        long,
        value_name = "LOG_WAIT_MODE",
        ignore_case = true,
        default_value = "ANY",
        hide_default_value = true,
        hide_possible_values = true
    )]
    mode: Mode,
    /// also look in recent past logs if they matched
    #[arg(long, value_name = "SECONDS:int", default_value_t = 0, hide_default_value = true)]
    time_margin: u32,
    /// stop if still waiting after this number of seconds; -1, the default, means no limit
    #[arg(long, value_name = "SECONDS:int", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    timeout: i64,
    #[command(flatten)]
    selection: Selection,
    logline_regexp: String,
}

impl Wait {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut query = self.selection.query(Some(self.logline_regexp));
        query.wait = Some(match self.mode {
            Mode::Any => LogWait::Any,
            Mode::All => LogWait::All,
        });
        if self.time_margin > 0 {
            query.history = Some(format!("-{}s:", self.time_margin));
        }
        let waiting = print(context, &query);
        match u64::try_from(self.timeout) {
            Err(_) => waiting.await,
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), waiting)
                .await
                .unwrap_or_else(|_| Err(Failure::new("Timeout was reached."))),
        }
    }
}
