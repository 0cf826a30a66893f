//! Log lines that nodes send to the port of the node link, in two framings.
//!
//! That of existing images, which has no end of its own for a line `CLOSE`, and no acknowledgement:
//! ```text
//! → REQ_NEW_INCOMING_LOGS
//! → <stream>
//! → NO_TIMESTAMPS    or    → TIMESTAMPS_INSIDE
//! → <line>           or    → <seconds.fraction> <line>
//! → CLOSE
//! ```
//! That of our own tools. Lines are numbered, so that each one is stored once although sender or server may die at any
//! moment: the position of a `source` is stored together with its lines.
//! ```text
//! → REQ_LOG_STREAM 1
//! → stream <name>
//! → source <16 hex digits>        chosen at random for each stream by its sender
//! →                               (an empty line)
//! ← OK <position>                 lines of this source that are durable: it goes on behind them
//! → L <bytes> <timestamp or ->    and then the bytes of the line, and a newline
//! → D <lines> <timestamp or ->    the sender had to drop so many lines; counts as one line
//! ← ACK <position>                from time to time, when lines are durable
//! → END
//! ← BYE <position>
//! ```
//! A mistake is answered by `ERROR <words>`. Timestamps are seconds since 1970 with a fraction.
//!
//! Lines of more than [`LINE_MAX`] bytes are stored in parts. When the store is busy, the connection is not read.

use crate::{
    actions::app::App,
    base::{
        db::{NodeRow, blocking},
        time,
    },
    services::logs::{Logs, Stream},
};
use anyhow::{Context, Result, anyhow, bail};
use memchr::memchr;
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
};
use walt_logs::{Chunk, Error, Mark, Mode, limits};

/// Longest line, in bytes; longer ones are stored in parts.
pub const LINE_MAX: usize = limits::MAX_LINE;
/// Longest line of the head of a connection, and of the line before a frame, in bytes.
const HEAD_MAX: u64 = 512;
/// How long a sender may take for the head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Chunks of one connection that may wait until they are durable, before it is not read. Their lines are the store's, which
/// bounds them; a few would make lines late: each waits for a batch, and a busy node sends many meanwhile.
const UNACKNOWLEDGED: usize = 1024;
/// What ends a stream whose connection was lost.
const DISCONNECTED: &[u8] = b"<disconnected!>";

/// One line of the head, without its end.
async fn head_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<String> {
    let mut bytes = Vec::new();
    let read = async { reader.take(HEAD_MAX).read_until(b'\n', &mut bytes).await };
    tokio::time::timeout(HEAD_TIMEOUT, read).await.context("the head of a log stream is late")??;
    if bytes.pop() != Some(b'\n') {
        bail!("the head of a log stream is cut, or has a line of more than {HEAD_MAX} bytes");
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned())
}

fn node_at(app: &App, ip: Ipv4Addr) -> Result<NodeRow> {
    app.db().with(|c| NodeRow::by_ip(c, ip))?.with_context(|| format!("{ip} is not a node"))
}

/// A timestamp as senders write it, in microseconds since 1970.
///
/// # Errors
/// It is not a number of seconds.
fn timestamp(text: &[u8]) -> Result<i64, ()> {
    let text = std::str::from_utf8(text).map_err(drop)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(());
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let whole: i64 = whole.parse().map_err(drop)?;
    let micros: i64 = micros.parse().map_err(drop)?;
    whole.checked_mul(1_000_000).and_then(|n| n.checked_add(micros)).ok_or(())
}

/// The time and the text of a line, in the framing of existing images.
fn stamped(line: &[u8], has_timestamp: bool) -> (Option<i64>, &[u8]) {
    if !has_timestamp {
        return (None, line);
    }
    let (first, rest) = match memchr(b' ', line) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &b""[..]),
    };
    match timestamp(first) {
        Ok(at) => (Some(at), rest),
        Err(()) => (None, line),
    }
}

