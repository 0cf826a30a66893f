//! The stream of events of an action.

use crate::base::{operations::Operation, terminal::ToClient};
use std::sync::Arc;
use tokio::{sync::mpsc, task::JoinHandle};
use walt_api::{
    Event, FoundImage,
    resource::ItemResult,
    term::{STDOUT, ServerMessage},
};

/// Events that may wait for a slow client before the action waits too.
pub const QUEUE: usize = 64;

/// The sending end of an action's events. Without a client, sending is a no-op.
#[derive(Clone)]
pub struct Events {
    to: mpsc::Sender<Event>,
    operation: Option<Arc<Operation>>,
}

impl Events {
    /// A new stream and its receiving end.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (tx, rx) = mpsc::channel(QUEUE);
        (Self { to: tx, operation: None }, rx)
    }
    /// The same stream for this operation: others see how far it is. It is over once all its senders are gone.
    #[must_use]
    pub fn of(self, operation: Operation) -> Self {
        Self { operation: Some(Arc::new(operation)), ..self }
    }
    /// Whether the client has disconnected.
    pub fn is_gone(&self) -> bool {
        self.to.is_closed()
    }
    /// A result, for standard output.
    pub async fn out(&self, text: impl Into<String>) {
        self.send(Event::Out { text: text.into() }).await;
    }
    /// A note, for standard error.
    pub async fn note(&self, text: impl Into<String>) {
        self.send(Event::Note { text: text.into() }).await;
    }
    /// What the server is doing.
    pub async fn busy(&self, label: impl Into<String>) {
        self.send(Event::Busy { label: label.into() }).await;
    }
    /// Progress in bytes; a `total` of 0 is unknown.
    pub async fn progress(&self, label: &str, done: u64, total: u64) {
        self.send(Event::Progress { label: label.to_owned(), done, total }).await;
    }
    /// A result of a search.
    pub async fn found(&self, image: FoundImage) {
        self.send(Event::Found { image }).await;
    }
    /// What became of one node or image; [`Events::out`] or [`Events::note`] says it to people.
    pub async fn item(&self, item: ItemResult) {
        self.send(Event::Item { item }).await;
    }
    /// A stream that is forwarded to a terminal: results as output, notes as notes.
    pub fn to_terminal(to: ToClient) -> (Self, JoinHandle<()>) {
        let (events, mut receiver) = Self::channel();
        let forwarding = tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                match event {
                    Event::Out { text } => drop(to.output(STDOUT, format!("{text}\n").as_bytes()).await),
                    Event::Note { text } => drop(to.message(&ServerMessage::Note { text }).await),
                    Event::Busy { label } => drop(to.message(&ServerMessage::Busy { label }).await),
                    Event::Progress { label, done, total } => {
                        let mb = |bytes: u64| bytes / 1_000_000;
                        let of = if total == 0 { String::new() } else { format!("/{}", mb(total)) };
                        let label = format!("{label} {}{of} MB", mb(done));
                        let _ = to.message(&ServerMessage::Busy { label }).await;
                    }
                    // The terminal has its own messages for the end.
                    _ => {}
                }
            }
        });
        (events, forwarding)
    }
    async fn send(&self, event: Event) {
        match (&self.operation, &event) {
            (Some(operation), Event::Busy { label }) => operation.says(label, None),
            (Some(operation), Event::Progress { label, done, total }) => {
                operation.says(label, Some((*done, *total)));
            }
            _ => {}
        }
        let _gone = self.to.send(event).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_action_waits_for_a_client_that_does_not_read() {
        let (events, mut client) = Events::channel();
        for n in 0..QUEUE {
            events.out(n.to_string()).await;
        }
        tokio::select! {
            biased;
            () = events.out("one more") => panic!("there was room for more than {QUEUE}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(client.len(), QUEUE);
        client.recv().await.unwrap();
        events.out("room again").await;
        // Nobody waits for a client that has gone.
        drop(client);
        events.out("unheard").await;
    }
}
