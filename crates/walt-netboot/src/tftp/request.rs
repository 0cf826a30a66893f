//! Requests to read a file.

use super::{BLKSIZE_MAX, RRQ, WINDOWSIZE_MAX, WRQ, code};

/// Largest request, in bytes: 512 of RFC 1350, and room for what images name.
pub const PACKET_MAX: usize = 1500;
/// Least block size (RFC 2348).
const BLKSIZE_MIN: u16 = 8;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The file's path, as the client writes it.
    pub path: Vec<u8>,
    /// What it asks of the transfer.
    pub options: Options,
}

/// Options of a transfer, each as it will be if it was asked for. What the client does not ask, or asks
/// outside the RFC's range, is left out (RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Bytes of a block.
    pub blksize: Option<u16>,
    /// Blocks before an answer.
    pub windowsize: Option<u16>,
    /// Seconds between tries.
    pub timeout: Option<u8>,
    /// Whether the client wants to know the length of the file.
    pub tsize: bool,
}

/// Why a request cannot be fulfilled: an error's code, and its message for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One of [`code`].
    pub code: u16,
    /// The message for the client.
    pub message: &'static str,
}

const fn refusal(code: u16, message: &'static str) -> Refusal {
    Refusal { code, message }
}

/// Reads a packet that came to the server's port.
///
/// # Errors
/// The message for the client.
pub fn parse(packet: &[u8]) -> Result<Request, Refusal> {
    const CUT: Refusal = refusal(code::ILLEGAL, "the request is cut");
    let (kind, rest) = packet.split_first_chunk().ok_or(CUT)?;
    match u16::from_be_bytes(*kind) {
        RRQ => {}
        WRQ => return Err(refusal(code::ACCESS, "files can only be read")),
        _ => return Err(refusal(code::ILLEGAL, "a transfer starts with a read request")),
    }
    if packet.len() > PACKET_MAX {
        return Err(refusal(code::ILLEGAL, "the request is too long"));
    }
    // Each text ends with a NUL.
    let texts = rest.strip_suffix(b"\0").ok_or(CUT)?;
    let mut texts = texts.split(|b| *b == 0);
    let (Some(path), Some(mode)) = (texts.next(), texts.next()) else { return Err(CUT) };
    match mode.to_ascii_lowercase().as_slice() {
        b"octet" => {}
        b"netascii" => {
            return Err(refusal(code::OTHER, "netascii is not supported: use the mode octet (binary)"));
        }
        _ => return Err(refusal(code::ILLEGAL, "the mode must be octet")),
    }
    if path.is_empty() {
        return Err(refusal(code::NOT_FOUND, "the path is empty"));
    }
    let mut options = Options::default();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        let number = std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok());
        options.take(&name.to_ascii_lowercase(), number);
    }
    Ok(Request { path: path.to_vec(), options })
}

impl Options {
    fn take(&mut self, name: &[u8], value: Option<u64>) {
        let Some(value) = value else { return };
        // Small enough for the types after the comparison with a limit.
        match name {
            b"blksize" if (u64::from(BLKSIZE_MIN)..=65_464).contains(&value) => {
                self.blksize = Some(value.min(BLKSIZE_MAX.into()) as u16);
            }
            b"windowsize" if (1..=65_535).contains(&value) => {
                self.windowsize = Some(value.min(WINDOWSIZE_MAX.into()) as u16);
            }
            b"timeout" if (1..=255).contains(&value) => self.timeout = Some(value as u8),
            // A client that reads writes 0.
            b"tsize" => self.tsize = true,
            _ => {}
        }
    }

    /// The texts of an OACK; empty if nothing was asked for.
    pub(super) fn texts(&self, length: u64) -> Vec<u8> {
        let numbers = [
            ("blksize", self.blksize.map(u64::from)),
            ("windowsize", self.windowsize.map(u64::from)),
            ("timeout", self.timeout.map(u64::from)),
            ("tsize", self.tsize.then_some(length)),
        ];
        let text = |(name, value): (&str, Option<u64>)| value.map(|v| format!("{name}\0{v}\0"));
        numbers.into_iter().filter_map(text).collect::<String>().into_bytes()
    }
}
