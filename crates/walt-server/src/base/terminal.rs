//! The two halves of a terminal's channel to its client: see [`walt_api::term`].

use axum::extract::ws::{Message, WebSocket};
use futures_util::{StreamExt, stream::SplitStream};
use tokio::sync::mpsc;
use walt_api::term::{ClientMessage, NODE_NUMBER, STDIN, ServerMessage};

/// Messages that may wait for a slow client before the program waits.
const OUTPUT_QUEUE: usize = 64;

/// Input from a client.
pub enum Input {
    /// Bytes for the program's standard input.
    Bytes(Vec<u8>),
    /// A message.
    Message(ClientMessage),
}

/// The sending half: messages and output for the client.
#[derive(Clone)]
pub struct ToClient(mpsc::Sender<Message>);

impl ToClient {
    /// A new half, and the queue of its messages.
    pub fn channel() -> (Self, mpsc::Receiver<Message>) {
        let (tx, rx) = mpsc::channel(OUTPUT_QUEUE);
        (Self(tx), rx)
    }
    /// Sends a message; false if the client has disconnected.
    pub async fn message(&self, message: &ServerMessage) -> bool {
        // Invariant: messages are plain structs of strings, which JSON can always express.
        let text = serde_json::to_string(message).expect("a message is JSON");
        self.0.send(Message::Text(text.into())).await.is_ok()
    }
    /// Sends output of a program; false if the client has disconnected.
    pub async fn output(&self, channel: u8, bytes: &[u8]) -> bool {
        let mut framed = Vec::with_capacity(bytes.len() + 1);
        framed.push(channel);
        framed.extend_from_slice(bytes);
        self.0.send(Message::Binary(framed.into())).await.is_ok()
    }
    /// Sends output of the program on one of several nodes; false if the client has disconnected.
    pub async fn node_output(&self, channel: u8, node: usize, bytes: &[u8]) -> bool {
        let mut framed = Vec::with_capacity(bytes.len() + 1 + NODE_NUMBER);
        framed.push(channel);
        framed.extend_from_slice(&(node as u32).to_be_bytes());
        framed.extend_from_slice(bytes);
        self.0.send(Message::Binary(framed.into())).await.is_ok()
    }
}

/// The receiving half: what the client sends.
pub struct FromClient(SplitStream<WebSocket>);

impl FromClient {
    /// The receiving half of an open WebSocket.
    pub fn new(stream: SplitStream<WebSocket>) -> Self {
        Self(stream)
    }

    /// The next input; none when the client has disconnected.
    pub async fn next(&mut self) -> Option<Input> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Binary(bytes) => match bytes.split_first() {
                    Some((&STDIN, rest)) => return Some(Input::Bytes(rest.to_vec())),
                    _ => continue,
                },
                Message::Text(text) => match serde_json::from_str(&text) {
                    Ok(message) => return Some(Input::Message(message)),
                    Err(e) => tracing::debug!("cannot understand a terminal message: {e}"),
                },
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_api::term::STDOUT;

    #[tokio::test]
    async fn a_program_waits_for_a_client_that_does_not_read() {
        let (to, mut messages) = ToClient::channel();
        for _ in 0..OUTPUT_QUEUE {
            assert!(to.output(STDOUT, b"x").await);
        }
        tokio::select! {
            biased;
            _ = to.output(STDOUT, b"y") => panic!("there was room for more than {OUTPUT_QUEUE}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(messages.len(), OUTPUT_QUEUE);
        messages.recv().await.unwrap();
        assert!(to.output(STDOUT, b"z").await);
        drop(messages);
        assert!(!to.output(STDOUT, b"unheard").await);
    }
}
