//! Segments: files of blocks. `<first number>.log` is written; `<first>-<last>.zst` is one or several of them, sorted by
//! time and compressed, with an index at its end.
//!
//! ```text
//! file      head (32 bytes), blocks, and in compressed ones: index, trailer (32 bytes)
//! index     per block: offset, header; numbers of streams
//! ```
//!
//! A `.log` has no index: after a crash its headers are read from the start. A batch is a sequence of blocks; the last one
//! is flagged. What is behind the last complete batch was never acknowledged and is cut off.

use crate::Error;
use crate::block::{Directory, HEADER, Header, Mark};
use crate::catalogue::{StreamId, StreamSet};
use crate::codec::{Input, checksum, put_varint};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: &[u8; 8] = b"WALTLOGS";
const TRAILER_MAGIC: &[u8; 8] = b"WALTLEND";
const VERSION: u32 = 1;
/// Bytes of a file's head.
pub const HEAD: usize = 32;
const TRAILER: usize = 32;
/// Bytes that are looked through at once for a block behind a damaged one.
const RESYNC: usize = 1 << 20;

/// A block's place in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub offset: u64,
    pub header: Header,
}

/// A file that may be removed while queries still read it: the last one removes it.
#[derive(Debug)]
pub struct SegmentFile {
    pub path: PathBuf,
    doomed: AtomicBool,
}

impl SegmentFile {
    pub fn new(path: PathBuf) -> Arc<SegmentFile> {
        Arc::new(SegmentFile { path, doomed: AtomicBool::new(false) })
    }

    /// Has the file removed once nobody reads it.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            // If this fails, the next start finds the file and removes it again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where blocks are, in memory.
#[derive(Debug, Clone)]
pub struct Segment {
    pub file: Arc<SegmentFile>,
    pub first_seq: u64,
    /// The number of the last line.
    pub last_seq: u64,
    /// Bytes of the file.
    pub bytes: u64,
    pub rows: u64,
    pub blocks: Vec<Entry>,
    /// `None` if it is not known: any stream may be in it.
    pub streams: Option<StreamSet>,
    /// The server's clock at the last block, microseconds since 1970.
    pub received: i64,
    pub compressed: bool,
    /// Blocks that cannot be read: offset and reason.
    pub damage: Vec<(u64, &'static str)>,
}

impl Segment {
    pub fn empty(path: PathBuf, first_seq: u64) -> Segment {
        Segment {
            file: SegmentFile::new(path),
            first_seq,
            last_seq: first_seq,
            bytes: HEAD as u64,
            rows: 0,
            blocks: Vec::new(),
            streams: None,
            received: 0,
            compressed: false,
            damage: Vec::new(),
        }
    }

