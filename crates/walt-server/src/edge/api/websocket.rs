//! What terminals and transfers do with their WebSockets.

use axum::extract::ws::{Message, WebSocket};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::base::failure::{Outcome, bad_request};

/// Sends the messages of a queue, and closes the WebSocket after the last one.
pub async fn write_all(mut socket: SplitSink<WebSocket, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
    let _ = socket.close().await;
}

/// Reads the opening message.
///
/// # Errors
/// The first message is not one, which is for the client.
pub async fn opening<T: DeserializeOwned>(stream: &mut SplitStream<WebSocket>) -> Outcome<T> {
    let read = match stream.next().await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map_err(|e| e.to_string()),
        _ => Err("the first message must be text".into()),
    };
    read.map_err(|e| bad_request(format!("cannot understand the opening message: {e}")))
}
