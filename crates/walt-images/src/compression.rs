//! Detects and undoes compression of streams: layers, archives and everything else.
//!
//! Only the bytes count, not a name or a media type, which are often wrong in registries. A stream that begins with a
//! tar header is a tar, even if the name of its first file looks like a magic number. Streams of several parts are
//! read as the formats' own tools do:
//!
//! | format | parts | after the last part |
//! |---|---|---|
//! | gzip  | members (RFC 1952 §2.2) | zeros are padding; anything else is ignored and reported by [`Decompressed::has_trailing_data`] |
//! | bzip2 | streams | anything is ignored, likewise |
//! | xz    | streams, zeros in multiples of four behind each ("The .xz File Format" §2) | an error |
//! | zstd  | frames and skippable frames, in any order (RFC 8878 §3.1) | an error |

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use walt_tar::{BLOCK, is_header};

/// Bytes read at once.
const CHUNK: usize = 1 << 18;
/// Most memory that one xz stream may ask for, in KiB; `xz -9` asks for 64 MiB.
const XZ_MEMORY: u32 = 512 << 10;
const GZIP: &[u8] = b"\x1f\x8b";
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// What follows `BZh` and the level: the start of a block (π), or of the end (√π).
const BZIP2_PARTS: [&[u8]; 2] = [b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90"];
/// Of zstd's skippable frames; the lowest four bits of the first byte are the writer's (`pzstd` puts sizes there).
const ZSTD_SKIPPABLE: &[u8] = b"\x2a\x4d\x18";

/// A format of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2(1).
    Bzip2,
    /// xz(1).
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "a tar",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Detects the compression of a stream by its first bytes: [`BLOCK`] bytes, or all of a shorter stream.
    pub fn of(start: &[u8]) -> Self {
        let is_tar = start.first_chunk::<BLOCK>().is_some_and(is_header);
        let is = |magic: &[u8]| start.starts_with(magic);
        let bzip2 = || is(BZIP2) && start.get(4..10).is_some_and(|part| BZIP2_PARTS.contains(&part));
        let skippable =
            || start.get(1..4) == Some(ZSTD_SKIPPABLE) && start.first().is_some_and(|b| b & 0xf0 == 0x50);
        match () {
            () if is_tar => Self::None,
            () if is(GZIP) => Self::Gzip,
            () if is(ZSTD) || skippable() => Self::Zstd,
            () if is(XZ) => Self::Xz,
            () if bzip2() => Self::Bzip2,
            () => Self::None,
        }
    }
}

/// A stream with lookahead.
struct Peek<R> {
    inner: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl<R: Read> Peek<R> {
    fn new(inner: R) -> Self {
        Self { inner, buffer: vec![0; CHUNK], at: 0, end: 0 }
    }

    /// The next `count` bytes, or fewer at the end of the stream; `count` is at most [`BLOCK`]. They are not
    /// consumed.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.at < count {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            while self.end < count {
                match self.inner.read(&mut self.buffer[self.end..]) {
                    Ok(0) => break,
                    Ok(n) => self.end += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(&self.buffer[self.at..self.end.min(self.at + count)])
    }

    /// Skips zeros and returns their count.
    fn zeros(&mut self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let there = self.fill_buf()?;
            let n = there.iter().take_while(|b| **b == 0).count();
            let more = n > 0 && n == there.len();
            self.consume(n);
            count += n as u64;
            if !more {
                return Ok(count);
            }
        }
    }
}

impl<R: Read> BufRead for Peek<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)?;
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.end);
    }
}

/// Implements `Read::read` by the methods of [`BufRead`].
pub(crate) fn read_buffered(input: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let there = input.fill_buf()?;
    let n = there.len().min(buffer.len());
    buffer[..n].copy_from_slice(&there[..n]);
    input.consume(n);
    Ok(n)
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// One member or stream of several.
#[allow(
    clippy::large_enum_variant,
    reason = "one of them is in use at a time, and it is never moved while it is read"
)]
enum Part<R: Read> {
    Gzip(flate2::bufread::GzDecoder<Peek<R>>),
    Bzip2(bzip2::bufread::BzDecoder<Peek<R>>),
    // Its state is several times that of the others.
    Xz(Box<lzma_rust2::XzReader<Peek<R>>>),
    /// Between parts.
    None(Peek<R>),
    Ended,
}

