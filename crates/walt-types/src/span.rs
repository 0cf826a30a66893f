//! Spans of time as users write them, and changes of leases of nodes made of them.
//!
//! ```text
//! span   = 1*DIGIT unit            ; 30s, 5m, 12h, 7d
//! unit   = "s" / "m" / "h" / "d"
//! change = "+" span / "-" span / span / "none"
//! ```

use crate::ParseError;
use std::fmt;
use std::str::FromStr;

/// Units and their seconds, the largest first.
const UNITS: [(char, u64); 4] = [('d', 86400), ('h', 3600), ('m', 60), ('s', 1)];

/// A span of time in seconds, written with a unit: `30s`, `5m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl FromStr for Span {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError(format!("'{text}' must be a time span, such as 30s, 5m, 12h or 7d"));
        let (end, unit) = text.char_indices().next_back().ok_or_else(bad)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let digits = &text[..end];
        // FromStr of numbers also takes a sign.
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let count: u64 = digits.parse().map_err(|_| bad())?;
        count.checked_mul(*seconds).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Invariant: 1 divides everything.
        let exact = UNITS.iter().find(|(_, seconds)| self.0.is_multiple_of(*seconds) && self.0 > 0);
        let (unit, seconds) = exact.copied().unwrap_or(('s', 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

crate::serde_by_text!(Span);

/// How the end of a lease of nodes changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// `+1h`: it ends later. If it has ended, the span begins now.
    Later(Span),
    /// `-30m`: it ends earlier.
    Earlier(Span),
    /// `2h`: it ends after this span, from now.
    From(Span),
    /// `none`: it has no end.
    NoEnd,
}

impl FromStr for LeaseChange {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::NoEnd);
        }
        let (make, span): (fn(Span) -> Self, &str) = match text.split_at_checked(1) {
            Some(("+", span)) => (Self::Later, span),
            Some(("-", span)) => (Self::Earlier, span),
            _ => (Self::From, text),
        };
        span.parse().map(make).map_err(|_| {
            ParseError(format!(
                "'{text}' must be +1h (later), -30m (earlier), 2h (from now) or none; units are s, m, h and d"
            ))
        })
    }
}

impl fmt::Display for LeaseChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(span) => write!(f, "+{span}"),
            Self::Earlier(span) => write!(f, "-{span}"),
            Self::From(span) => write!(f, "{span}"),
            Self::NoEnd => f.write_str("none"),
        }
    }
}

crate::serde_by_text!(LeaseChange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, seconds, shown) in [
            ("30s", 30, "30s"),
            ("90s", 90, "90s"),
            ("120m", 7200, "2h"),
            ("24h", 86400, "1d"),
            ("7d", 604_800, "7d"),
            ("0s", 0, "0s"),
            ("0d", 0, "0s"),
        ] {
            assert_eq!(text.parse(), Ok(Span(seconds)), "{text}");
            assert_eq!(Span(seconds).to_string(), shown);
        }
        for bad in ["", "s", "7", "+5s", "-5s", "5 s", "1h30m", "5é", "1.5h", "5H", "300000000000000000d"] {
            let error = bad.parse::<Span>().expect_err(bad).to_string();
            assert_eq!(error, format!("'{bad}' must be a time span, such as 30s, 5m, 12h or 7d"));
        }
    }

    #[test]
    fn changes() {
        for (text, change) in [
            ("+1h", LeaseChange::Later(Span(3600))),
            ("-30m", LeaseChange::Earlier(Span(1800))),
            ("2h", LeaseChange::From(Span(7200))),
            ("none", LeaseChange::NoEnd),
        ] {
            assert_eq!(text.parse(), Ok(change));
            assert_eq!(change.to_string(), text);
        }
        assert_eq!("NONE".parse(), Ok(LeaseChange::NoEnd));
        for bad in ["", "+", "-", "++1h", "+-1h", "1", "é", "+none", "no"] {
            let error = bad.parse::<LeaseChange>().expect_err(bad).to_string();
            assert!(error.starts_with(&format!("'{bad}' must be +1h (later), ")), "{error}");
        }
    }
}
