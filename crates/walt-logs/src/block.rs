//! Blocks: what a segment consists of.
//!
//! ```text
//! header (76 bytes)   rows, sizes, smallest and largest timestamp and number, checksums
//! directory           positions of sources; frames; in each frame, runs
//! body                frames: zstd, or as they are
//! frame               runs, one behind the other
//! run                 the lines of one stream, by time:
//!                     per line: time since the line before, number since the line before, length (variable-length)
//!                     then the text: each line with a newline behind it
//! ```
//!
//! The newline is for searches ([`crate::pattern`]); lengths say where lines end, so a line may contain newlines.
//! Everything that is read is checked against a checksum before.

use crate::catalogue::{StreamId, StreamSet};
use crate::codec::{Input, checksum, put_varint, unzigzag, zigzag};
use crate::limits::{FRAME_BYTES, MAX_BODY, MAX_DIRECTORY};
use crate::pattern::Pattern;
use std::ops::Range;

const MAGIC: u32 = u32::from_le_bytes(*b"WLB1");
/// Bytes of a header.
pub const HEADER: usize = 76;
/// Flag of a run: a line of it contains a newline.
const HAS_NEWLINE: u8 = 1;
/// Flag of a header: the last block of its batch.
const LAST: u8 = 1;
/// Flag of a header: its positions of sources are all there are.
const ALL_MARKS: u8 = 2;

/// One line before it is encoded.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Microseconds since 1970.
    pub timestamp: i64,
    /// Its number in the store.
    pub seq: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its bytes.
    pub line: &'a [u8],
}

/// How far a source has been stored; see [`crate::Store::position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Chosen at random by the source.
    pub source: u64,
    /// The position after what was stored, in units of the source.
    pub position: u64,
}

/// The first bytes of a block, which are also its entry in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    pub last: bool,
    pub all_marks: bool,
    /// Number of the batch in its segment.
    pub batch: u32,
    pub rows: u32,
    pub directory: u32,
    pub body: u32,
    /// Bytes of the body before compression.
    pub raw: u32,
    pub min_ts: i64,
    pub max_ts: i64,
    pub min_seq: u64,
    pub max_seq: u64,
    /// The server's clock when the block was written, microseconds since 1970.
    pub received: i64,
    pub directory_sum: u32,
}

impl Header {
    /// Bytes of the whole block.
    pub fn stored(&self) -> u64 {
        HEADER as u64 + u64::from(self.directory) + u64::from(self.body)
    }

    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend(MAGIC.to_le_bytes());
        out.extend([if self.last { LAST } else { 0 } | if self.all_marks { ALL_MARKS } else { 0 }, 0, 0, 0]);
        for n in [self.batch, self.rows, self.directory, self.body, self.raw] {
            out.extend(n.to_le_bytes());
        }
        for n in [self.min_ts, self.max_ts] {
            out.extend(n.to_le_bytes());
        }
        for n in [self.min_seq, self.max_seq] {
            out.extend(n.to_le_bytes());
        }
        out.extend(self.received.to_le_bytes());
        out.extend(self.directory_sum.to_le_bytes());
        out.extend([0; 4]);
        let sum = checksum(&out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        let mut array = [0; HEADER];
        array.copy_from_slice(&out);
        array
    }

    /// `None` if these bytes are not a header.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER)?;
        let mut input = Input(bytes);
        if input.u32()? != MAGIC {
            return None;
        }
        let flags = input.u8()?;
        input.bytes(3)?;
        let header = Header {
            last: flags & LAST != 0,
            all_marks: flags & ALL_MARKS != 0,
            batch: input.u32()?,
            rows: input.u32()?,
            directory: input.u32()?,
            body: input.u32()?,
            raw: input.u32()?,
            min_ts: input.i64()?,
            max_ts: input.i64()?,
            min_seq: input.u64()?,
            max_seq: input.u64()?,
            received: input.i64()?,
            directory_sum: input.u32()?,
        };
        let sound = input.u32()? == checksum(&bytes[..HEADER - 4])
            && header.directory as usize <= MAX_DIRECTORY
            && header.body as usize <= MAX_BODY
            && header.raw as usize <= MAX_BODY;
        sound.then_some(header)
    }
}

