//! How many lines an issuer may log: one node cannot fill the store.

/// A bucket of tokens, one for each line. Time is passed in, in microseconds of a clock that does not jump.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// Lines in a second.
    rate: u64,
    /// What is left, in millionths of a line.
    left: u64,
    filled: i64,
    dropped: u64,
    reported: Option<i64>,
}

/// Seconds of the rate that may come at once.
pub const BURST: u64 = 2;
/// Microseconds between two reports of lines that were dropped.
pub const REPORT_PERIOD: i64 = 10_000_000;

impl RateLimit {
    /// Allows so many lines a second, and [`BURST`] times as many at once.
    pub fn new(lines_per_second: u32, now: i64) -> RateLimit {
        let rate = u64::from(lines_per_second);
        RateLimit { rate, left: rate * BURST * 1_000_000, filled: now, dropped: 0, reported: None }
    }

    /// Whether one more line is allowed; if not, it is counted.
    pub fn admit(&mut self, now: i64) -> bool {
        let passed = u64::try_from(now.saturating_sub(self.filled)).unwrap_or(0);
        self.filled = self.filled.max(now);
        let full = self.rate * BURST * 1_000_000;
        self.left = self.left.saturating_add(passed.saturating_mul(self.rate)).min(full);
        let admitted = self.left >= 1_000_000;
        if admitted {
            self.left -= 1_000_000;
        } else {
            self.dropped += 1;
        }
        admitted
    }

    /// How many lines were dropped since the last report, if one is due: the store gets a line that says so, which does
    /// not count. Ask after each line, and from time to time.
    pub fn report(&mut self, now: i64) -> Option<u64> {
        let due = self.reported.is_none_or(|at| now.saturating_sub(at) >= REPORT_PERIOD);
        if self.dropped == 0 || !due {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

/// The line that reports what was dropped.
pub fn dropped_line(lines: u64, lines_per_second: u32) -> String {
    let (s, were) = if lines == 1 { ("", "was") } else { ("s", "were") };
    format!("<{lines} line{s} {were} dropped: more than {lines_per_second} lines per second>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limit = RateLimit::new(10, 0);
        let admitted = |limit: &mut RateLimit, now| (0..100).filter(|_| limit.admit(now)).count();
        assert_eq!(admitted(&mut limit, 0), 20);
        assert_eq!(admitted(&mut limit, 100_000), 1);
        assert_eq!(admitted(&mut limit, 1_100_000), 10);
        assert_eq!(admitted(&mut limit, 1_000_000_000), 20);
        assert_eq!(limit.report(1_000_000_000), Some(80 + 99 + 90 + 80));
        limit.admit(1_000_000_000);
        assert_eq!(limit.report(1_000_000_001), None, "too soon");
        assert_eq!(limit.report(1_010_000_000), Some(1));
        assert_eq!(limit.report(2_000_000_000), None, "nothing was dropped");
    }

    #[test]
    fn the_line_says_how_many() {
        assert_eq!(dropped_line(1, 5), "<1 line was dropped: more than 5 lines per second>");
        assert_eq!(dropped_line(20, 5), "<20 lines were dropped: more than 5 lines per second>");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            rate in 0u32..1000, steps in prop::collection::vec(-1000i64..100_000, 1..200),
        ) {
            let (mut limit, mut now, mut latest) = (RateLimit::new(rate, 0), 0i64, 0i64);
            let (mut admitted, mut asked) = (0u64, 0u64);
            for step in steps {
                now += step;
                latest = latest.max(now);
                asked += 1;
                admitted += u64::from(limit.admit(now));
                let allowed = u64::from(rate) * (BURST * 1_000_000 + latest as u64) / 1_000_000;
                prop_assert!(admitted <= allowed);
            }
            prop_assert_eq!(limit.report(latest).unwrap_or(0), asked - admitted);
        }
    }
}
