//! This process: since when it runs, and the order to end.

use crate::base::time::now;
use tokio::sync::Notify;

/// What concerns the process as a whole.
pub struct Process {
    started: i64,
    down: Notify,
}

impl Process {
    /// The process starts now.
    pub fn start() -> Self {
        Self { started: now() as i64, down: Notify::new() }
    }

    /// When it was started, in seconds since the epoch.
    pub fn started(&self) -> i64 {
        self.started
    }

    /// Orders the end, for `walt-server down`.
    pub fn take_down(&self) {
        self.down.notify_one();
    }

    /// Resolves when the end was ordered.
    pub async fn down_wanted(&self) {
        self.down.notified().await;
    }
}
