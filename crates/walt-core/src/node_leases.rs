//! Leases of nodes: until when the owner of a node wants it. (Leases of addresses are those of `walt-netboot`.)
//!
//! ```text
//! no lease ──▶ the node is its owner's without an end
//! lease ─────▶ active ──(its end, or its holder is silent for too long)──▶ over
//! ```
//! A lease that is over takes nothing away: the node stays its owner's, keeps its image and runs. It only says that
//! others may take the node without asking ([`crate::ownership`]).

use walt_types::{ClientTag, LeaseChange, Span, UserName};

/// Longest lease, from now.
pub const LEASE_MAX: Span = Span(366 * 86400);

/// The lease of a node. It counts while its user owns the node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLease {
    /// The owner of the node when the lease began.
    pub user: UserName,
    /// When it ends, in seconds since the epoch; never, if absent.
    pub ends: Option<f64>,
    /// The client that keeps it by heartbeat; it also ends with that client.
    pub hold: Option<Hold>,
}

/// A client that keeps nodes by heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// What the client calls it.
    pub tag: ClientTag,
    /// Seconds for which the client may be silent.
    pub silence: f64,
    /// When it was heard last, in seconds since the epoch.
    pub heard: f64,
}

/// Why the end of a lease cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// `+` and `-` need an end that they move.
    #[error("has a lease without an end")]
    NoEnd,
    /// It would end too late.
    #[error("cannot be leased for more than {LEASE_MAX}")]
    TooLong,
}

impl NodeLease {
    /// When it ends if its holder stays silent; never, if absent.
    pub fn end(&self) -> Option<f64> {
        let silent = self.hold.as_ref().map(|hold| hold.heard + hold.silence);
        match (self.ends, silent) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self, now: f64) -> bool {
        self.end().is_some_and(|end| end <= now)
    }

    /// The same lease after the end of its hold, at `now` or when the holder had been silent for too long.
    #[must_use]
    pub fn without_hold(&self, now: f64) -> Self {
        Self { user: self.user.clone(), ends: Some(self.end().map_or(now, |end| end.min(now))), hold: None }
    }
}

/// When a lease ends after a change; never, if absent.
///
/// # Errors
/// [`ChangeError`].
pub fn changed(lease: Option<&NodeLease>, change: LeaseChange, now: f64) -> Result<Option<f64>, ChangeError> {
    let end = || lease.and_then(|lease| lease.ends).ok_or(ChangeError::NoEnd);
    let ends = match change {
        LeaseChange::NoEnd => return Ok(None),
        LeaseChange::From(span) => now + seconds(span),
        LeaseChange::Later(span) => end()?.max(now) + seconds(span),
        // What is over stays over since then.
        LeaseChange::Earlier(span) => {
            let end = end()?;
            (end - seconds(span)).max(end.min(now))
        }
    };
    if ends > now + seconds(LEASE_MAX) { Err(ChangeError::TooLong) } else { Ok(Some(ends)) }
}

/// A span as seconds. Beyond 2^53 it is not exact, which is far above [`LEASE_MAX`].
fn seconds(span: Span) -> f64 {
    span.0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(ends: Option<f64>, hold: Option<(f64, f64)>) -> NodeLease {
        let hold = hold.map(|(heard, silence)| Hold { tag: "x".parse().unwrap(), silence, heard });
        NodeLease { user: "ann".parse().unwrap(), ends, hold }
    }

    #[test]
    fn ends() {
        for (lease, end) in [
            (lease(None, None), None),
            (lease(Some(100.0), None), Some(100.0)),
            (lease(None, Some((30.0, 60.0))), Some(90.0)),
            (lease(Some(100.0), Some((30.0, 60.0))), Some(90.0)),
            (lease(Some(80.0), Some((30.0, 60.0))), Some(80.0)),
        ] {
            assert_eq!(lease.end(), end);
            assert!(!lease.is_over(79.9));
            assert_eq!(lease.is_over(100.0), end.is_some());
            if let Some(end) = end {
                assert!(lease.is_over(end) && !lease.is_over(end - 0.1));
            }
        }
    }

    #[test]
    fn a_lease_whose_holder_has_gone_ends_at_once_or_when_it_was_missed() {
        let held = lease(None, Some((30.0, 60.0)));
        assert_eq!(held.without_hold(50.0), lease(Some(50.0), None));
        assert_eq!(held.without_hold(200.0), lease(Some(90.0), None));
    }

    #[test]
    fn changes() {
        let now = 1000.0;
        let (active, over, endless) =
            (lease(Some(1600.0), None), lease(Some(400.0), None), lease(None, Some((990.0, 60.0))));
        for (lease, change, ends) in [
            (Some(&active), "+10m", Ok(Some(2200.0))),
            (Some(&over), "+10m", Ok(Some(1600.0))),
            (Some(&active), "-5m", Ok(Some(1300.0))),
            (Some(&active), "-1h", Ok(Some(1000.0))),
            (Some(&over), "-5m", Ok(Some(400.0))),
            (Some(&active), "5m", Ok(Some(1300.0))),
            (None, "5m", Ok(Some(1300.0))),
            (Some(&active), "none", Ok(None)),
            (None, "none", Ok(None)),
            (None, "+5m", Err(ChangeError::NoEnd)),
            (Some(&endless), "-5m", Err(ChangeError::NoEnd)),
            (None, "366d", Ok(Some(1000.0 + 366.0 * 86400.0))),
            (None, "367d", Err(ChangeError::TooLong)),
            (Some(&active), "+366d", Err(ChangeError::TooLong)),
        ] {
            assert_eq!(changed(lease, change.parse().unwrap(), now), ends, "{change}");
        }
    }
}