/// Bytes of the body that are compressed and checked as one.
#[derive(Debug)]
pub struct Frame {
    /// Where it starts in the body.
    pub offset: usize,
    pub stored: usize,
    pub raw: usize,
    sum: u32,
    pub runs: Range<usize>,
}

impl Frame {
    /// Whether stored bytes have the frame's checksum.
    pub fn is_intact(&self, stored: &[u8]) -> bool {
        stored.len() == self.stored && checksum(stored) == self.sum
    }
}

/// The lines of one stream.
#[derive(Debug)]
pub struct Run {
    pub stream: StreamId,
    pub rows: usize,
    /// Where it starts in its frame.
    offset: usize,
    meta: usize,
    text: usize,
    newline: bool,
    pub min_ts: i64,
    pub max_ts: i64,
}

/// What is in a block.
#[derive(Debug)]
pub struct Directory {
    pub marks: Vec<Mark>,
    pub frames: Vec<Frame>,
    pub runs: Vec<Run>,
}

impl Directory {
    /// `None` if it is damaged.
    pub fn decode(header: &Header, bytes: &[u8]) -> Option<Directory> {
        if bytes.len() != header.directory as usize || checksum(bytes) != header.directory_sum {
            return None;
        }
        let mut input = Input(bytes);
        let mut marks = Vec::new();
        for _ in 0..input.size()? {
            marks.push(Mark { source: input.u64()?, position: input.u64()? });
        }
        let (mut frames, mut runs, mut at) = (Vec::new(), Vec::<Run>::new(), 0usize);
        for _ in 0..input.size()? {
            let (stored, raw, sum) = (input.size()?, input.size()?, input.u32()?);
            let (first, mut offset) = (runs.len(), 0usize);
            for _ in 0..input.size()? {
                let stream = StreamId(u32::try_from(input.varint()?).ok()?);
                let (rows, meta, text) = (input.size()?, input.size()?, input.size()?);
                let newline = input.u8()? & HAS_NEWLINE != 0;
                let min_ts = header.min_ts.checked_add_unsigned(input.varint()?)?;
                let max_ts = min_ts.checked_add_unsigned(input.varint()?)?;
                runs.push(Run { stream, rows, offset, meta, text, newline, min_ts, max_ts });
                offset = offset.checked_add(meta)?.checked_add(text)?;
            }
            let end = at.checked_add(stored)?;
            if offset != raw || end > header.body as usize || raw > MAX_BODY {
                return None;
            }
            frames.push(Frame { offset: at, stored, raw, sum, runs: first..runs.len() });
            at = end;
        }
        let whole = at == header.body as usize && input.0.is_empty();
        whole.then_some(Directory { marks, frames, runs })
    }
}

/// Compresses frames; as they are, without one.
pub type Compressor<'a> = Option<zstd::bulk::Compressor<'a>>;

