//! Sparse files in a tar, and copying the bytes of any file between a tar and a file.
//!
//! Source: GNU tar manual, "Storing Sparse Files": the old GNU format (type `S`), and PAX 0.0, 0.1 and 1.0.

use crate::{
    Error, Header, Result,
    header::{BLOCK, Dialect, decimal, number, write_header_as},
};
use rustix::{fs::SeekFrom, io::Errno};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
};

/// Most regions of one sparse file.
pub const MAX_REGIONS: usize = 1 << 20;
/// Bytes moved at once.
const CHUNK: usize = 1 << 18;
/// Runs of zeros of this size and alignment become holes when a file is written.
const HOLE: usize = 4096;
/// Digits of a number in a map, and its newline.
const MAX_DIGITS: usize = 20;
pub(crate) const DAMAGED: &str = "the map of its sparse file is damaged";
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Where a file with holes has bytes: offset and length.
pub type Region = (u64, u64);

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// Size of the file, holes included, in bytes.
    pub size: u64,
    /// Where its bytes are, in ascending order. `None`: what follows in the stream begins with the map.
    pub map: Option<Vec<Region>>,
}

impl Sparse {
    /// Whether the map, if it is known, fits a file of this size with `payload` bytes in the tar.
    pub(crate) fn fits(&self, payload: u64) -> bool {
        let small = i64::try_from(self.size).is_ok();
        small && self.map.as_ref().is_none_or(|map| in_order(map, self.size) == Some(payload))
    }
}

/// The bytes of the regions together, if these are in order and inside of a file of `size` bytes.
fn in_order(map: &[Region], size: u64) -> Option<u64> {
    let (mut end, mut sum) = (0u64, 0u64);
    for (offset, length) in map {
        if *offset < end {
            return None;
        }
        end = offset.checked_add(*length).filter(|end| *end <= size)?;
        sum += length;
    }
    Some(sum)
}

/// The map of a header of type `S`; `more` reads the blocks that follow it.
pub(crate) fn old_gnu(block: &[u8; BLOCK], more: &mut dyn FnMut() -> Result<[u8; BLOCK]>) -> Result<Sparse> {
    let damaged = || Error(format!("a header: {DAMAGED}"));
    let word = |field: &[u8]| number(field).and_then(|v| u64::try_from(v).ok()).ok_or_else(damaged);
    let mut map = Vec::new();
    let mut regions = |bytes: &[u8]| -> Result<()> {
        for entry in bytes.chunks_exact(24) {
            if entry[0] == 0 {
                break;
            }
            map.push((word(&entry[..12])?, word(&entry[12..])?));
        }
        if map.len() > MAX_REGIONS { Err(damaged()) } else { Ok(()) }
    };
    regions(&block[386..482])?;
    let mut extended = block[482] != 0;
    let mut blocks = 0;
    while extended {
        blocks += 1;
        if blocks > MAX_REGIONS / 21 {
            return Err(damaged());
        }
        let block = more()?;
        regions(&block[..504])?;
        extended = block[504] != 0;
    }
    Ok(Sparse { size: word(&block[483..495])?, map: Some(map) })
}

/// The PAX records `GNU.sparse.*` of one entry.
#[derive(Default)]
pub(crate) struct Records {
    seen: bool,
    major: u64,
    minor: u64,
    size: Option<u64>,
    map: Vec<Region>,
    offset: Option<u64>,
}

impl Records {
    /// Takes a record; `None` if it cannot be understood.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.seen = true;
        match key {
            b"major" => self.major = decimal(value)?,
            b"minor" => self.minor = decimal(value)?,
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" => self.offset = Some(decimal(value)?),
            b"numbytes" => self.map.push((self.offset.take()?, decimal(value)?)),
            b"map" => {
                let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                let numbers = numbers?;
                if numbers.len() % 2 != 0 {
                    return None;
                }
                self.map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            }
            b"numblocks" => drop(decimal(value)?),
            _ => return None,
        }
        (self.map.len() <= MAX_REGIONS).then_some(())
    }

    /// `None` if there was no record; else the file, or `None` if its version is not known or its size is missing.
    pub fn finish(self) -> Option<Option<Sparse>> {
        self.seen.then_some(match (self.size, self.major, self.minor) {
            (Some(size), 0, 0 | 1) => Some(Sparse { size, map: Some(self.map) }),
            (Some(size), 1, 0) => Some(Sparse { size, map: None }),
            _ => None,
        })
    }
}

