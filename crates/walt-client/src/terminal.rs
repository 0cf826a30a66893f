//! Terminals over WebSocket.

use crate::{Connection, Error, Result, Target, http};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::header::HeaderValue;
use serde::Serialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use walt_api::HEADER_USER;
use walt_api::term::{ClientMessage, MAX_MESSAGE, STDERR, STDIN, STDOUT, ServerMessage};

/// Room for the channel byte and for the JSON of a message around [`MAX_MESSAGE`] bytes.
const MAX_FRAME: usize = 4 * MAX_MESSAGE;

type Socket = WebSocketStream<Connection>;
/// Both directions of a terminal.
pub type Pair = (TerminalInput, TerminalOutput);

/// The direction to the server.
#[derive(Debug)]
pub struct TerminalInput(SplitSink<Socket, Message>);

/// The direction from the server.
#[derive(Debug)]
pub struct TerminalOutput(SplitStream<Socket>);

/// What a terminal brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Output of the program or of its terminal.
    Stdout(Vec<u8>),
    /// Error output of a program without terminal.
    Stderr(Vec<u8>),
    /// A message.
    Message(ServerMessage),
}

pub(crate) async fn open(
    target: &Target,
    user: Option<&HeaderValue>,
    path: &str,
    first: &impl Serialize,
) -> Result<Pair> {
    let socket = socket(target, user, path, MAX_FRAME).await?;
    let (sink, stream) = socket.split();
    let mut input = TerminalInput(sink);
    input.text(first).await?;
    Ok((input, TerminalOutput(stream)))
}

/// Opens a WebSocket whose messages have `max` bytes at most.
pub(crate) async fn socket(
    target: &Target,
    user: Option<&HeaderValue>,
    path: &str,
    max: usize,
) -> Result<Socket> {
    let mut request = format!("ws://walt{path}")
        .into_client_request()
        .map_err(|e| Error::broken("the request cannot be written", e))?;
    if let Some(user) = user {
        request.headers_mut().insert(HEADER_USER, user.clone());
    }
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
    let stream = Connection::open(target).await?;
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await.map_err(|e| match e {
        tungstenite::Error::Http(answer) => {
            http::refusal(answer.status(), answer.body().as_deref().unwrap_or_default()).into()
        }
        other => Error::broken("no such service there", other),
    })?;
    Ok(socket)
}

impl TerminalInput {
    /// Sends input of the program; more than [`MAX_MESSAGE`] is cut into several messages.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection is gone.
    pub async fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(MAX_MESSAGE - 1) {
            let mut message = Vec::with_capacity(part.len() + 1);
            message.push(STDIN);
            message.extend_from_slice(part);
            self.0.send(Message::Binary(message.into())).await.map_err(lost)?;
        }
        Ok(())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection is gone.
    pub async fn message(&mut self, message: &ClientMessage) -> Result<()> {
        self.text(message).await
    }

    /// Says goodbye; errors do not matter any more.
    pub async fn close(&mut self) {
        let _ = self.0.close().await;
    }

    async fn text(&mut self, value: &impl Serialize) -> Result<()> {
        let text =
            serde_json::to_string(value).map_err(|e| Error::broken("the request cannot be written", e))?;
        self.0.send(Message::Text(text.into())).await.map_err(lost)
    }
}

impl TerminalOutput {
    /// The next output or message; `None` once the server has closed. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection broke or a message cannot be read.
    pub async fn next(&mut self) -> Result<Option<Output>> {
        loop {
            let message = match self.0.next().await {
                None => return Ok(None),
                Some(message) => message.map_err(lost)?,
            };
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(text.as_str())
                        .map(|message| Some(Output::Message(message)))
                        .map_err(|e| Error::broken("the server's message cannot be read", e));
                }
                Message::Binary(bytes) => match bytes.first() {
                    Some(&STDOUT) => return Ok(Some(Output::Stdout(bytes[1..].to_vec()))),
                    Some(&STDERR) => return Ok(Some(Output::Stderr(bytes[1..].to_vec()))),
                    channel => return Err(Error::Broken(format!("unknown channel {channel:?}"))),
                },
                Message::Close(_) => return Ok(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

pub(crate) fn lost(error: tungstenite::Error) -> Error {
    Error::broken("the connection broke", error)
}