impl<R: Read> Part<R> {
    fn next(self) -> Self {
        match self {
            Self::Gzip(decoder) => Self::None(decoder.into_inner()),
            Self::Bzip2(decoder) => Self::None(decoder.into_inner()),
            Self::Xz(decoder) => Self::None(decoder.into_inner()),
            other => other,
        }
    }
}

/// A stream of several parts. The formats' crates have such readers, but those fail at padding, or where a part
/// begins at the end of a buffer.
struct Parts<R: Read> {
    compression: Compression,
    part: Part<R>,
    is_first: bool,
    rest: Arc<AtomicBool>,
}

impl<R: Read> Parts<R> {
    /// Starts the next part, if there is one.
    fn next(&mut self, mut input: Peek<R>) -> io::Result<Part<R>> {
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        let padding = match (self.is_first, self.compression) {
            (false, Compression::Gzip | Compression::Xz) => input.zeros()?,
            _ => 0,
        };
        if self.compression == Compression::Xz && padding % 4 != 0 {
            return wrong("the padding after an xz stream is not a multiple of four bytes");
        }
        let start = input.peek(BLOCK)?;
        if start.is_empty() && !self.is_first {
            return Ok(Part::Ended);
        }
        // gzip treats everything after zeros as garbage.
        let garbage = padding > 0 && self.compression == Compression::Gzip;
        let fits = self.is_first || Compression::of(start) == self.compression && !garbage;
        self.is_first = false;
        Ok(match self.compression {
            Compression::Gzip if fits => Part::Gzip(flate2::bufread::GzDecoder::new(input)),
            Compression::Bzip2 if fits => Part::Bzip2(bzip2::bufread::BzDecoder::new(input)),
            Compression::Xz if fits => {
                Part::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(input, false, XZ_MEMORY)))
            }
            Compression::Xz => return wrong("an xz stream is followed by something else"),
            _ => {
                self.rest.store(true, Ordering::Relaxed);
                Part::Ended
            }
        })
    }
}

impl<R: Read> Read for Parts<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let n = match &mut self.part {
                Part::Gzip(decoder) => decoder.read(buffer)?,
                Part::Bzip2(decoder) => decoder.read(buffer)?,
                Part::Xz(decoder) => decoder.read(buffer)?,
                Part::None(_) => 0,
                Part::Ended => return Ok(0),
            };
            if n > 0 {
                return Ok(n);
            }
            self.part = match std::mem::replace(&mut self.part, Part::Ended).next() {
                Part::None(input) => self.next(input)?,
                other => other,
            };
        }
    }
}

/// A decompressed stream.
pub struct Decompressed<'a> {
    /// What it was compressed with.
    pub compression: Compression,
    reader: Peek<Box<dyn Read + 'a>>,
    rest: Arc<AtomicBool>,
}

impl Decompressed<'_> {
    /// The first [`BLOCK`] bytes, or fewer if the stream is shorter. They are not consumed.
    pub fn first_block(&mut self) -> io::Result<&[u8]> {
        self.reader.peek(BLOCK)
    }

    /// Whether bytes after the end were ignored. Known once everything is read.
    pub fn has_trailing_data(&self) -> bool {
        self.rest.load(Ordering::Relaxed)
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Decompresses a stream; the format is detected from its first bytes.
///
/// # Errors
/// The stream cannot be read. Errors in the compressed data show up later, when the result is read.
pub fn decompress<'a>(input: impl Read + 'a) -> io::Result<Decompressed<'a>> {
    let mut input = Peek::new(input);
    let compression = Compression::of(input.peek(BLOCK)?);
    let rest = Arc::new(AtomicBool::new(false));
    let reader: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(input),
        // Its decoder knows frames of both kinds.
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
        _ => Box::new(Parts { compression, part: Part::None(input), is_first: true, rest: rest.clone() }),
    };
    Ok(Decompressed { compression, reader: Peek::new(reader), rest })
}

#[cfg(test)]
mod tests;
