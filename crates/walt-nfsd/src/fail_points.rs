//! Points at which a crash test ends the server, as `kill -9` would.

use std::sync::OnceLock;

/// Environment variable of crash tests: `<point>:<NFS procedure number>`. The process ends when a call of
/// this procedure gets to the point.
const VARIABLE: &str = "WALT_FAIL_NFS";

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A call that must not run twice was done; its result is not in the ring.
    Executed,
    /// Its result is in the ring.
    Recorded,
    /// The answer to any call is ready and not sent.
    Unanswered,
}

impl Point {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "executed" => Self::Executed,
            "recorded" => Self::Recorded,
            "unanswered" => Self::Unanswered,
            _ => return None,
        })
    }
}

/// A call of `procedure` is at `point`.
pub fn point(point: Point, procedure: u32) {
    static WANTED: OnceLock<Option<(Point, u32)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, procedure) = text.split_once(':')?;
        Some((Point::named(name)?, procedure.parse().ok()?))
    });
    if *wanted == Some((point, procedure)) {
        std::process::abort();
    }
}
