//! The protocol between a holder and its clients.
//!
//! A frame is its length (4 bytes, big endian, of what follows), a kind (1 byte) and a body. Bodies of kind
//! [`Kind::Message`] are JSON; unknown fields are ignored, so that either side may be the newer one within
//! one version.

use crate::{Error, Result, session::State};
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Version of the protocol, in the greeting. It is increased when an old peer would misunderstand.
pub const VERSION: u32 = 1;
/// Longest kind and body of a frame, in bytes.
pub const FRAME_MAX: usize = 64 * 1024;
/// Longest piece of output or input in one frame, in bytes.
pub const DATA_MAX: usize = 32 * 1024;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A [`Request`] or an [`Event`] as JSON.
    Message = 0,
    /// Output of the shell, or all that its terminal shows.
    Stdout = 1,
    /// Error output of a shell without a terminal.
    Stderr = 2,
    /// Input for the shell.
    Stdin = 3,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Message, Self::Stdout, Self::Stderr, Self::Stdin].into_iter().find(|k| *k as u8 == byte)
    }
}

/// Requests of a client, in addition to frames of input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Attach: the answer is [`Event::Attached`], then the kept output, then new output.
    Attach {
        /// Size of the client's window: rows, columns.
        size: Option<(u16, u16)>,
    },
    /// No more input. With a terminal it is the end-of-file character that counts: ignored.
    Eof,
    /// The client's window has another size.
    Resize {
        /// Height in character cells.
        rows: u16,
        /// Width in character cells.
        cols: u16,
    },
    /// End the shell, the OS and the container: [`Event::Stopped`].
    Stop,
    /// Stop, then unmount for a save: [`Event::Sealed`]; the holder ends.
    Seal,
    /// Kill, unmount: [`Event::Discarded`]; the holder ends.
    Discard,
    /// After a stop: read `spec.json` again and start a new container over the changes: [`Event::Started`].
    Restart,
    /// [`Event::Status`].
    Status,
}

/// Events from a holder, in addition to frames of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The first frame of a connection.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// State of the session.
        state: State,
    },
    /// This client is attached; the kept output follows.
    Attached {
        /// Whether output was dropped before what follows.
        truncated: bool,
    },
    /// Another client has attached: this one gets no more output.
    Replaced,
    /// The shell runs. Sent to the attached client, and as the answer to a restart.
    Started {
        /// Notes for the user, such as an OS that did not come up in time.
        notes: Vec<String>,
    },
    /// The shell could not be started. Sent to the attached client.
    Failed {
        /// Why.
        error: String,
    },
    /// The shell has ended, and all its output was sent. Sent to the attached client.
    Exited {
        /// Its status, or 128 and the number of the signal.
        status: i32,
    },
    /// The container is gone.
    Stopped {
        /// What did not stop in time and was killed.
        notes: Vec<String>,
    },
    /// The overlay is unmounted.
    Sealed {
        /// What did not stop in time and was killed.
        notes: Vec<String>,
    },
    /// Nothing is left but the session's directory.
    Discarded,
    /// State of the session.
    Status {
        /// As in `state.json`.
        state: State,
    },
    /// The request failed; the session is as before, or stopped.
    Refused {
        /// Why, and what to do.
        error: String,
    },
}

/// Writes one frame.
pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = body.len() + 1;
    if length > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a frame of {length} bytes")));
    }
    // One write, so that a small frame is one packet; the length fits as it is at most FRAME_MAX.
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(body);
    to.write_all(&frame).await
}

/// Writes one message.
pub async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    write_frame(to, Kind::Message, &serde_json::to_vec(message)?).await
}

/// Reads one frame; `None` at an orderly end.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<(Kind, Vec<u8>)>> {
    let broken = |e: io::Error| Error::Protocol(e.to_string());
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(broken(e)),
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(1..=FRAME_MAX).contains(&length) {
        return Err(Error::Protocol(format!("a frame of {length} bytes")));
    }
    let kind = from.read_u8().await.map_err(broken)?;
    let mut body = vec![0; length - 1];
    from.read_exact(&mut body).await.map_err(broken)?;
    let kind = Kind::of(kind).ok_or_else(|| Error::Protocol(format!("a frame of kind {kind}")))?;
    Ok(Some((kind, body)))
}

/// Reads a message's JSON.
pub fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::Protocol(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_and_bad_ones_are_refused() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Kind::Stdin, b"abc").await.unwrap();
        write_message(&mut wire, &Request::Resize { rows: 1, cols: 2 }).await.unwrap();
        let mut from = wire.as_slice();
        assert_eq!(read_frame(&mut from).await.unwrap(), Some((Kind::Stdin, b"abc".to_vec())));
        let (kind, body) = read_frame(&mut from).await.unwrap().unwrap();
        assert_eq!(kind, Kind::Message);
        assert_eq!(parse::<Request>(&body).unwrap(), Request::Resize { rows: 1, cols: 2 });
        assert_eq!(read_frame(&mut from).await.unwrap(), None);
        for bad in [&[0, 0, 0, 0][..], &[0, 0, 0, 1, 9], &[0xff; 8], &[0, 0, 0, 5, 1, b'x']] {
            assert!(read_frame(&mut { bad }).await.is_err(), "{bad:?}");
        }
        assert!(parse::<Request>(b"{\"op\":\"fly\"}").is_err());
        assert!(write_frame(&mut wire, Kind::Stdin, &[0; FRAME_MAX]).await.is_err());
    }
}
