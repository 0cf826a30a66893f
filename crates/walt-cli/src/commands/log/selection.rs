//! Which lines are wanted and how they are printed: the options that `show` and `wait` share.

use crate::{context::Context, error::Failure, stdio::Output};
use clap::Args;
use walt_api::logs::{DEFAULT_FORMAT, DEFAULT_ISSUERS, LogQuery};

/// The options.
#[derive(Debug, Args)]
pub struct Selection {
    /// printing format (see walt help show log-format)
    #[arg(long, value_name = "LOG_FORMAT:str", default_value = DEFAULT_FORMAT, hide_default_value = true)]
    format: String,
    /// print one JSON object per line
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// selected issuers (see walt help show log-issuers); default: my-nodes
    #[arg(long, visible_aliases = ["emitters", "nodes"], value_name = "SET_OF_ISSUERS:str")]
    issuers: Option<String>,
    /// selected log streams (as a regular expr.)
    #[arg(long, value_name = "STREAMS_REGEXP:str")]
    streams: Option<String>,
    /// shortcut for: --issuers server --streams platform.*
    #[arg(long, conflicts_with_all = ["issuers", "streams", "server"])]
    platform: bool,
    /// shortcut for: --issuers server --streams daemon.*
    #[arg(long, conflicts_with_all = ["issuers", "streams", "platform"])]
    server: bool,
}

impl Selection {
    /// The query of these options.
    pub fn query(&self, pattern: Option<String>) -> LogQuery {
        let shortcut = match (self.platform, self.server) {
            (true, _) => Some("^platform\\."),
            (_, true) => Some("^daemon\\."),
            _ => None,
        };
        let issuers = match shortcut {
            Some(_) => "server".to_owned(),
            None => self.issuers.clone().unwrap_or_else(|| DEFAULT_ISSUERS.to_owned()),
        };
        LogQuery {
            issuers: Some(issuers),
            streams: shortcut.map(str::to_owned).or_else(|| self.streams.clone()),
            pattern,
            format: (!self.json).then(|| self.format.clone()),
            ..LogQuery::default()
        }
    }
}

/// Prints the lines of a query until they end, or nobody reads them.
pub async fn print(context: &mut Context, query: &LogQuery) -> Result<(), Failure> {
    let mut lines = context.ui.watch(context.client.log_lines(query)).await?;
    let output = Output::new(&std::io::stdout())?;
    loop {
        let work = async {
            match lines.next().await? {
                Some(page) => output.write(&page).await.map(|()| true).map_err(Failure::from),
                None => Ok(false),
            }
        };
        let goes_on = tokio::select! {
            // A part of a page that was written stays: the command ends.
            outcome = work => outcome?,
            interrupt = context.ui.signals.next() => return Err(interrupt.failure()),
        };
        if !goes_on {
            return Ok(());
        }
    }
}