/// Reads the map with which a payload begins (PAX 1.0): the regions, and the bytes taken from the payload.
fn read_map(input: &mut impl Read, payload: u64, raw: &mut Vec<u8>) -> Result<(Vec<Region>, u64)> {
    let damaged = || Error(DAMAGED.into());
    let (mut taken, mut block, mut at) = (0u64, [0; BLOCK], BLOCK);
    let mut next = || -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if at == BLOCK {
                taken += BLOCK as u64;
                if taken > payload {
                    return Err(damaged());
                }
                input.read_exact(&mut block).map_err(unreadable)?;
                raw.extend_from_slice(&block);
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'\n' => return decimal(&digits).ok_or_else(damaged),
                b'0'..=b'9' if digits.len() < MAX_DIGITS => digits.push(byte),
                _ => return Err(damaged()),
            }
        }
    };
    let count = next()?;
    if count > MAX_REGIONS as u64 {
        return Err(damaged());
    }
    let map = (0..count).map(|_| Ok((next()?, next()?))).collect::<Result<Vec<_>>>()?;
    Ok((map, taken))
}

fn unreadable(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => Error("the tar ends in the middle of a file".into()),
        _ => Error(format!("the tar cannot be read: {e}")),
    }
}

/// Why a file of a tar could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The tar cannot be read, or is damaged.
    #[error(transparent)]
    Tar(#[from] Error),
    /// The file cannot be written.
    #[error(transparent)]
    File(io::Error),
}

/// Where the bytes that follow a regular file's header belong. A map that comes before them is read, and its bytes are
/// appended to `raw`; what is left of the payload then are the regions' bytes, and padding.
pub fn read_regions(input: &mut impl Read, header: &Header, raw: &mut Vec<u8>) -> Result<Vec<Region>> {
    match &header.sparse {
        None => Ok(vec![(0, header.size)]),
        Some(Sparse { map: Some(map), .. }) => Ok(map.clone()),
        Some(sparse) => {
            let (map, taken) = read_map(input, header.size, raw)?;
            match in_order(&map, sparse.size) {
                Some(bytes) if bytes == header.size - taken => Ok(map),
                _ => Err(Error(DAMAGED.into())),
            }
        }
    }
}

/// Reads what follows a regular file's header, padding included, and writes it to `file`, which is new and empty.
/// Holes stay holes, and blocks of zeros become holes. `progress` is called with the number of bytes taken from the
/// stream since the last call.
///
/// The caller has bounded [`Header::file_size`].
pub fn read_file(
    input: &mut impl Read,
    header: &Header,
    file: &mut File,
    progress: &mut dyn FnMut(u64),
) -> std::result::Result<(), CopyError> {
    let map = read_regions(input, header, &mut Vec::new())?;
    let payload: u64 = map.iter().map(|region| region.1).sum();
    let mut buffer = vec![0; CHUNK.min(usize::try_from(payload).unwrap_or(CHUNK)).max(BLOCK)];
    for (offset, length) in map {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            // Up to an aligned position, so that zeros are found in blocks of the file.
            let want = (end - at).min((buffer.len() - at as usize % HOLE.min(buffer.len())) as u64) as usize;
            input.read_exact(&mut buffer[..want]).map_err(unreadable)?;
            write_at(file, &buffer[..want], at).map_err(CopyError::File)?;
            at += want as u64;
            progress(want as u64);
        }
    }
    file.set_len(header.file_size()).map_err(CopyError::File)?;
    let padding = (payload.next_multiple_of(BLOCK as u64) - payload) as usize;
    Ok(input.read_exact(&mut buffer[..padding]).map_err(unreadable)?)
}

