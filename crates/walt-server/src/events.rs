//! The stream of events an action answers with.

use tokio::sync::mpsc;
use walt_api::Event;

/// Events that may wait for a slow client before the action waits too.
pub const QUEUE: usize = 64;

/// Where an action writes what happens. A client that has gone makes writing a no-op.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// A new stream and its reading end.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (tx, rx) = mpsc::channel(QUEUE);
        (Self(tx), rx)
    }
    /// A result, for standard output.
    pub async fn out(&self, text: impl Into<String>) {
        self.send(Event::Out { text: text.into() }).await;
    }
    /// A note, for standard error.
    pub async fn note(&self, text: impl Into<String>) {
        self.send(Event::Note { text: text.into() }).await;
    }
    /// What the server is busy with.
    pub async fn busy(&self, label: impl Into<String>) {
        self.send(Event::Busy { label: label.into() }).await;
    }
    async fn send(&self, event: Event) {
        let _gone = self.0.send(event).await;
    }
}
