//! The server process: its start time, and the request to end.

use crate::base::time::now;
use tokio::sync::Notify;

/// State of the process as a whole.
pub struct Process {
    started: i64,
    down: Notify,
}

impl Process {
    /// A process that starts now.
    pub fn start() -> Self {
        Self { started: now() as i64, down: Notify::new() }
    }

    /// Start time, in seconds since the epoch.
    pub fn started(&self) -> i64 {
        self.started
    }

    /// Requests the end, for `walt-server down`.
    pub fn take_down(&self) {
        self.down.notify_one();
    }

    /// Resolves when the end is requested.
    pub async fn down_wanted(&self) {
        self.down.notified().await;
    }
}