/// Writes bytes at a position of a file, except whole blocks of zeros.
fn write_at(file: &mut File, bytes: &[u8], mut at: u64) -> io::Result<()> {
    let first = (at.next_multiple_of(HOLE as u64) - at).min(bytes.len() as u64) as usize;
    let (head, rest) = bytes.split_at(first);
    // Runs of blocks of one sort are written, or left out, together.
    let mut pending: &[u8] = head;
    let mut left = rest;
    while !left.is_empty() || !pending.is_empty() {
        let block = &left[..left.len().min(HOLE)];
        if block.len() == HOLE && block.iter().all(|b| *b == 0) || left.is_empty() {
            if !pending.is_empty() {
                file.seek(io::SeekFrom::Start(at))?;
                file.write_all(pending)?;
                at += pending.len() as u64;
            }
            at += block.len() as u64;
            left = &left[block.len()..];
            pending = &left[..0];
        } else {
            let start = bytes.len() - left.len() - pending.len();
            pending = &bytes[start..bytes.len() - left.len() + block.len()];
            left = &left[block.len()..];
        }
    }
    Ok(())
}

impl Header {
    /// Size of a regular file, holes included, in bytes; 0 for everything else.
    pub fn file_size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.size, |s| s.size)
    }
}

/// Where a file of `size` bytes, of which `blocks` times 512 are allocated, has bytes; `None` if its holes are not
/// worth it, or if it has more regions than a tar may have.
pub fn holes(file: &File, size: u64, blocks: u64) -> io::Result<Option<Vec<Region>>> {
    if blocks.saturating_mul(512) >= size || size < 2 * HOLE as u64 {
        return Ok(None);
    }
    let (mut map, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if map.len() == MAX_REGIONS {
            return Ok(None);
        }
        map.push((start, end - start));
        at = end;
    }
    // GNU tar takes the end of the last region for the end of the file.
    if at < size {
        map.push((size, 0));
    }
    Ok(Some(map))
}

/// The map with which the payload of a sparse file begins (PAX 1.0), padded.
pub fn write_map(map: &[Region]) -> Vec<u8> {
    let mut text = format!("{}\n", map.len());
    for (offset, length) in map {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut text = text.into_bytes();
    text.resize(text.len().next_multiple_of(BLOCK), 0);
    text
}

/// Writes a regular file's entry: headers, bytes, padding. `header.size` is the file's size, `blocks` its allocation
/// in 512 bytes; holes are not written. `progress` is called with the number of bytes read from the file since the
/// last call.
///
/// Fails, with the stream in the middle of the entry, if the file becomes shorter meanwhile.
pub fn write_file(
    out: &mut (impl Write + ?Sized),
    header: &Header,
    file: &mut File,
    blocks: u64,
    dialect: Dialect,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let (mut header, size) = (header.clone(), header.size);
    let map = if dialect == Dialect::Gnu { None } else { holes(file, size, blocks)? };
    let mut text = Vec::new();
    if let Some(map) = &map {
        text = write_map(map);
        header.size = text.len() as u64 + map.iter().map(|r| r.1).sum::<u64>();
        header.sparse = Some(Sparse { size, map: None });
    }
    let mut head = Vec::new();
    write_header_as(&mut head, &header, dialect);
    out.write_all(&head)?;
    out.write_all(&text)?;
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
    for (offset, length) in map.as_deref().unwrap_or(&[(0, size)]) {
        file.seek(io::SeekFrom::Start(*offset))?;
        let mut left = *length;
        while left > 0 {
            let want = left.min(buffer.len() as u64) as usize;
            let n = file.read(&mut buffer[..want])?;
            if n == 0 {
                return Err(io::Error::other("it became shorter while being read"));
            }
            out.write_all(&buffer[..n])?;
            left -= n as u64;
            progress(n as u64);
        }
    }
    let padding = header.size.next_multiple_of(BLOCK as u64) - header.size;
    out.write_all(&ZEROS[..padding as usize])
}
