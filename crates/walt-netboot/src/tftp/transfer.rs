//! One transfer of one file to one client.

use super::{ACK, ERROR, OACK, Options, TIMEOUT_MAX_S, TIMEOUT_S, TRIES, code, error};
use std::time::Duration;

/// Block size without the option (RFC 1350).
const BLKSIZE_DEFAULT: u16 = 512;

/// One DATA packet: [`super::data_header`] and these bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number on the wire.
    pub number: u16,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes it has; fewer than a full block is the last one.
    pub length: usize,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Send {
    /// These bytes.
    Packet(Vec<u8>),
    /// These blocks, in order.
    Blocks(Vec<Block>),
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All of the file was acknowledged.
    Complete,
    /// The client wants no more of it.
    Client {
        /// Its code.
        code: u16,
        /// Its message.
        message: String,
    },
    /// The client does not answer any more.
    Silent,
    /// The client sent something that makes no sense; this is the error for it.
    Nonsense(Vec<u8>),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send, then wait for [`Transfer::wait`].
    Send(Send),
    /// Go on waiting for what is left of the time.
    Wait,
    /// It is over.
    End(End),
}

/// A transfer.
#[derive(Debug)]
pub struct Transfer {
    length: u64,
    options: Options,
    /// Blocks that the client has; none before it has acknowledged the options.
    acknowledged: Option<u64>,
    /// Blocks that were sent, at least once.
    sent: u64,
    tries: u32,
    has_begun: bool,
    /// Whether the window was sent again because the client said that it missed a part.
    repeated: bool,
}

impl Transfer {
    /// A transfer of a file of `length` bytes, and what it begins with.
    pub fn new(options: Options, length: u64) -> (Self, Send) {
        let has_options = options != Options::default();
        let acknowledged = (!has_options).then_some(0);
        let mut transfer =
            Self { length, options, acknowledged, sent: 0, tries: 1, has_begun: false, repeated: false };
        let first = transfer.present();
        (transfer, first)
    }

    fn blksize(&self) -> u64 {
        self.options.blksize.unwrap_or(BLKSIZE_DEFAULT).into()
    }

    /// All blocks, the last one shorter than the others, if need be empty.
    fn blocks(&self) -> u64 {
        self.length / self.blksize() + 1
    }

    /// How long to wait for an answer to what was sent last.
    pub fn wait(&self) -> Duration {
        let seconds = match self.options.timeout {
            Some(seconds) => seconds,
            None => TIMEOUT_S.saturating_mul(1 << (self.tries - 1).min(7)).min(TIMEOUT_MAX_S),
        };
        Duration::from_secs(seconds.into())
    }

    /// Whether the client has answered anything.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// What is due now: the options, or the window behind what the client has.
    fn present(&mut self) -> Send {
        let Some(acknowledged) = self.acknowledged else {
            return Send::Packet([&OACK.to_be_bytes()[..], &self.options.texts(self.length)].concat());
        };
        let window = u64::from(self.options.windowsize.unwrap_or(1));
        let last = (acknowledged + window).min(self.blocks());
        self.sent = self.sent.max(last);
        Send::Blocks((acknowledged + 1..=last).map(|n| self.block(n)).collect())
    }

    fn block(&self, number: u64) -> Block {
        let offset = (number - 1) * self.blksize();
        // Invariant: the block size is at most 16 bits.
        let length = (self.length - offset).min(self.blksize()) as usize;
        Block { number: number as u16, offset, length }
    }

    /// The client has sent this.
    pub fn packet(&mut self, packet: &[u8]) -> Step {
        let Some((kind, rest)) = packet.split_first_chunk::<2>() else { return Step::Wait };
        match (u16::from_be_bytes(*kind), rest.first_chunk::<2>()) {
            (ACK, Some(number)) => self.ack(u16::from_be_bytes(*number)),
            (ERROR, number) => {
                let message = rest.get(2..).unwrap_or_default().split(|b| *b == 0).next().unwrap_or_default();
                let message = String::from_utf8_lossy(message).into_owned();
                Step::End(End::Client {
                    code: number.map_or(code::OTHER, |n| u16::from_be_bytes(*n)),
                    message,
                })
            }
            _ => Step::End(End::Nonsense(error(code::ILLEGAL, "expected an acknowledgement"))),
        }
    }

    fn ack(&mut self, number: u16) -> Step {
        let Some(acknowledged) = self.acknowledged else {
            if number != 0 {
                return Step::Wait;
            }
            self.acknowledged = Some(0);
            self.has_begun = true;
            self.tries = 1;
            return Step::Send(self.present());
        };
        // A window is smaller than half of the numbers: which block is meant is clear.
        let ahead = u64::from(number.wrapping_sub(acknowledged as u16));
        let now = acknowledged + ahead;
        if now > self.sent {
            return Step::Wait;
        }
        if ahead == 0 {
            // With windows it says that the first block of this one was missed (RFC 7440 §4). Without, it is
            // a duplicate, and to answer would double all that follows (RFC 1123 §4.2.3.1). Once per window:
            // more are duplicates too.
            if self.options.windowsize.is_none_or(|w| w == 1) || self.repeated {
                return Step::Wait;
            }
            self.repeated = true;
            return Step::Send(self.present());
        }
        self.acknowledged = Some(now);
        self.has_begun = true;
        self.tries = 1;
        self.repeated = false;
        if now == self.blocks() { Step::End(End::Complete) } else { Step::Send(self.present()) }
    }

    /// Nothing came for [`Transfer::wait`].
    pub fn timeout(&mut self) -> Step {
        if self.tries >= TRIES {
            return Step::End(End::Silent);
        }
        self.tries += 1;
        self.repeated = false;
        Step::Send(self.present())
    }
}
