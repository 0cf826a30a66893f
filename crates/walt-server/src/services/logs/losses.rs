//! Lines that the store could not write: said when it begins, and when it is over.

use parking_lot::Mutex;
use std::time::{Duration, Instant};
use walt_logs::Error;

/// How long all lines have to be stored before it counts as over: on a disk that is almost full, small batches succeed.
const CALM: Duration = Duration::from_secs(10);

/// What was lost since the store last wrote everything.
#[derive(Default)]
pub struct Losses(Mutex<Option<Loss>>);

struct Loss {
    lines: u64,
    last: Instant,
}

impl Losses {
    /// Counts the outcome of an append of so many lines.
    pub fn count(&self, lines: u64, outcome: &Result<(), Error>) {
        let now = Instant::now();
        let mut loss = self.0.lock();
        match (outcome, &mut *loss) {
            // Who ends loses nothing that it has acknowledged. Lines behind a gap are sent again.
            (Err(Error::Closed | Error::Gap), _) | (Ok(()), None) => {}
            (Err(_), Some(loss)) => (loss.lines, loss.last) = (loss.lines + lines, now),
            (Err(e), None) => {
                *loss = Some(Loss { lines, last: now });
                tracing::error!("{e}");
            }
            (Ok(()), Some(Loss { last, .. })) if now.duration_since(*last) < CALM => {}
            (Ok(()), Some(Loss { lines, .. })) => {
                tracing::warn!("log lines are stored again: {lines} were lost");
                *loss = None;
            }
        }
    }
}