/// Encodes one block. The rows are sorted by stream, time and number.
pub fn encode(
    rows: &mut [Row<'_>],
    marks: &[Mark],
    mut header: Header,
    compressor: &mut Compressor<'_>,
) -> (Header, Vec<u8>) {
    rows.sort_unstable_by_key(|r| (r.stream, r.timestamp, r.seq));
    header.rows = rows.len() as u32;
    header.min_ts = rows.iter().map(|r| r.timestamp).min().unwrap_or(0);
    header.max_ts = rows.iter().map(|r| r.timestamp).max().unwrap_or(0);
    header.min_seq = rows.iter().map(|r| r.seq).min().unwrap_or(0);
    header.max_seq = rows.iter().map(|r| r.seq).max().unwrap_or(0);
    let mut directory = Vec::new();
    put_varint(&mut directory, marks.len() as u64);
    for mark in marks {
        directory.extend(mark.source.to_le_bytes());
        directory.extend(mark.position.to_le_bytes());
    }
    let text: usize = rows.iter().map(|r| r.line.len() + 8).sum();
    let mut body = Vec::with_capacity(text);
    let mut frame = Vec::with_capacity(FRAME_BYTES * 2);
    let (mut frames, mut frame_count) = (Vec::new(), 0u64);
    let (mut frame_runs, mut run_count) = (Vec::new(), 0u64);
    header.raw = 0;
    let mut runs = rows.chunk_by(|a, b| a.stream == b.stream).peekable();
    while let Some(run) = runs.next() {
        encode_run(run, &header, &mut frame, &mut frame_runs);
        run_count += 1;
        if frame.len() < FRAME_BYTES && runs.peek().is_some() {
            continue;
        }
        let packed =
            compressor.as_mut().and_then(|c| c.compress(&frame).ok()).filter(|p| p.len() < frame.len());
        let stored = packed.as_deref().unwrap_or(&frame);
        put_varint(&mut frames, stored.len() as u64);
        put_varint(&mut frames, frame.len() as u64);
        frames.extend(checksum(stored).to_le_bytes());
        put_varint(&mut frames, run_count);
        frames.append(&mut frame_runs);
        body.extend_from_slice(stored);
        header.raw += frame.len() as u32;
        frame_count += 1;
        run_count = 0;
        frame.clear();
    }
    put_varint(&mut directory, frame_count);
    directory.append(&mut frames);
    header.directory = directory.len() as u32;
    header.directory_sum = checksum(&directory);
    header.body = body.len() as u32;
    let mut out = Vec::with_capacity(HEADER + directory.len() + body.len());
    out.extend_from_slice(&header.encode());
    out.append(&mut directory);
    out.append(&mut body);
    (header, out)
}

/// Appends the lines of one stream to a frame, and their entry to the directory.
fn encode_run(run: &[Row<'_>], header: &Header, frame: &mut Vec<u8>, directory: &mut Vec<u8>) {
    let (first, last) = (run[0], run[run.len() - 1]);
    let start = frame.len();
    let (mut ts, mut seq, mut text, mut newline) = (first.timestamp, header.min_seq, 0, false);
    for row in run {
        // Differences wrap, as their sums do: timestamps may be anything.
        put_varint(frame, row.timestamp.wrapping_sub(ts) as u64);
        put_varint(frame, zigzag(row.seq.wrapping_sub(seq) as i64));
        put_varint(frame, row.line.len() as u64);
        (ts, seq) = (row.timestamp, row.seq);
        text += row.line.len() + 1;
        newline |= memchr::memchr(b'\n', row.line).is_some();
    }
    let meta = frame.len() - start;
    for row in run {
        frame.extend_from_slice(row.line);
        frame.push(b'\n');
    }
    put_varint(directory, u64::from(first.stream.0));
    for size in [run.len(), meta, text] {
        put_varint(directory, size as u64);
    }
    directory.push(if newline { HAS_NEWLINE } else { 0 });
    put_varint(directory, first.timestamp.wrapping_sub(header.min_ts) as u64);
    put_varint(directory, last.timestamp.wrapping_sub(first.timestamp) as u64);
}

/// What a query takes of a block.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Timestamps above this one only.
    pub after: Option<i64>,
    /// Timestamps below this one only.
    pub before: Option<i64>,
    /// Numbers from here on.
    pub seq: Range<u64>,
    /// Of these streams.
    pub streams: StreamSet,
    /// Lines that match.
    pub pattern: Option<Pattern>,
    /// Records above this one in the order of time.
    pub above: Option<(i64, u64)>,
    /// Records below this one in the order of time.
    pub below: Option<(i64, u64)>,
}

impl Filter {
    /// Whether a block or run with these timestamps may contain something.
    pub fn may_have(&self, min_ts: i64, max_ts: i64) -> bool {
        self.after.is_none_or(|t| max_ts > t)
            && self.before.is_none_or(|t| min_ts < t)
            && self.above.is_none_or(|(t, _)| max_ts >= t)
            && self.below.is_none_or(|(t, _)| min_ts <= t)
    }

    /// Whether all lines with these timestamps and numbers are taken, whatever their text.
    pub fn has_all(&self, min_ts: i64, max_ts: i64, min_seq: u64, max_seq: u64) -> bool {
        self.after.is_none_or(|t| min_ts > t)
            && self.before.is_none_or(|t| max_ts < t)
            && self.above.is_none_or(|(t, _)| min_ts > t)
            && self.below.is_none_or(|(t, _)| max_ts < t)
            && self.seq.start <= min_seq
            && max_seq < self.seq.end
    }

    /// Which part of the time between two timestamps is within the bounds.
    pub fn share(&self, min_ts: i64, max_ts: i64) -> f64 {
        let from = self.after.unwrap_or(min_ts).max(min_ts);
        let to = self.before.unwrap_or(max_ts).min(max_ts);
        let all = max_ts.wrapping_sub(min_ts) as u64;
        if all == 0 { 1.0 } else { (to as f64 - from as f64).max(0.0) / all as f64 }
    }

    /// Whether a line is taken, its text apart.
    #[inline]
    pub fn takes(&self, timestamp: i64, seq: u64) -> bool {
        self.after.is_none_or(|t| timestamp > t)
            && self.before.is_none_or(|t| timestamp < t)
            && self.seq.contains(&seq)
            && self.above.is_none_or(|key| (timestamp, seq) > key)
            && self.below.is_none_or(|key| (timestamp, seq) < key)
    }
}

/// Gives the bytes of a frame; `None` if they are damaged.
pub fn open_frame<'a>(
    frame: &Frame,
    stored: &'a [u8],
    unpacked: &'a mut Vec<u8>,
    decompressor: &mut zstd::bulk::Decompressor<'_>,
) -> Option<&'a [u8]> {
    if !frame.is_intact(stored) {
        return None;
    }
    if frame.stored == frame.raw {
        return Some(stored);
    }
    unpacked.clear();
    unpacked.reserve(frame.raw);
    decompressor.decompress_to_buffer(stored, unpacked).ok()?;
    (unpacked.len() == frame.raw).then_some(unpacked.as_slice())
}

