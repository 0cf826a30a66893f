//! What the user types, on its way to the program.
//!
//! If a connection breaks, the bytes that were on their way are lost. So those that were sent last are kept, and when the
//! program says how many it was given, the others are sent again.

use super::{Mode, console::Keys};
use crate::{error::Failure, stdio::Input};
use std::collections::VecDeque;
use tokio::sync::mpsc;
use walt_api::term::{ClientMessage, INPUT_WINDOW, MAX_SCRIPT};
use walt_client::{Error, TerminalInput};

/// What else is sent, and what happens to the connection.
pub enum Control {
    /// A message.
    Message(ClientMessage),
    /// The program runs: send it the input. If it outlives its connection, and if its input is counted, this is how many
    /// bytes it was given.
    Begin(Option<Option<u64>>),
    /// The connection broke: keep what is typed.
    Lost,
    /// There is a new one, on which the program has not begun yet.
    Sink(TerminalInput),
}

/// Why no more input is sent.
pub enum FeedEnd {
    /// It cannot be sent.
    Failed(Failure),
    /// The user has left.
    Detached,
}

/// The last bytes that were sent.
#[derive(Debug, Default)]
struct Sent {
    /// All bytes that the program should have got.
    count: u64,
    last: VecDeque<u8>,
}

impl Sent {
    fn add(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.last.extend(bytes);
        self.last.drain(..self.last.len().saturating_sub(INPUT_WINDOW));
    }

    /// What a program lacks that was given so many bytes; none if that is not known any more.
    fn missing(&self, given: u64) -> Option<Vec<u8>> {
        // Somebody else has typed as well: nothing is missing then.
        let count = usize::try_from(self.count.saturating_sub(given)).ok()?;
        let start = self.last.len().checked_sub(count)?;
        Some(self.last.range(start..).copied().collect())
    }
}

/// The way of the input.
struct Feed {
    sink: Option<TerminalInput>,
    mode: Mode,
    sent: Sent,
    /// Whether the program outlives its connection.
    lasts: bool,
    began: bool,
    reading: bool,
    /// The input has ended.
    ended: bool,
}

/// Sends input and control messages; ends only when the connection or the user is gone for good.
pub async fn feed(
    input: &mut Input,
    sink: TerminalInput,
    mut controls: mpsc::Receiver<Control>,
    mode: Mode,
) -> FeedEnd {
    let mut feed = Feed {
        sink: Some(sink),
        mode,
        sent: Sent::default(),
        lasts: false,
        began: false,
        reading: mode == Mode::Script,
        ended: false,
    };
    let mut total = 0;
    let mut keys = (mode == Mode::Console).then(Keys::default);
    loop {
        let sent = tokio::select! {
            control = controls.recv() => match control {
                Some(control) => feed.control(control).await,
                None => std::future::pending().await,
            },
            bytes = input.bytes(), if feed.reading && !feed.ended => match bytes {
                Ok(bytes) if bytes.is_empty() => {
                    feed.ended = true;
                    // A user who only watches a console has no input to end.
                    if keys.is_some() { Ok(()) } else { feed.message(&ClientMessage::Eof).await }
                }
                Ok(mut bytes) => {
                    total += bytes.len();
                    if mode == Mode::Script && total > MAX_SCRIPT {
                        let most = MAX_SCRIPT >> 20;
                        return FeedEnd::Failed(Failure::new(format!("the script on standard input is larger than {most} MiB.")));
                    }
                    let detach = keys.as_mut().is_some_and(|keys| keys.read(&mut bytes));
                    let sent = feed.bytes(&bytes).await;
                    if detach {
                        return FeedEnd::Detached;
                    }
                    sent
                }
                // A terminal that hung up, or a closed standard input.
                Err(_) => {
                    feed.ended = true;
                    feed.message(&ClientMessage::Eof).await
                }
            },
        };
        if let Err(failure) = sent {
            return FeedEnd::Failed(failure);
        }
    }
}

impl Feed {
    async fn control(&mut self, control: Control) -> Result<(), Failure> {
        match control {
            Control::Message(message) => self.message(&message).await,
            Control::Lost => {
                (self.sink, self.reading) = (None, false);
                Ok(())
            }
            Control::Sink(sink) => {
                self.sink = Some(sink);
                Ok(())
            }
            Control::Begin(place) => self.begin(place).await,
        }
    }

    async fn begin(&mut self, place: Option<Option<u64>>) -> Result<(), Failure> {
        self.lasts = place.is_some();
        let again = std::mem::replace(&mut self.began, true);
        if let Some(Some(given)) = place {
            if again {
                let missing = self.sent.missing(given).ok_or_else(|| {
                    Failure::new("some input is lost: the connection broke while too much was on its way.")
                })?;
                self.pass(&missing).await?;
            } else {
                // A script was sent before, and does not count.
                self.sent = Sent { count: given, ..Sent::default() };
            }
        }
        if self.mode == Mode::NoInput || (again && self.ended && self.mode != Mode::Console) {
            self.ended = true;
            return self.message(&ClientMessage::Eof).await;
        }
        self.reading = true;
        Ok(())
    }

    async fn message(&mut self, message: &ClientMessage) -> Result<(), Failure> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        let sent = sink.message(message).await;
        self.survive(sent)
    }

    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sent.add(bytes);
        self.pass(bytes).await
    }

    async fn pass(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        let sent = sink.bytes(bytes).await;
        self.survive(sent)
    }

    /// A broken connection is no failure if the program outlives it: the other side connects again.
    fn survive(&mut self, sent: Result<(), Error>) -> Result<(), Failure> {
        match sent {
            Err(_) if self.lasts => {
                (self.sink, self.reading) = (None, false);
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_known_as_long_as_it_is_kept() {
        let mut sent = Sent { count: 10, ..Sent::default() };
        sent.add(b"abc");
        sent.add(b"de");
        assert_eq!(sent.missing(15).unwrap(), b"");
        assert_eq!(sent.missing(13).unwrap(), b"de");
        assert_eq!(sent.missing(10).unwrap(), b"abcde");
        assert_eq!(sent.missing(99).unwrap(), b"", "somebody else has typed");
        assert!(sent.missing(9).is_none());
        sent.add(&vec![b'x'; INPUT_WINDOW]);
        assert_eq!(sent.missing(15).unwrap().len(), INPUT_WINDOW);
        assert!(sent.missing(14).is_none());
    }
}
