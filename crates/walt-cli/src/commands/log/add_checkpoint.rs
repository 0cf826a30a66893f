//! `walt log add-checkpoint`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::logs::{CheckpointDate, LogAction};
use walt_types::Span;

/// `walt log add-checkpoint`
#[derive(Debug, Args)]
pub struct AddCheckpoint {
    /// specify date (see walt help show log-checkpoint)
    #[arg(long, value_name = "LOG_CHECKPOINT_DATE:str", allow_hyphen_values = true)]
    date: Option<String>,
    checkpoint_name: String,
}

impl AddCheckpoint {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let date = self.date.as_deref().map(date).transpose()?;
        context.action(LogAction::AddCheckpoint { name: self.checkpoint_name, date }, false).await
    }
}

/// `YYYY-MM-DD hh:mm:ss` in the local time of this machine, or `-<int>[smhd]`.
fn date(text: &str) -> Result<CheckpointDate, Failure> {
    let bad = || {
        Failure::with_hint(
            format!(
                "'{text}' is not a date: write 'YYYY-MM-DD hh:mm:ss', or -10s, -5m, -2h, -1d for a time ago."
            ),
            "see 'walt help show log-checkpoint'",
        )
    };
    if let Some(ago) = text.strip_prefix('-') {
        let Span(seconds) = ago.parse().map_err(|_| bad())?;
        let micros = seconds.checked_mul(1_000_000).and_then(|micros| i64::try_from(micros).ok());
        return micros.map(CheckpointDate::Ago).ok_or_else(bad);
    }
    let civil = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).map_err(|_| bad())?;
    let at = civil.to_zoned(jiff::tz::TimeZone::system()).map_err(|_| bad())?;
    Ok(CheckpointDate::At(at.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_absolute_or_relative() {
        assert!(matches!(date("-2m"), Ok(CheckpointDate::Ago(120_000_000))));
        let Ok(CheckpointDate::At(at)) = date("2026-11-30 10:20:30") else { panic!("a date") };
        let text = jiff::Timestamp::from_microsecond(at).unwrap().to_zoned(jiff::tz::TimeZone::system());
        assert_eq!(text.strftime("%F %T").to_string(), "2026-11-30 10:20:30");
        for bad in
            ["", "-", "-5", "-5x", "now", "2026-11-30", "2026-13-30 10:20:30", "-99999999999999999999s"]
        {
            assert!(matches!(date(bad), Err(Failure::Failed { .. })), "{bad}");
        }
    }
}