/// Hands out the lines of a run that a filter takes, by time. `None` if it is damaged.
pub fn scan<'a>(
    header: &Header,
    run: &Run,
    frame: &'a [u8],
    filter: &Filter,
    each: &mut dyn FnMut(Row<'a>),
) -> Option<()> {
    let bytes = frame.get(run.offset..run.offset.checked_add(run.meta)?.checked_add(run.text)?)?;
    let (meta, text) = bytes.split_at(run.meta);
    let joined = filter.pattern.as_ref().filter(|p| !run.newline && p.searches_text());
    let mut hit = None;
    if let Some(pattern) = joined {
        hit = pattern.find(text, 0);
        if hit.is_none() {
            return Some(());
        }
    }
    let mut input = Input(meta);
    let (mut timestamp, mut seq, mut start) = (run.min_ts, header.min_seq, 0usize);
    for _ in 0..run.rows {
        timestamp = timestamp.wrapping_add(input.varint()? as i64);
        seq = seq.wrapping_add(unzigzag(input.varint()?) as u64);
        let end = start.checked_add(input.size()?)?;
        let line = text.get(start..end)?;
        let matches = match (joined, &filter.pattern) {
            (Some(pattern), _) => match hit {
                Some(at) if at <= end => {
                    hit = pattern.find(text, end + 1);
                    true
                }
                Some(_) => false,
                None => return Some(()),
            },
            (None, Some(pattern)) => filter.takes(timestamp, seq) && pattern.matches(line),
            (None, None) => true,
        };
        if matches && filter.takes(timestamp, seq) {
            each(Row { timestamp, seq, stream: run.stream, line });
        }
        start = end + 1;
    }
    (start == run.text && input.0.is_empty()).then_some(())
}

#[cfg(test)]
#[path = "block/tests.rs"]
mod tests;
