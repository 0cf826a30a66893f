//! Transfers over WebSocket: see [`walt_api::transfer`].

use crate::{
    Result, Target,
    websocket::{self, Received, Receiver, Sender},
};
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use walt_api::transfer::{ClientMessage, MAX_FRAME, Open, ServerMessage};

/// Room for a message of the server: a frame of bytes, or the JSON of an event.
const MAX_MESSAGE: usize = 4 * MAX_FRAME;

/// The direction to the server.
#[derive(Debug)]
pub struct TransferInput(Sender);

/// The direction from the server.
#[derive(Debug)]
pub struct TransferOutput(Receiver);

/// What a transfer sends.
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
    let (sender, receiver) = websocket::open(target, user, path, MAX_MESSAGE, first).await?;
    Ok((TransferInput(sender), TransferOutput(receiver)))
}

impl TransferInput {
    /// Sends bytes of the tar, [`MAX_FRAME`] at most; waits while the server has not taken what was sent before.
    ///
    /// # Errors
    /// [`Error::Broken`](crate::Error::Broken) if the connection is gone.
    pub async fn bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.0.bytes(bytes).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Error::Broken`](crate::Error::Broken) if the connection is gone.
    pub async fn message(&mut self, message: &ClientMessage) -> Result<()> {
        self.0.message(message).await
    }
}

impl TransferOutput {
    /// The next bytes or message; `None` once the server has closed. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`](crate::Error::Broken) if the connection broke or a message cannot be read.
    pub async fn next(&mut self) -> Result<Option<Transferred>> {
        Ok(self.0.next().await?.map(|received| match received {
            Received::Message(message) => Transferred::Message(message),
            Received::Bytes(bytes) => Transferred::Bytes(bytes),
        }))
    }
}
