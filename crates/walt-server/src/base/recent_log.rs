//! The last warnings and errors, for `walt-server status`: a ring buffer in memory, filled by a tracing layer.

use crate::base::time;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt::{Debug, Write},
};
use tracing::{Event, Level, Subscriber, field::Visit};
use tracing_subscriber::layer::Context;
use walt_api::LogEntry;

/// Entries kept; older ones are dropped.
const MAX_ENTRIES: usize = 50;
/// Longest message kept, in characters.
const MAX_MESSAGE: usize = 1000;

struct Entry {
    time: i64,
    level: Level,
    message: String,
    times: u32,
}

static RING: Mutex<VecDeque<Entry>> = Mutex::new(VecDeque::new());

/// Records events in the ring buffer, which is global like the log.
pub struct Layer;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let message = text(event).chars().take(MAX_MESSAGE).collect();
        let mut ring = RING.lock();
        add(&mut ring, time::now() as i64, *event.metadata().level(), message);
    }
}

fn add(ring: &mut VecDeque<Entry>, time: i64, level: Level, message: String) {
    if let Some(last) = ring.back_mut()
        && last.message == message
        && last.level == level
    {
        (last.time, last.times) = (time, last.times.saturating_add(1));
        return;
    }
    if ring.len() == MAX_ENTRIES {
        ring.pop_front();
    }
    ring.push_back(Entry { time, level, message, times: 1 });
}

/// All entries, oldest first.
pub fn entries() -> Vec<LogEntry> {
    let ring = RING.lock();
    ring.iter()
        .map(|entry| LogEntry {
            time: time::local_time(entry.time),
            level: if entry.level == Level::ERROR { "error" } else { "warning" }.into(),
            message: entry.message.clone(),
            times: entry.times,
        })
        .collect()
}

/// The message of an event, and its fields.
pub(super) fn text(event: &Event<'_>) -> String {
    let mut text = Text::default();
    event.record(&mut text);
    text.message + &text.fields
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_counts_what_repeats() {
        let mut ring = VecDeque::new();
        for n in 0..MAX_ENTRIES + 3 {
            add(&mut ring, n as i64, Level::WARN, n.to_string());
        }
        for time in [100, 200] {
            add(&mut ring, time, Level::ERROR, "again".into());
        }
        assert_eq!(ring.len(), MAX_ENTRIES);
        assert_eq!(ring[0].message, "4");
        let last = ring.back().unwrap();
        assert_eq!((last.time, last.times, last.level), (200, 2, Level::ERROR));
    }

    #[test]
    fn what_is_logged_is_kept() {
        use tracing_subscriber::layer::SubscriberExt;
        let subscriber = tracing_subscriber::registry().with(Layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(port = 111, "of this test: {}", "held");
        });
        let found = entries().into_iter().find(|e| e.message == "of this test: held port=111");
        assert_eq!(found.map(|e| e.level), Some("warning".to_owned()));
    }
}
