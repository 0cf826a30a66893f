//! Transfers over WebSocket: see [`walt_api::transfer`].

use crate::{Error, Result, Target, terminal};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use walt_api::transfer::{ClientMessage, MAX_FRAME, Open, ServerMessage};

/// Room for a message of the server: a frame of bytes, or the JSON of an event.
const MAX_MESSAGE: usize = 4 * MAX_FRAME;

type Socket = WebSocketStream<crate::Connection>;

/// The direction to the server.
#[derive(Debug)]
pub struct TransferInput(SplitSink<Socket, Message>);

/// The direction from the server.
#[derive(Debug)]
pub struct TransferOutput(SplitStream<Socket>);

/// What a transfer brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transferred {
    /// Bytes of the tar.
    Bytes(Bytes),
    /// A message.
    Message(ServerMessage),
}

pub(crate) async fn open(
    target: &Target,
    user: Option<&HeaderValue>,
    path: &str,
    first: &Open,
) -> Result<(TransferInput, TransferOutput)> {
    let socket = terminal::socket(target, user, path, MAX_MESSAGE).await?;
    let (sink, stream) = socket.split();
    let mut input = TransferInput(sink);
    let text = serde_json::to_string(first).map_err(|e| Error::broken("the request cannot be written", e))?;
    input.0.send(Message::Text(text.into())).await.map_err(terminal::lost)?;
    Ok((input, TransferOutput(stream)))
}

impl TransferInput {
    /// Sends bytes of the tar, [`MAX_FRAME`] at most; waits while the server has not taken what was sent before.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection is gone.
    pub async fn bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.0.send(Message::Binary(bytes.into())).await.map_err(terminal::lost)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection is gone.
    pub async fn message(&mut self, message: &ClientMessage) -> Result<()> {
        let text =
            serde_json::to_string(message).map_err(|e| Error::broken("the request cannot be written", e))?;
        self.0.send(Message::Text(text.into())).await.map_err(terminal::lost)
    }
}

impl TransferOutput {
    /// The next bytes or message; `None` once the server has closed. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection broke or a message cannot be read.
    pub async fn next(&mut self) -> Result<Option<Transferred>> {
        loop {
            let message = match self.0.next().await {
                None => return Ok(None),
                Some(message) => message.map_err(terminal::lost)?,
            };
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(text.as_str())
                        .map(|message| Some(Transferred::Message(message)))
                        .map_err(|e| Error::broken("the server's message cannot be read", e));
                }
                Message::Binary(bytes) => return Ok(Some(Transferred::Bytes(bytes))),
                Message::Close(_) => return Ok(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}
