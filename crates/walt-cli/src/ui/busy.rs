//! The busy indicator: `<label>... |` on one line of a terminal, erased before anything else is written.

use std::io::{self, Write};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Requests that take less time show nothing.
const DELAY: Duration = Duration::from_millis(300);
/// The label until the server sends one.
const DEFAULT_LABEL: &str = "Server is working";
/// Characters in a progress bar.
const BAR_WIDTH: usize = 24;
const SPINNER: [char; 4] = ['\\', '|', '/', '-'];
/// How long a disabled indicator sleeps at a time.
const IDLE: Duration = Duration::from_secs(3600);

/// The indicator; silent unless the command is interactive.
#[derive(Debug)]
pub struct Busy {
    enabled: bool,
    label: String,
    frame: usize,
    shown: bool,
    next: Option<Instant>,
}

impl Busy {
    /// An indicator that shows nothing yet.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, label: DEFAULT_LABEL.to_owned(), frame: 0, shown: false, next: None }
    }

    /// Shows nothing from now on.
    pub fn disable(&mut self) {
        self.clear();
        self.enabled = false;
    }

    /// Sets the label: what the server is busy with.
    pub fn label(&mut self, label: &str) {
        // Text of the server must not move the cursor.
        self.label = label.chars().filter(|c| !c.is_control()).collect();
    }

    /// Sets the progress: a bar if the total is known, else a count.
    pub fn progress(&mut self, label: &str, done: u64, total: u64) {
        self.label(&format!("{label} {}", bar(done, total)));
    }

    /// Waits until the next frame is due and draws it. May be dropped at any time.
    pub async fn tick(&mut self) {
        if !self.enabled {
            return tokio::time::sleep(IDLE).await;
        }
        let due = *self.next.get_or_insert_with(|| Instant::now() + DELAY);
        sleep_until(due).await;
        self.next = Some(Instant::now() + FRAME);
        self.frame += 1;
        self.shown = true;
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K{}", frame(&self.label, self.frame));
        let _ = stderr.flush();
    }

    /// Erases it; it appears again after [`DELAY`] if the work goes on.
    pub fn clear(&mut self) {
        if self.shown {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(b"\r\x1b[K");
            let _ = stderr.flush();
            self.shown = false;
        }
        self.next = None;
    }
}

/// Progress in megabytes, with a bar if the total is known.
fn bar(done: u64, total: u64) -> String {
    let mb = |bytes: u64| bytes / 1_000_000;
    if total == 0 {
        return format!("{} MB", mb(done));
    }
    let full = usize::try_from(done.min(total) * BAR_WIDTH as u64 / total).unwrap_or(BAR_WIDTH);
    format!("[{}{}] {}/{} MB", "#".repeat(full), " ".repeat(BAR_WIDTH - full), mb(done), mb(total))
}

fn frame(label: &str, number: usize) -> String {
    format!("{label}... {}", SPINNER[number % SPINNER.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill() {
        assert_eq!(bar(3_500_000, 0), "3 MB");
        assert_eq!(bar(0, 8_000_000), format!("[{}] 0/8 MB", " ".repeat(24)));
        assert_eq!(bar(4_000_000, 8_000_000), "[############            ] 4/8 MB");
        assert_eq!(bar(9_000_000, 8_000_000), format!("[{}] 9/8 MB", "#".repeat(24)));
    }

    #[test]
    fn frames_turn() {
        assert_eq!(frame("Searching", 0), "Searching... \\");
        assert_eq!(frame("Searching", 5), "Searching... |");
    }
}
