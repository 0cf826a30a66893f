//! A WebSocket to the server: messages as JSON in text frames, bytes in binary frames.

use crate::{Connection, Error, Result, Target, answer};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use walt_api::HEADER_USER;

type Socket = WebSocketStream<Connection>;

/// The direction to the server.
#[derive(Debug)]
pub(crate) struct Sender(SplitSink<Socket, Message>);

/// The direction from the server.
#[derive(Debug)]
pub(crate) struct Receiver(SplitStream<Socket>);

/// What the server sends.
pub(crate) enum Received<M> {
    Message(M),
    Bytes(Bytes),
}

/// Opens a WebSocket whose messages have `max` bytes at most, and sends the first one.
pub(crate) async fn open(
    target: &Target,
    user: Option<&HeaderValue>,
    path: &str,
    max: usize,
    first: &impl Serialize,
) -> Result<(Sender, Receiver)> {
    let mut request = format!("ws://walt{path}")
        .into_client_request()
        .map_err(|e| Error::broken("the request cannot be written", e))?;
    if let Some(user) = user {
        request.headers_mut().insert(HEADER_USER, user.clone());
    }
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
    let stream = Connection::open(target).await?;
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await.map_err(|e| match e {
        tungstenite::Error::Http(refused) => {
            answer::refusal(refused.status(), refused.body().as_deref().unwrap_or_default()).into()
        }
        other => Error::broken("the server does not offer this service", other),
    })?;
    let (sink, stream) = socket.split();
    let mut sender = Sender(sink);
    sender.message(first).await?;
    Ok((sender, Receiver(stream)))
}

impl Sender {
    pub(crate) async fn message(&mut self, message: &impl Serialize) -> Result<()> {
        let text =
            serde_json::to_string(message).map_err(|e| Error::broken("the request cannot be written", e))?;
        self.0.send(Message::Text(text.into())).await.map_err(lost)
    }

    pub(crate) async fn bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.0.send(Message::Binary(bytes.into())).await.map_err(lost)
    }
}

impl Receiver {
    /// The next message or bytes; `None` once the server has closed. May be dropped while it waits.
    pub(crate) async fn next<M: DeserializeOwned>(&mut self) -> Result<Option<Received<M>>> {
        loop {
            let message = match self.0.next().await {
                None => return Ok(None),
                Some(message) => message.map_err(lost)?,
            };
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(text.as_str())
                        .map(|message| Some(Received::Message(message)))
                        .map_err(|e| Error::broken("the server's message cannot be read", e));
                }
                Message::Binary(bytes) => return Ok(Some(Received::Bytes(bytes))),
                Message::Close(_) => return Ok(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn lost(error: tungstenite::Error) -> Error {
    Error::broken("the connection broke", error)
}
