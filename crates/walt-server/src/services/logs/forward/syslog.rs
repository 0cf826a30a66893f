//! Syslog messages (RFC 5424) over TCP, counted in octets (RFC 6587 §3.4.1).
//!
//! TCP does not say what the program on the other side has taken. A batch counts as sent when the other machine has
//! acknowledged all its bytes; if the connection breaks before, it is sent again.

use super::Line;
use anyhow::{Context, Result, bail};
use std::{io::Write, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

/// Priority of a message: facility local0 (16), severity informational (6); and those of warnings and errors.
const INFO: u32 = 16 * 8 + 6;
const WARNING: u32 = 16 * 8 + 4;
const ERROR: u32 = 16 * 8 + 3;
/// Longest name of a machine and of a program, in characters (RFC 5424 §6).
const HOST_MAX: usize = 255;
const PROGRAM_MAX: usize = 48;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the other machine may take to acknowledge a batch.
const ACKNOWLEDGE: Duration = Duration::from_secs(60);
/// Pause between two looks at what is acknowledged.
const LOOK: Duration = Duration::from_millis(5);

/// A receiver of syslog messages.
pub(super) struct Syslog {
    address: String,
    stream: Option<TcpStream>,
}

impl Syslog {
    /// The receiver at this host and port.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Sends a batch.
    pub async fn send(&mut self, lines: &[Line]) -> Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let connecting = TcpStream::connect(&self.address);
                let connected = timeout(CONNECT, connecting).await.context("no answer in time");
                connected
                    .and_then(|c| Ok(c?))
                    .with_context(|| format!("cannot connect to {}", self.address))?
            }
        };
        let bytes = batch(lines);
        let sent = async {
            stream.write_all(&bytes).await?;
            while walt_sys::sent::unacknowledged(&stream)? > 0 {
                tokio::time::sleep(LOOK).await;
            }
            // An end of the connection that has arrived: what was written may not have been read.
            let mut end = [0; 1];
            match stream.try_read(&mut end) {
                Ok(0) => bail!("the connection was closed"),
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => Err(e.into()),
                _ => Ok(()),
            }
        };
        timeout(ACKNOWLEDGE, sent)
            .await
            .unwrap_or_else(|_| bail!("nothing was acknowledged in {} s", ACKNOWLEDGE.as_secs()))
            .with_context(|| format!("cannot send to {}", self.address))?;
        self.stream = Some(stream);
        Ok(())
    }
}

fn batch(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        let message = message(line);
        // Writing to a vector does not fail.
        let _ = write!(bytes, "{} ", message.len());
        bytes.extend_from_slice(&message);
    }
    bytes
}

fn message(line: &Line) -> Vec<u8> {
    let priority = match &*line.stream {
        "daemon.error" => ERROR,
        "daemon.warning" => WARNING,
        _ => INFO,
    };
    let at = jiff::Timestamp::from_microsecond(line.at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let (host, program) = (name(&line.issuer, HOST_MAX), name(&line.stream, PROGRAM_MAX));
    let mut message = Vec::with_capacity(line.text.len() + 100);
    let _ = write!(message, "<{priority}>1 {at:.6} {host} {program} - - - ");
    message.extend_from_slice(&line.text);
    message
}

/// A name as the head of a message may have it: printable ASCII characters without spaces.
fn name(text: &str, max: usize) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(max).collect();
    if name.is_empty() { "-".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_rfc_5424() {
        let line = |stream: &str, text: &[u8]| Line {
            at: 1_700_000_000_250_000,
            issuer: "vn1".into(),
            stream: stream.into(),
            text: text.to_vec(),
        };
        assert_eq!(
            batch(&[line("app", b"hello\n\xff"), line("daemon.error", b"")]),
            b"56 <134>1 2023-11-14T22:13:20.250000Z vn1 app - - - hello\n\xff\
              58 <131>1 2023-11-14T22:13:20.250000Z vn1 daemon.error - - - "
        );
        assert_eq!(name("a b\u{e9}", 10), "a_b_");
        assert_eq!(name(&"x".repeat(60), PROGRAM_MAX).len(), PROGRAM_MAX);
        assert_eq!(name("", 5), "-");
    }
}
