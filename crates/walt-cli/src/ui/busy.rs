//! The busy indicator: `<label>... |` on one line of a terminal, erased before anything else is written.

use std::io::{self, Write};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Requests that take less show nothing.
const PATIENCE: Duration = Duration::from_millis(300);
/// What is shown as long as the server says nothing better.
const DEFAULT_LABEL: &str = "Server is working";
const WHEEL: [char; 4] = ['\\', '|', '/', '-'];
/// How long a disabled indicator sleeps at a time.
const NEVER: Duration = Duration::from_secs(3600);

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

    /// Says what the server is busy with.
    pub fn label(&mut self, label: &str) {
        // The server's words must not move our cursor.
        self.label = label.chars().filter(|c| !c.is_control()).collect();
    }

    /// Waits until the next frame is due and draws it. May be dropped at any time.
    pub async fn tick(&mut self) {
        if !self.enabled {
            return tokio::time::sleep(NEVER).await;
        }
        let due = *self.next.get_or_insert_with(|| Instant::now() + PATIENCE);
        sleep_until(due).await;
        self.next = Some(Instant::now() + FRAME);
        self.frame += 1;
        self.shown = true;
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K{}", frame(&self.label, self.frame));
        let _ = stderr.flush();
    }

    /// Erases it; it comes back after a while if the work goes on.
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

fn frame(label: &str, number: usize) -> String {
    format!("{label}... {}", WHEEL[number % WHEEL.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_turn() {
        assert_eq!(frame("Searching", 0), "Searching... \\");
        assert_eq!(frame("Searching", 5), "Searching... |");
    }
}
