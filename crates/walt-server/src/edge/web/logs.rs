//! `/api/v1/logs`: its parameters.
//!
//! | parameter | |
//! |---|---|
//! | `from`, `to` | numbers, needed: lines between these moments, since 1970 in `ts_unit`, without the moments themselves |
//! | `ts_unit` | `s` (default) or `ms`: the unit of `from`, `to` and of all timestamps |
//! | `issuer` | lines of this device; an unknown one has none |
//! | `stream` | streams whose whole name matches this regular expression |
//! | `limit` | most lines of the answer, at most [`LINES_MAX`] |
//! | `page` | `next_page` of the answer before |

use crate::edge::web::{error::Refusal, filter::parameters};
use axum::http::Uri;
use walt_logs::Pattern;

/// Most lines of one answer, unless it is a stream.
pub const LINES_MAX: usize = 100_000;
/// No log is older: the existing system began on 2012-06-18 (seconds since 1970).
const FIRST: f64 = 1_340_000_000.0;
/// How far ahead of the server a moment may be: clocks differ.
const AHEAD_S: f64 = 2.0;

/// Names of the parameters.
const NAMES: [&str; 7] = ["from", "to", "ts_unit", "issuer", "stream", "limit", "page"];

/// The unit of timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    fn microseconds(self) -> f64 {
        match self {
            Self::Seconds => 1e6,
            Self::Milliseconds => 1e3,
        }
    }

    /// A timestamp in this unit, of one in microseconds since 1970.
    pub fn show(self, timestamp: i64) -> f64 {
        timestamp as f64 / self.microseconds()
    }
}

/// Which lines a request wants.
#[derive(Debug)]
pub struct Wanted {
    /// Only lines after this moment, in microseconds since 1970.
    pub from: i64,
    /// Only lines before this one.
    pub to: i64,
    /// The unit of the answer.
    pub unit: Unit,
    /// Only lines of this device.
    pub issuer: Option<String>,
    /// Only streams whose name this matches.
    pub stream: Option<Pattern>,
    /// Most lines of the answer.
    pub limit: Option<usize>,
    /// Only what is behind the line with this timestamp and number.
    pub behind: Option<(i64, u64)>,
}

impl Wanted {
    /// What the query of a request says, at the moment `now` in seconds since 1970.
    ///
    /// # Errors
    /// A parameter is missing, unknown or wrong.
    pub fn of(uri: &Uri, now: f64) -> Result<Self, Refusal> {
        let all = parameters(uri)?;
        if let Some((name, _)) = all.iter().find(|(name, _)| !NAMES.contains(&name.as_str())) {
            let known = NAMES.join(", ");
            return Err(Refusal::bad_request(format!("Unknown parameter '{name}'; there are: {known}.")));
        }
        let get = |name: &str| all.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let unit = match get("ts_unit") {
            None | Some("s") => Unit::Seconds,
            Some("ms") => Unit::Milliseconds,
            Some(other) => return Err(wrong("ts_unit", other, "s or ms")),
        };
        let stream = get("stream").map(|text| {
            // The whole name. First alone: `a)|(b` must not escape the anchors.
            let whole = Pattern::new(text).and_then(|_| Pattern::new(&format!("^(?:{text})$")));
            whole.map_err(|e| wrong("stream", text, &format!("a regular expression ({e})")))
        });
        let limit = get("limit").map(|text| {
            let number = text.parse().ok().filter(|number| (1..=LINES_MAX).contains(number));
            number.ok_or_else(|| wrong("limit", text, &format!("a number from 1 to {LINES_MAX}")))
        });
        let behind = get("page")
            .map(|text| page_of(text).ok_or_else(|| wrong("page", text, "next_page of an earlier answer")));
        Ok(Self {
            from: moment("from", get("from"), unit, now)?,
            to: moment("to", get("to"), unit, now)?,
            unit,
            issuer: get("issuer").map(str::to_owned),
            stream: stream.transpose()?,
            limit: limit.transpose()?,
            behind: behind.transpose()?,
        })
    }
}

/// The name of the page that begins behind the line with this timestamp and number.
pub fn next_page((timestamp, seq): (i64, u64)) -> String {
    format!("{timestamp}.{seq}")
}

fn page_of(text: &str) -> Option<(i64, u64)> {
    let (timestamp, seq) = text.split_once('.')?;
    Some((timestamp.parse().ok()?, seq.parse().ok()?))
}

fn wrong(name: &str, value: &str, must_be: &str) -> Refusal {
    Refusal::bad_request(format!("'{value}' is not a value of '{name}': it must be {must_be}."))
}

