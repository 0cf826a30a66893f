//! Lines of the server itself on their way to the log store: what happens on the platform, and its own log.
//!
//! ```text
//! services, actions ──say──▶ queue ──take──▶ services::logs ──▶ store
//! tracing ──────────Layer──▶
//! ```
//! Whoever says something never waits: when the queue is full, lines are counted and dropped, and one line says how many.

use crate::base::{recent_log, time};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;

/// Lines that may wait for the store.
pub const QUEUE_MAX: usize = 8192;
/// Longest line, in bytes; the rest is cut off.
pub const LINE_MAX: usize = 8192;

/// Stream of what happens to nodes.
pub const NODES: &str = "platform.nodes";
/// Stream of what happens to images.
pub const IMAGES: &str = "platform.images";
/// Stream of devices: new ones, and changes of them.
pub const DEVICES: &str = "platform.devices";
/// Stream of exposed ports.
pub const EXPOSE: &str = "platform.expose";

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its stream.
    pub stream: &'static str,
    /// Microseconds since 1970.
    pub at: i64,
    /// Its text.
    pub text: String,
}

/// A queue of lines.
#[derive(Default)]
pub struct Journal {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    dropped: u64,
}

/// The lines of the server's own log, which is one for the process.
pub static DAEMON: Journal = Journal::new();

impl Journal {
    /// An empty one.
    pub const fn new() -> Self {
        let queue = Queue { lines: VecDeque::new(), dropped: 0 };
        Self { queue: Mutex::new(queue), filled: Notify::const_new() }
    }

    /// Adds a line, or several if the text has several.
    pub fn say(&self, stream: &'static str, text: &str) {
        let at = time::now_micros();
        let mut queue = self.queue.lock();
        for line in text.split('\n').filter(|line| !line.trim_end().is_empty()) {
            if queue.lines.len() >= QUEUE_MAX {
                queue.dropped += 1;
                continue;
            }
            let text = line[..line.floor_char_boundary(LINE_MAX)].to_owned();
            queue.lines.push_back(Line { stream, at, text });
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes all lines. If some were dropped, the last one says so.
    pub fn take(&self) -> Vec<Line> {
        let mut queue = self.queue.lock();
        let mut lines: Vec<Line> = std::mem::take(&mut queue.lines).into();
        let dropped = std::mem::take(&mut queue.dropped);
        if dropped > 0
            && let Some(last) = lines.last().cloned()
        {
            let text = format!("<{dropped} lines of the server were dropped: the log store is too slow>");
            lines.push(Line { text, ..last });
        }
        lines
    }

    /// Waits until there may be lines.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}

/// Copies the server's own log into [`DAEMON`].
pub struct Layer;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let stream = match *event.metadata().level() {
            Level::ERROR => "daemon.error",
            Level::WARN => "daemon.warning",
            Level::INFO => "daemon.info",
            _ => "daemon.debug",
        };
        DAEMON.say(stream, &recent_log::text(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_in_order_and_the_rest_is_counted() {
        let journal = Journal::new();
        journal.say(NODES, "one\n\ntwo");
        journal.say(IMAGES, &"\u{e9}".repeat(LINE_MAX));
        let lines = journal.take();
        let texts: Vec<_> = lines.iter().map(|l| (l.stream, l.text.len())).collect();
        assert_eq!(texts, [(NODES, 3), (NODES, 3), (IMAGES, LINE_MAX)]);
        assert!(journal.take().is_empty());
        for _ in 0..QUEUE_MAX + 3 {
            journal.say(NODES, "x");
        }
        let lines = journal.take();
        assert_eq!(lines.len(), QUEUE_MAX + 1);
        let last = &lines[QUEUE_MAX].text;
        assert_eq!(last, "<3 lines of the server were dropped: the log store is too slow>");
    }

    #[test]
    fn the_log_of_the_server_by_level() {
        use tracing_subscriber::layer::SubscriberExt;
        let subscriber = tracing_subscriber::registry().with(Layer);
        let mark = format!("mark {}", std::process::id());
        tracing::subscriber::with_default(subscriber, || tracing::warn!(node = %"vn1", "{mark}"));
        let lines = DAEMON.take();
        let line = lines.iter().find(|l| l.text.starts_with(&mark)).unwrap();
        assert_eq!(
            (line.stream, line.text.as_str()),
            ("daemon.warning", format!("{mark} node=vn1").as_str())
        );
    }
}