/// Receives a stream in the framing of existing images.
///
/// # Errors
/// It is not a node, or the head cannot be understood, or the store is closed.
pub async fn receive(app: &App, ip: Ipv4Addr, reader: &mut (impl AsyncBufRead + Unpin)) -> Result<()> {
    let node = node_at(app, ip)?;
    let name = head_line(reader).await?;
    let has_timestamps = match head_line(reader).await?.as_str() {
        "NO_TIMESTAMPS" => false,
        "TIMESTAMPS_INSIDE" => true,
        other => bail!("unknown mode '{other}' of the log stream '{name}'"),
    };
    let logs = app.logs();
    let mut stream = logs.stream(node.mac, &name, Mode::Line)?;
    // The beginning of a line whose end has not come.
    let mut line = Vec::new();
    let end = loop {
        let bytes = match reader.fill_buf().await {
            Ok([]) => break Err(()),
            Ok(bytes) => bytes,
            Err(_) => break Err(()),
        };
        let (mut rest, length) = (bytes, bytes.len());
        let mut is_closed = false;
        while let Some(at) = memchr(b'\n', rest) {
            line.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            if line == b"CLOSE" {
                is_closed = true;
                break;
            }
            let (at, text) = stamped(&line, has_timestamps);
            stream.push(logs, at, text);
            line.clear();
        }
        if is_closed {
            break Ok(());
        }
        line.extend_from_slice(rest);
        if line.len() >= LINE_MAX {
            let (at, text) = stamped(&line, has_timestamps);
            stream.push(logs, at, text);
            line.clear();
        }
        reader.consume(length);
        if !stream.is_empty() {
            drop(logs.begin_append(stream.take(), None).await?);
        }
    };
    if end.is_err() {
        if !line.is_empty() {
            let (at, text) = stamped(&line, has_timestamps);
            stream.push(logs, at, text);
        }
        stream.push_always(time::now_micros(), DISCONNECTED);
    }
    // Who closes the stream may ask for its lines at once: the connection is closed when they can be read.
    if !stream.is_empty() {
        drop(logs.begin_append(stream.take(), None).await?);
    }
    Ok(())
}

/// Receives a stream in the framing of our tools.
///
/// # Errors
/// It is not a node, or what it sends cannot be understood; it gets the reason, too.
pub async fn receive_framed(
    app: &App,
    ip: Ipv4Addr,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let (reports, mut durable) = mpsc::channel(UNACKNOWLEDGED);
    let received = async move {
        let node = node_at(app, ip)?;
        let (name, source) = framed_head(reader).await?;
        let logs = app.logs();
        // A node cannot name the source of another one.
        let source = source_of(&node, source);
        let stream = logs.stream(node.mac, &name, Mode::Line)?;
        let position = blocking(|| logs.store().resume(source))?;
        reports.send(Report::Ok(position)).await.map_err(|_| anyhow!("closed"))?;
        Framed { logs, stream, source, position, stored: position }.receive(reader, &reports).await
    };
    // The channel is closed when everything was received, or failed.
    let acknowledging = async {
        while let Some(report) = durable.recv().await {
            let text = match report {
                Report::Ok(position) => format!("OK {position}\n"),
                Report::Stored(position, stored) => match stored.await.unwrap_or(Err(Error::Closed)) {
                    Ok(()) => format!("ACK {position}\n"),
                    Err(e) => bail!("{e}"),
                },
                Report::Bye(position) => format!("BYE {position}\n"),
            };
            writer.write_all(text.as_bytes()).await?;
        }
        Ok(())
    };
    let (received, acknowledged) = tokio::join!(received, acknowledging);
    let outcome = acknowledged.and(received);
    if let Err(e) = &outcome {
        let words = format!("{e:#}").replace('\n', " ");
        let _ = writer.write_all(format!("ERROR {words}\n").as_bytes()).await;
    }
    outcome
}

/// What a sender is told, in order.
enum Report {
    Ok(u64),
    Stored(u64, oneshot::Receiver<Result<(), Error>>),
    Bye(u64),
}

async fn framed_head(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<(String, u64)> {
    let (mut name, mut source) = (None, None);
    loop {
        let line = head_line(reader).await?;
        match line.split_once(' ') {
            _ if line.is_empty() => break,
            Some(("stream", value)) => name = Some(value.to_owned()),
            Some(("source", value)) => source = u64::from_str_radix(value, 16).ok(),
            // A later tool may say more.
            _ => {}
        }
    }
    Ok((name.context("the log stream has no name")?, source.context("the log stream has no valid source")?))
}

fn source_of(node: &NodeRow, source: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.mac.0).update(&source.to_le_bytes());
    crate::services::logs::source_id(&hasher)
}

struct Framed<'a> {
    logs: &'a Logs,
    stream: Stream,
    source: u64,
    /// Lines that were received.
    position: u64,
    /// Those of them that the store has.
    stored: u64,
}

