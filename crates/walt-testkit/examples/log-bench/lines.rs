//! The lines of the measurement: the same for both sides.

#[path = "../../../walt-logs/examples/shared/line.rs"]
mod line;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines at the end that stand apart.
pub const TAIL: usize = 1000;
/// Streams, and connections.
pub const STREAMS: usize = 100;
/// Microseconds that the lines take, and that lie before the tail.
const SPAN: i64 = 3_600_000_000;
const GAP: i64 = 10_000_000;

/// Lines by their number, and when they were logged, in microseconds since 1970.
pub struct Lines {
    pub total: usize,
    start: i64,
}

impl Lines {
    /// So many in the last hour.
    pub fn ending_now(total: usize) -> Self {
        assert!(total > 2 * TAIL, "{total} lines are too few");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 * 1_000_000;
        Self { total, start: now - SPAN - 3 * GAP }
    }
    /// The first one's time.
    pub fn start(&self) -> i64 {
        self.start
    }
    /// A whole second behind which only the tail is.
    pub fn tail(&self) -> i64 {
        self.start + SPAN + GAP / 2
    }
    /// When a line was logged. Whole seconds have none: they may be bounds.
    pub fn at(&self, i: usize) -> i64 {
        let step = SPAN / (self.total - TAIL) as i64;
        let at = if i < self.total - TAIL { i as i64 * step } else { SPAN + GAP + (i as i64) % TAIL as i64 };
        self.start + at / 1_000_000 * 1_000_000 + (at % 1_000_000).max(1)
    }
    pub fn stream(i: usize) -> usize {
        i % STREAMS
    }
    /// Its bytes, without a newline.
    pub fn text(i: usize) -> String {
        line::line(i)
    }
    /// Bounds of a minute in the middle.
    pub fn minute(&self) -> (i64, i64) {
        let from = self.start + SPAN / 2;
        (from, from + 60_000_000)
    }
    /// Writes the first lines to a file; about so many, so that a whole second bounds them, which is returned.
    pub fn write_text(&self, path: &Path, count: usize) -> i64 {
        let bound = self.at(count - 1) / 1_000_000 * 1_000_000;
        let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
        (0..count)
            .take_while(|i| self.at(*i) < bound)
            .for_each(|i| writeln!(file, "{}", Self::text(i)).unwrap());
        file.flush().unwrap();
        bound
    }

    pub fn last_rows(&self) -> String {
        format!("SELECT line FROM logs WHERE timestamp > {} ORDER BY timestamp", self.tail())
    }
    pub fn rows_of_minute(&self, stream: usize) -> String {
        let (from, to) = self.minute();
        format!(
            "SELECT line FROM logs WHERE timestamp > {from} AND timestamp < {to} AND stream = {stream} ORDER BY timestamp"
        )
    }
    pub fn rows_like(&self, expression: &str, bound: i64) -> String {
        format!(
            "SELECT line FROM logs WHERE timestamp < {bound} AND line ~ '{expression}' ORDER BY timestamp"
        )
    }
}
