//! Terminals over WebSocket: see [`walt_api::term`].

use crate::{
    Error, Result, Target,
    websocket::{self, Received, Receiver, Sender},
};
use hyper::header::HeaderValue;
use serde::Serialize;
use walt_api::term::{
    ClientMessage, MAX_MESSAGE, NODE_NUMBER, NODE_STDERR, NODE_STDOUT, STDERR, STDIN, STDOUT, ServerMessage,
};

/// Room for the channel byte and for the JSON of a message around [`MAX_MESSAGE`] bytes.
const MAX_FRAME: usize = 4 * MAX_MESSAGE;

/// Both directions of a terminal.
pub type Pair = (TerminalInput, TerminalOutput);

/// The direction to the server.
#[derive(Debug)]
pub struct TerminalInput(Sender);

/// The direction from the server.
#[derive(Debug)]
pub struct TerminalOutput(Receiver);

/// What a terminal sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Output of the program or of its terminal.
    Stdout(Vec<u8>),
    /// Error output of a program without terminal.
    Stderr(Vec<u8>),
    /// Output of the program on one of several nodes, by the node's number.
    NodeStdout(usize, Vec<u8>),
    /// Error output of the program on one of several nodes.
    NodeStderr(usize, Vec<u8>),
    /// A message.
    Message(ServerMessage),
}

pub(crate) async fn open(
    target: &Target,
    user: Option<&HeaderValue>,
    path: &str,
    first: &impl Serialize,
) -> Result<Pair> {
    let (sender, receiver) = websocket::open(target, user, path, MAX_FRAME, first).await?;
    Ok((TerminalInput(sender), TerminalOutput(receiver)))
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
            self.0.bytes(message).await?;
        }
        Ok(())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection is gone.
    pub async fn message(&mut self, message: &ClientMessage) -> Result<()> {
        self.0.message(message).await
    }
}

impl TerminalOutput {
    /// The next output or message; `None` once the server has closed. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection broke or a message cannot be read.
    pub async fn next(&mut self) -> Result<Option<Output>> {
        Ok(match self.0.next().await? {
            None => None,
            Some(Received::Message(message)) => Some(Output::Message(message)),
            Some(Received::Bytes(bytes)) => Some(match bytes.first() {
                Some(&STDOUT) => Output::Stdout(bytes[1..].to_vec()),
                Some(&STDERR) => Output::Stderr(bytes[1..].to_vec()),
                Some(&channel @ (NODE_STDOUT | NODE_STDERR)) => of_node(channel, &bytes[1..])?,
                channel => {
                    return Err(Error::Broken(format!(
                        "the server sent bytes on an unknown channel ({channel:?})"
                    )));
                }
            }),
        })
    }
}

/// Output of one of several nodes: its number, and the bytes.
fn of_node(channel: u8, bytes: &[u8]) -> Result<Output> {
    let (number, bytes) = bytes
        .split_first_chunk::<NODE_NUMBER>()
        .ok_or_else(|| Error::Broken("the server sent output without the number of its node".to_owned()))?;
    let (number, bytes) = (u32::from_be_bytes(*number) as usize, bytes.to_vec());
    Ok(match channel {
        NODE_STDOUT => Output::NodeStdout(number, bytes),
        _ => Output::NodeStderr(number, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_belongs_to_a_node() {
        assert_eq!(of_node(NODE_STDOUT, b"\0\0\x01\x02ab").unwrap(), Output::NodeStdout(258, b"ab".to_vec()));
        assert_eq!(of_node(NODE_STDERR, b"\0\0\0\0").unwrap(), Output::NodeStderr(0, Vec::new()));
        assert!(of_node(NODE_STDOUT, b"\0\0\0").is_err());
    }
}
