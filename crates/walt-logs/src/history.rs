//! History ranges: `none`, `full`, or `[<start>]:[<end>]`.
//!
//! A bound is empty (none at all), `-<int>[smhd]` (so long ago), or the name of a checkpoint. Bounds are exclusive. The
//! keywords may be written in any case.

use std::str::FromStr;
use walt_types::CheckpointName;

/// Which past lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// None.
    None,
    /// All.
    Full,
    /// Those between two bounds.
    Range(Bound, Bound),
}

/// One end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// No limit; as an end: up to now, and what has a later timestamp although it is there already.
    Open,
    /// So many microseconds ago.
    Ago(i64),
    /// At a checkpoint of the caller.
    Checkpoint(CheckpointName),
}

/// Why a range, a date or a bound cannot be used. `Display` is a sentence without a final stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// It is neither a keyword nor two bounds.
    #[error(
        "'{0}' is not a history range: use 'none', 'full' or [<start>]:[<end>], such as '-10m:' or 'my-start:my-end'"
    )]
    Malformed(String),
    /// A time such as `-5x`.
    #[error("'{0}' is not a relative date: use a minus, a number and one of s, m, h, d, such as '-10m'")]
    Relative(String),
    /// Text that cannot be the name of a checkpoint.
    #[error("{0}")]
    Name(walt_types::ParseError),
    /// The caller has no such checkpoint.
    #[error("there is not a checkpoint named '{0}': 'walt log list-checkpoints' prints those you have")]
    Unknown(CheckpointName),
    /// The start is later than the end.
    #[error("the start of the history range is later than its end: exchange them")]
    Reversed,
}

/// `-<int>[smhd]`, in microseconds. Ten thousand years and more are refused.
///
/// # Errors
/// [`HistoryError::Relative`].
pub fn relative(text: &str) -> Result<i64, HistoryError> {
    const LONGEST: i64 = 10_000 * 366 * 86_400;
    let parse = || {
        let (number, unit) = text.strip_prefix('-')?.split_at_checked(text.len().checked_sub(2)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let seconds = number.parse::<i64>().ok()?.checked_mul(seconds)?;
        (seconds < LONGEST).then_some(seconds * 1_000_000)
    };
    parse().ok_or_else(|| HistoryError::Relative(text.to_owned()))
}

impl FromStr for Bound {
    type Err = HistoryError;

    fn from_str(text: &str) -> Result<Bound, HistoryError> {
        match text {
            "" => Ok(Bound::Open),
            _ if text.starts_with('-') => relative(text).map(Bound::Ago),
            _ => text.parse().map(Bound::Checkpoint).map_err(HistoryError::Name),
        }
    }
}

impl FromStr for History {
    type Err = HistoryError;

    fn from_str(text: &str) -> Result<History, HistoryError> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(History::None);
        }
        if text.eq_ignore_ascii_case("full") {
            return Ok(History::Full);
        }
        match text.split_once(':') {
            Some((start, end)) if !end.contains(':') => Ok(History::Range(start.parse()?, end.parse()?)),
            _ => Err(HistoryError::Malformed(text.to_owned())),
        }
    }
}

/// Timestamps between which lines are wanted, both exclusive: microseconds since 1970, `None` without a limit.
pub type Between = (Option<i64>, Option<i64>);

impl History {
    /// The timestamps, given what time it is and when checkpoints were; `None` if no past lines are wanted.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Reversed`].
    pub fn resolve(
        &self,
        now: i64,
        checkpoint: impl Fn(&CheckpointName) -> Option<i64>,
    ) -> Result<Option<Between>, HistoryError> {
        let at = |bound: &Bound| match bound {
            Bound::Open => Ok(None),
            Bound::Ago(micros) => Ok(Some(now.saturating_sub(*micros))),
            Bound::Checkpoint(name) => {
                checkpoint(name).map(Some).ok_or_else(|| HistoryError::Unknown(name.clone()))
            }
        };
        match self {
            History::None => Ok(None),
            History::Full => Ok(Some((None, None))),
            History::Range(start, end) => {
                let (start, end) = (at(start)?, at(end)?);
                if start.is_some_and(|start| start > end.unwrap_or(now)) {
                    return Err(HistoryError::Reversed);
                }
                Ok(Some((start, end)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<History, HistoryError> {
        text.parse()
    }

    #[test]
    fn the_grammar() {
        let name = |n: &str| Bound::Checkpoint(n.parse().unwrap());
        let cases = [
            ("none", History::None),
            ("NONE", History::None),
            ("Full", History::Full),
            (":", History::Range(Bound::Open, Bound::Open)),
            ("-10s:", History::Range(Bound::Ago(10_000_000), Bound::Open)),
            (":-2d", History::Range(Bound::Open, Bound::Ago(172_800_000_000))),
            ("-1h:-5m", History::Range(Bound::Ago(3_600_000_000), Bound::Ago(300_000_000))),
            ("start:end", History::Range(name("start"), name("end"))),
            ("cp1:", History::Range(name("cp1"), Bound::Open)),
            ("10s:", History::Range(name("10s"), Bound::Open)),
        ];
        for (text, range) in cases {
            assert_eq!(parse(text), Ok(range), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        let errors = [
            "",
            "now",
            "a:b:c",
            "-5:",
            "-5x:",
            "-:",
            "--5s:",
            "-s:",
            "-1.5h:",
            "-\u{e9}s:",
            "x:",
            "a b:",
            "-99999999d:",
        ];
        let messages: Vec<_> = errors.iter().map(|t| parse(t).unwrap_err().to_string()).collect();
        let beginning =
            |i: usize, text: &str| assert!(messages[i].starts_with(text), "{}: {}", errors[i], messages[i]);
        (0..3).for_each(|i| {
            beginning(i, &format!("'{}' is not a history range: use 'none', 'full' or", errors[i]))
        });
        (3..10).for_each(|i| {
            beginning(i, &format!("'{}' is not a relative date: ", errors[i].trim_end_matches(':')));
        });
        beginning(10, "'x' is not a valid name of a checkpoint: ");
        beginning(11, "'a b' is not a valid name of a checkpoint: ");
        beginning(12, "'-99999999d' is not a relative date");
    }

    #[test]
    fn bounds_become_timestamps() {
        let at = |name: &CheckpointName| (name.as_str() == "cp").then_some(500);
        let resolve = |text: &str| parse(text).unwrap().resolve(2_000_000, at);
        assert_eq!(resolve("none"), Ok(None));
        assert_eq!(resolve("full"), Ok(Some((None, None))));
        assert_eq!(resolve("cp:"), Ok(Some((Some(500), None))));
        assert_eq!(resolve("cp:cp"), Ok(Some((Some(500), Some(500)))));
        assert_eq!(resolve("cp:-1s"), Ok(Some((Some(500), Some(1_000_000)))));
        assert_eq!(resolve("-1s:cp"), Err(HistoryError::Reversed));
        let message = resolve("other:").unwrap_err().to_string();
        assert!(message.starts_with("there is not a checkpoint named 'other'"), "{message}");
        let future = parse("cp:").unwrap().resolve(100, at);
        assert_eq!(future, Err(HistoryError::Reversed), "a start in the future");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z0-9:smhd\u{e9} ]{0,8}") {
            let _ = parse(&text).map(|range| range.resolve(0, |_| Some(1)));
        }
    }
}