/// A moment in microseconds since 1970.
fn moment(name: &str, value: Option<&str>, unit: Unit, now: f64) -> Result<i64, Refusal> {
    let Some(text) = value else {
        return Err(Refusal::bad_request(format!("The parameter '{name}' is needed: a moment, since 1970.")));
    };
    let number: f64 = text.parse().map_err(|_| wrong(name, text, "a number"))?;
    let microseconds = number * unit.microseconds();
    // NaN is in no range.
    if (FIRST * 1e6..=(now + AHEAD_S) * 1e6).contains(&microseconds) {
        return Ok(microseconds as i64);
    }
    let hint = match unit {
        Unit::Seconds => "seconds since 1970; for milliseconds, set ts_unit=ms",
        Unit::Milliseconds => "milliseconds since 1970",
    };
    Err(wrong(name, text, &format!("a moment after 2012-06-18 and not in the future, in {hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn wanted(query: &str) -> Result<Wanted, String> {
        Wanted::of(&format!("/api/v1/logs{query}").parse().unwrap(), NOW).map_err(|e| {
            assert_eq!(e.status, 400);
            e.message
        })
    }

    #[test]
    fn moments_in_both_units() {
        let seconds = wanted("?from=1799999000.5&to=1800000002").unwrap();
        assert_eq!((seconds.from, seconds.to), (1_799_999_000_500_000, 1_800_000_002_000_000));
        assert_eq!((seconds.unit, seconds.limit, seconds.behind), (Unit::Seconds, None, None));
        assert!(seconds.issuer.is_none() && seconds.stream.is_none());
        let ms = wanted("?from=1799999000500&to=1800000002000&ts_unit=ms").unwrap();
        assert_eq!((ms.from, ms.to, ms.unit), (seconds.from, seconds.to, Unit::Milliseconds));
        assert_eq!(Unit::Seconds.show(1_799_999_000_500_000), 1_799_999_000.5);
        assert_eq!(Unit::Milliseconds.show(1_799_999_000_500_000), 1_799_999_000_500.0);
    }

    #[test]
    fn streams_by_their_whole_name() {
        let stream = |text: &str| {
            wanted(&format!("?from=1340000000&to=1340000000&stream={text}")).unwrap().stream.unwrap()
        };
        assert!(stream("net.*").matches(b"netconsole") && !stream("net").matches(b"netconsole"));
        assert!(!stream("a%7Cb").matches(b"ab") && stream("a%7Cb").matches(b"b"));
        let all = wanted("?from=1340000000&to=1340000000&issuer=vn1&stream=&limit=7&page=12.34").unwrap();
        assert_eq!((all.issuer.as_deref(), all.limit, all.behind), (Some("vn1"), Some(7), Some((12, 34))));
        assert!(all.stream.is_none());
        assert_eq!(page_of(&next_page((12, 34))), Some((12, 34)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let range = "from=1340000000&to=1340000001";
        for (query, says) in [
            ("".to_owned(), "The parameter 'from' is needed"),
            ("?from=1340000000&to=".to_owned(), "The parameter 'to' is needed"),
            ("?from=now&to=1340000000".to_owned(), "'now' is not a value of 'from': it must be a number."),
            (
                "?from=NaN&to=1340000000".to_owned(),
                "'NaN' is not a value of 'from': it must be a moment after 2012-06-18",
            ),
            ("?from=1339999999&to=1340000000".to_owned(), "'1339999999' is not a value of 'from'"),
            ("?from=1340000000&to=1800000002.1".to_owned(), "'1800000002.1' is not a value of 'to'"),
            ("?from=1340000000000&to=1340000001000".to_owned(), "set ts_unit=ms"),
            (format!("?{range}&ts_unit=us"), "'us' is not a value of 'ts_unit': it must be s or ms."),
            (format!("?{range}&stream=("), "'(' is not a value of 'stream': it must be a regular expression"),
            (
                format!("?{range}&stream=a)|(b"),
                "'a)|(b' is not a value of 'stream': it must be a regular expression",
            ),
            (
                format!("?{range}&limit=0"),
                "'0' is not a value of 'limit': it must be a number from 1 to 100000.",
            ),
            (format!("?{range}&limit=100001"), "'100001' is not a value of 'limit'"),
            (
                format!("?{range}&page=x"),
                "'x' is not a value of 'page': it must be next_page of an earlier answer.",
            ),
            (
                format!("?{range}&lines=1"),
                "Unknown parameter 'lines'; there are: from, to, ts_unit, issuer, ",
            ),
            (format!("?{range}&from=1"), "The parameter 'from' is there twice."),
        ] {
            let message = wanted(&query).unwrap_err();
            assert!(message.contains(says), "{query}: {message}");
        }
    }
}