impl Framed<'_> {
    async fn receive(
        mut self,
        reader: &mut (impl AsyncBufRead + Unpin),
        reports: &mpsc::Sender<Report>,
    ) -> Result<()> {
        let (mut head, mut line) = (Vec::new(), Vec::new());
        loop {
            // Lines that came together are appended together.
            if self.stream.is_full() || !has_frame(reader).await? {
                self.append(reports).await?;
            }
            head.clear();
            (&mut *reader).take(HEAD_MAX).read_until(b'\n', &mut head).await?;
            if head.is_empty() {
                self.stream.push_always(time::now_micros(), DISCONNECTED);
                // Not a line of the sender: its position stays.
                drop(self.logs.begin_append(self.stream.take(), None).await?);
                return Ok(());
            }
            if head.pop() != Some(b'\n') {
                bail!("a frame of the log stream is cut, or its head has more than {HEAD_MAX} bytes");
            }
            match frame(&head)? {
                Frame::Line { bytes, at } => {
                    line.resize(bytes, 0);
                    reader.read_exact(&mut line).await?;
                    if reader.read_u8().await? != b'\n' {
                        bail!("a line of the log stream is longer than its frame says");
                    }
                    self.stream.push(self.logs, at, &line);
                }
                Frame::Dropped { lines, at } => self.stream.push_dropped(at, lines),
                Frame::End => break,
            }
            self.position += 1;
        }
        self.append(reports).await?;
        reports.send(Report::Bye(self.position)).await.map_err(|_| anyhow!("closed"))
    }

    /// Appends what was received. Whoever reports it waits until it is durable.
    async fn append(&mut self, reports: &mpsc::Sender<Report>) -> Result<()> {
        if self.stored == self.position {
            return Ok(());
        }
        let mark = Mark { source: self.source, position: self.position };
        let chunk: Chunk = self.stream.take();
        let stored = self.logs.begin_append_in_order(chunk, self.stored, mark).await?;
        self.stored = self.position;
        reports.send(Report::Stored(self.position, stored)).await.map_err(|_| anyhow!("closed"))
    }
}

/// Whether the next frame, or a part of it, is there already.
async fn has_frame(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<bool> {
    let next = tokio::time::timeout(Duration::ZERO, reader.fill_buf()).await;
    Ok(match next {
        Ok(bytes) => !bytes?.is_empty(),
        Err(_) => false,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Line { bytes: usize, at: Option<i64> },
    Dropped { lines: u64, at: Option<i64> },
    End,
}

fn frame(head: &[u8]) -> Result<Frame> {
    let bad = || anyhow!("'{}' does not begin a frame of a log stream", head.escape_ascii());
    if head == b"END" {
        return Ok(Frame::End);
    }
    let words: Vec<&[u8]> = head.split(|b| *b == b' ').collect();
    let [kind, count, at] = words[..] else { return Err(bad()) };
    let count: u64 = std::str::from_utf8(count).ok().and_then(|c| c.parse().ok()).ok_or_else(bad)?;
    // A time that cannot be read is not a reason to lose the line.
    let at = timestamp(at).ok();
    match kind {
        b"L" if count <= LINE_MAX as u64 => Ok(Frame::Line { bytes: count as usize, at }),
        b"L" => bail!("a line of the log stream has {count} bytes: send at most {LINE_MAX} in one frame"),
        b"D" => Ok(Frame::Dropped { lines: count, at }),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_microseconds() {
        for (text, expected) in [
            ("1.5", 1_500_000),
            ("1700000000", 1_700_000_000_000_000),
            ("1700000000.123456789", 1_700_000_000_123_456),
            ("0.000001", 1),
            ("5.", 5_000_000),
        ] {
            assert_eq!(timestamp(text.as_bytes()), Ok(expected), "{text}");
        }
        for bad in ["", "-", "-1", ".5", "1.-5", "1e3", "99999999999999999", "1.5.5", "\u{e9}"] {
            assert_eq!(timestamp(bad.as_bytes()), Err(()), "{bad}");
        }
        assert_eq!(timestamp(b"\xff"), Err(()));
    }

    #[test]
    fn lines_with_a_time_of_their_own() {
        assert_eq!(stamped(b"1.5 a b", true), (Some(1_500_000), &b"a b"[..]));
        assert_eq!(stamped(b"1.5", true), (Some(1_500_000), &b""[..]));
        assert_eq!(stamped(b"x y", true), (None, &b"x y"[..]), "nothing is lost");
        assert_eq!(stamped(b"1.5 a", false), (None, &b"1.5 a"[..]));
    }

    #[test]
    fn frames() {
        assert_eq!(frame(b"L 3 1.5").unwrap(), Frame::Line { bytes: 3, at: Some(1_500_000) });
        assert_eq!(frame(b"L 0 -").unwrap(), Frame::Line { bytes: 0, at: None });
        assert_eq!(frame(b"D 12 -").unwrap(), Frame::Dropped { lines: 12, at: None });
        assert_eq!(frame(b"END").unwrap(), Frame::End);
        for bad in ["", "L", "L 3", "L -3 -", "L 3 - x", "X 3 -", "L 1048577 -", "END "] {
            assert!(frame(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(frame(format!("L {LINE_MAX} -").as_bytes()).is_ok());
    }
}