    /// Takes a block that lies at the end.
    pub fn push(&mut self, header: Header) {
        if header.rows > 0 {
            self.blocks.push(Entry { offset: self.bytes, header });
            self.last_seq = self.last_seq.max(header.max_seq);
            self.rows += u64::from(header.rows);
        }
        self.received = header.received;
        self.bytes += header.stored();
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The first bytes of a file.
pub fn head(first_seq: u64) -> [u8; HEAD] {
    let mut out = [0; HEAD];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&first_seq.to_le_bytes());
    let sum = checksum(&out[..28]);
    out[28..].copy_from_slice(&sum.to_le_bytes());
    out
}

fn read_head(file: &File, path: &Path) -> Result<u64, Error> {
    let mut bytes = [0; HEAD];
    file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    let damaged =
        || Error::Damaged { path: path.to_owned(), offset: 0, what: "it does not start as a segment does" };
    if &bytes[..8] != MAGIC || checksum(&bytes[..28]).to_le_bytes() != bytes[28..] {
        return Err(damaged());
    }
    let mut input = Input(&bytes[8..]);
    if input.u32() != Some(VERSION) {
        return Err(Error::Version(path.to_owned()));
    }
    input.u32();
    input.u64().ok_or_else(damaged)
}

/// What a `.log` contains.
pub struct Scanned {
    pub segment: Segment,
    /// Positions of sources, in the order of their batches.
    pub marks: Vec<Mark>,
    /// Number of the last complete batch.
    pub batch: u32,
}

/// Reads all blocks of a `.log`. The segment ends behind the last complete batch; bytes behind that are not removed.
pub fn scan(path: &Path) -> Result<Scanned, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let first_seq = read_head(&file, path)?;
    let mut done =
        Scanned { segment: Segment::empty(path.to_owned(), first_seq), marks: Vec::new(), batch: 0 };
    // What belongs to the batch that is being read.
    let (mut open, mut open_marks) = (Vec::<Entry>::new(), Vec::<Mark>::new());
    let (mut at, mut bad, mut streams) = (HEAD as u64, None, StreamSet::default());
    let mut buffer = Vec::new();
    while at < length {
        let block = read_whole(&file, path, at, length, &mut buffer)?;
        let (header, directory) = match block {
            Ok(block) => block,
            Err(what) => {
                bad = bad.or(Some((at, what)));
                match next_block(&file, path, at + 1, length)? {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            }
        };
        // Batches are written one after the other: behind a torn one there is none of a later number. If there is one,
        // this is damage of what was acknowledged, and the rest of it is kept.
        if let Some(damage) = bad.take_if(|_| header.batch > done.batch + 1) {
            done.segment.damage.push(damage);
            commit(&mut done, &mut open, &mut open_marks);
        }
        for run in &directory.runs {
            streams.insert(run.stream);
        }
        open_marks.extend(directory.marks);
        open.push(Entry { offset: at, header });
        at += header.stored();
        if header.last && bad.is_none() {
            commit(&mut done, &mut open, &mut open_marks);
            done.batch = header.batch;
        }
    }
    done.segment.streams = Some(streams);
    Ok(done)
}

fn commit(done: &mut Scanned, open: &mut Vec<Entry>, marks: &mut Vec<Mark>) {
    for entry in open.drain(..) {
        done.segment.bytes = entry.offset;
        done.segment.push(entry.header);
    }
    done.marks.append(marks);
}

type Block = Result<(Header, Directory), &'static str>;

/// Reads a block and compares all its checksums.
pub fn read_whole(
    file: &File,
    path: &Path,
    at: u64,
    length: u64,
    buffer: &mut Vec<u8>,
) -> Result<Block, Error> {
    if length - at < HEADER as u64 {
        return Ok(Err("it ends inside of a block's header"));
    }
    buffer.resize(HEADER, 0);
    file.read_exact_at(buffer, at).map_err(Error::io("read", path))?;
    let Some(header) = Header::decode(buffer) else {
        return Ok(Err("there is not a block's header"));
    };
    if length - at < header.stored() {
        return Ok(Err("it ends inside of a block"));
    }
    let (directory, body) = (header.directory as usize, header.body as usize);
    buffer.resize(directory + body, 0);
    file.read_exact_at(buffer, at + HEADER as u64).map_err(Error::io("read", path))?;
    let Some(decoded) = Directory::decode(&header, &buffer[..directory]) else {
        return Ok(Err("the directory of a block does not have its checksum"));
    };
    let body = &buffer[directory..];
    if decoded.frames.iter().any(|f| !f.is_intact(&body[f.offset..f.offset + f.stored])) {
        return Ok(Err("the lines of a block do not have their checksum"));
    }
    Ok(Ok((header, decoded)))
}

/// Where the next intact header is.
fn next_block(file: &File, path: &Path, mut at: u64, length: u64) -> Result<Option<u64>, Error> {
    let mut buffer = vec![0; RESYNC];
    while at + HEADER as u64 <= length {
        let n = usize::try_from(length - at).unwrap_or(RESYNC).min(RESYNC);
        file.read_exact_at(&mut buffer[..n], at).map_err(Error::io("read", path))?;
        for i in memchr::memmem::find_iter(&buffer[..n], b"WLB1") {
            if Header::decode(&buffer[i..n]).is_some() {
                return Ok(Some(at + i as u64));
            }
        }
        if n < RESYNC {
            break;
        }
        at += (n - HEADER + 1) as u64;
    }
    Ok(None)
}

/// The end of a compressed segment: its index and its trailer.
pub fn index(blocks: &[Entry], streams: &StreamSet, offset: u64, received: i64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, blocks.len() as u64);
    for block in blocks {
        out.extend(block.offset.to_le_bytes());
        out.extend(block.header.encode());
    }
    put_varint(&mut out, streams.iter().count() as u64);
    let mut before = 0;
    for id in streams.iter() {
        put_varint(&mut out, u64::from(id.0 - before));
        before = id.0;
    }
    let (length, sum) = (out.len() as u32, checksum(&out));
    out.extend(offset.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(sum.to_le_bytes());
    out.extend(received.to_le_bytes());
    out.extend(TRAILER_MAGIC);
    out
}

/// Reads the index of a compressed segment.
pub fn open_compressed(path: &Path, last_seq: u64) -> Result<Segment, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let first_seq = read_head(&file, path)?;
    let damaged =
        |what| Error::Damaged { path: path.to_owned(), offset: length.saturating_sub(TRAILER as u64), what };
    let broken = || damaged("its index is not intact");
    let at = length.checked_sub(TRAILER as u64).ok_or_else(broken)?;
    let mut trailer = [0; TRAILER];
    file.read_exact_at(&mut trailer, at).map_err(Error::io("read", path))?;
    if &trailer[24..] != TRAILER_MAGIC {
        return Err(broken());
    }
    let mut input = Input(&trailer);
    let (Some(offset), Some(size), Some(sum), Some(received)) =
        (input.u64(), input.u32(), input.u32(), input.i64())
    else {
        return Err(broken());
    };
    if offset.checked_add(u64::from(size)) != Some(at) {
        return Err(broken());
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, offset).map_err(Error::io("read", path))?;
    if checksum(&bytes) != sum {
        return Err(broken());
    }
    let mut segment = Segment::empty(path.to_owned(), first_seq);
    read_index(&mut segment, &bytes).ok_or_else(broken)?;
    segment.bytes = length;
    segment.last_seq = last_seq;
    segment.received = received;
    segment.compressed = true;
    Ok(segment)
}

fn read_index(segment: &mut Segment, bytes: &[u8]) -> Option<()> {
    let mut input = Input(bytes);
    for _ in 0..input.varint()? {
        let offset = input.u64()?;
        let header = Header::decode(input.bytes(HEADER)?)?;
        segment.blocks.push(Entry { offset, header });
        segment.rows += u64::from(header.rows);
    }
    let (mut streams, mut id) = (StreamSet::default(), 0u32);
    for _ in 0..input.varint()? {
        id = id.checked_add(u32::try_from(input.varint()?).ok()?)?;
        if id as usize >= crate::limits::MAX_STREAMS {
            return None;
        }
        streams.insert(StreamId(id));
    }
    segment.streams = Some(streams);
    input.0.is_empty().then_some(())
}

/// Makes names in a directory durable.
pub fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("write to", dir))
}

/// What the name of a file says.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    Log { first_seq: u64 },
    Compressed { first_seq: u64, last_seq: u64 },
    Temporary,
    Other,
}

pub fn log_name(first_seq: u64) -> String {
    format!("{first_seq:016x}.log")
}

pub fn compressed_name(first_seq: u64, last_seq: u64) -> String {
    format!("{first_seq:016x}-{last_seq:016x}.zst")
}

pub fn parse_name(name: &str) -> Name {
    let number = |s: &str| (s.len() == 16).then(|| u64::from_str_radix(s, 16).ok()).flatten();
    if name.ends_with(".tmp") {
        return Name::Temporary;
    }
    if let Some(first_seq) = name.strip_suffix(".log").and_then(number) {
        return Name::Log { first_seq };
    }
    let range = name.strip_suffix(".zst").and_then(|r| r.split_once('-'));
    match range.and_then(|(a, b)| number(a).zip(number(b))) {
        Some((first_seq, last_seq)) => Name::Compressed { first_seq, last_seq },
        None => Name::Other,
    }
}

#[cfg(test)]
#[path = "segment/tests.rs"]
mod tests;
