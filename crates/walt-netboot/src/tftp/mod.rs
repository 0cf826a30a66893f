//! TFTP (RFC 1350) for reading, with options (RFC 2347): `blksize` (2348), `timeout` and `tsize` (2349),
//! `windowsize` (7440).
//!
//! ```text
//!   client: RRQ ─▶ request::parse ─▶ Transfer::new ── OACK, or the first window
//!           ACK ─▶ Transfer::packet ── the next window, or the end
//!         nothing ─▶ Transfer::timeout ── the same again, or the end
//! ```
//! A transfer knows the length of its file only: it names blocks, and the caller reads them. An ERROR of the
//! client ends it at once: ROMs ask for a size (`tsize`) and leave.
//!
//! Limits: [`BLKSIZE_MAX`], [`WINDOWSIZE_MAX`], [`TRIES`] times each packet, [`request::PACKET_MAX`] bytes of a
//! request. Block numbers roll over to 0, as all clients expect that read files of more than 65,535 blocks.

pub mod request;
#[cfg(test)]
mod tests;
mod transfer;

pub use request::{Options, Refusal, Request};
pub use transfer::{Block, End, Send, Step, Transfer};

/// Largest block, in bytes: a packet must fit a frame of 1500, behind the headers of IP (20), UDP (8), TFTP (4).
pub const BLKSIZE_MAX: u16 = 1468;
/// Most blocks that are sent before an answer.
pub const WINDOWSIZE_MAX: u16 = 64;
/// How often a packet is sent before the client is given up.
pub const TRIES: u32 = 7;
/// Seconds between tries when the client names none; it doubles with each try.
pub const TIMEOUT_S: u8 = 1;
/// Longest wait between tries, in seconds, when the client names none.
pub const TIMEOUT_MAX_S: u8 = 8;

/// Kinds of packets (RFC 1350 §5, RFC 2347).
const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Codes of errors (RFC 1350 §5).
pub mod code {
    /// Something else: the message says what.
    pub const OTHER: u16 = 0;
    /// There is no such file.
    pub const NOT_FOUND: u16 = 1;
    /// It is forbidden.
    pub const ACCESS: u16 = 2;
    /// The packet makes no sense here.
    pub const ILLEGAL: u16 = 4;
}

/// An ERROR packet.
pub fn error(code: u16, message: &str) -> Vec<u8> {
    let mut packet = [ERROR.to_be_bytes(), code.to_be_bytes()].concat();
    packet.extend(message.bytes().filter(|b| *b != 0));
    packet.push(0);
    packet
}

/// The first two bytes of a DATA packet and its number; the block follows.
pub fn data_header(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (DATA.to_be_bytes(), number.to_be_bytes());
    [a, b, c, d]
}
