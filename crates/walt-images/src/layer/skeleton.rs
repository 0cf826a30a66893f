//! The skeleton of a layer: its tar without the payloads, so that the same bytes can be made again.
//!
//! ```text
//! magic "WALTSKL1" | diff-id (32) | tar size u64 | entries u64     56 bytes, little endian
//! zstd stream with checksum, of records:
//!   0 end
//!   1 raw:  u32 length, bytes of the tar as they are (headers, PAX records, padding, trailer)
//!   2 file: u16 length, path below the layer's root, u64 size: here the tar has this file's bytes
//!   3 part: as 2, and u64 offset: here the tar has `size` bytes of this file, a sparse one, from there on
//! ```
//! The idea is that of Go's tar-split. Limits: raw records of at most [`MAX_RAW`] bytes.

use crate::error::{Context, Error, Result};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use walt_types::{DiffId, Hash256};

const MAGIC: &[u8; 8] = b"WALTSKL1";
const HEADER: usize = 56;
/// Longest raw record in bytes; longer runs become several records.
const MAX_RAW: usize = 1 << 20;
/// zstd level: skeletons are mostly zeros, higher levels gain nothing.
const LEVEL: i32 = 3;

/// A stored layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// Size of the uncompressed tar in bytes.
    pub size: u64,
    /// Number of tar entries.
    pub entries: u64,
}

pub(crate) struct SkeletonWriter {
    path: PathBuf,
    raw: Vec<u8>,
    out: zstd::Encoder<'static, BufWriter<File>>,
}

impl SkeletonWriter {
    pub fn create(path: &Path) -> Result<Self> {
        let what = "create the skeleton";
        let mut file = File::create(path).on(what, path)?;
        file.write_all(&[0; HEADER]).on(what, path)?;
        let mut out = zstd::Encoder::new(BufWriter::new(file), LEVEL).on(what, path)?;
        out.include_checksum(true).on(what, path)?;
        Ok(Self { path: path.to_owned(), raw: Vec::new(), out })
    }

    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(MAX_RAW) {
            if self.raw.len() + part.len() > MAX_RAW {
                self.flush()?;
            }
            self.raw.extend_from_slice(part);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        // `raw` keeps below MAX_RAW, which fits u32.
        let mut head = [1, 0, 0, 0, 0];
        head[1..].copy_from_slice(&(self.raw.len() as u32).to_le_bytes());
        let write = |out: &mut zstd::Encoder<'static, BufWriter<File>>, raw: &[u8]| {
            out.write_all(&head)?;
            out.write_all(raw)
        };
        write(&mut self.out, &self.raw).on("write the skeleton", &self.path)?;
        self.raw.clear();
        Ok(())
    }

    /// Records that the tar has the bytes of the file `path` here. `path` is below 4096 bytes.
    pub fn file(&mut self, path: &[u8], size: u64) -> Result<()> {
        self.flush()?;
        let mut record = vec![2];
        record.extend_from_slice(&(path.len() as u16).to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(&size.to_le_bytes());
        self.out.write_all(&record).on("write the skeleton", &self.path)
    }

    /// Records that the tar has `length` bytes of the file `path` from `offset` on here.
    pub fn part(&mut self, path: &[u8], offset: u64, length: u64) -> Result<()> {
        self.flush()?;
        let mut record = vec![3];
        record.extend_from_slice(&(path.len() as u16).to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&offset.to_le_bytes());
        self.out.write_all(&record).on("write the skeleton", &self.path)
    }

    /// Ends the stream and writes the header: only a finished skeleton has its magic number.
    pub fn finish(mut self, info: &LayerInfo) -> Result<()> {
        self.flush()?;
        let what = "write the skeleton";
        self.out.write_all(&[0]).on(what, &self.path)?;
        let buffer = self.out.finish().on(what, &self.path)?;
        let mut file = buffer.into_inner().map_err(|e| e.into_error()).on(what, &self.path)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&info.diff_id.0.0);
        header.extend_from_slice(&info.size.to_le_bytes());
        header.extend_from_slice(&info.entries.to_le_bytes());
        file.seek(SeekFrom::Start(0)).on(what, &self.path)?;
        file.write_all(&header).on(what, &self.path)
    }
}

/// A record of a skeleton.
pub(crate) enum Record {
    Raw(Vec<u8>),
    File { path: Vec<u8>, size: u64 },
    Part { path: Vec<u8>, offset: u64, length: u64 },
}

pub(crate) struct SkeletonReader {
    path: PathBuf,
    info: LayerInfo,
    input: Box<dyn Read + Send>,
    ended: bool,
}

impl SkeletonReader {
    /// Opens a skeleton and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).on("open the skeleton", path)?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).on("read the skeleton", path)?;
        if &header[..8] != MAGIC {
            return Err(Error::Damaged { path: path.to_owned(), why: "its first bytes are wrong".into() });
        }
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let diff_id = DiffId(Hash256(std::array::from_fn(|i| header[8 + i])));
        let info = LayerInfo { diff_id, size: word(40), entries: word(48) };
        let input = zstd::Decoder::new(BufReader::new(file)).on("read the skeleton", path)?;
        Ok(Self { path: path.to_owned(), info, input: Box::new(input), ended: false })
    }

    pub fn info(&self) -> LayerInfo {
        self.info
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Damaged { path: self.path.clone(), why: why.into() }
    }

    /// The next record; `None` at the end mark.
    pub fn next(&mut self) -> Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        let record = read_record(&mut self.input).map_err(|e| self.damaged(&e.to_string()))?;
        self.ended = record.is_none();
        Ok(record)
    }
}

pub(crate) fn read_record(input: &mut impl Read) -> io::Result<Option<Record>> {
    let mut tag = [0];
    input.read_exact(&mut tag)?;
    match tag[0] {
        0 => Ok(None),
        1 => {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            let length = u32::from_le_bytes(length) as usize;
            if length > MAX_RAW {
                return Err(io::Error::other("a record is too long"));
            }
            let mut bytes = vec![0; length];
            input.read_exact(&mut bytes)?;
            Ok(Some(Record::Raw(bytes)))
        }
        kind @ (2 | 3) => {
            let mut length = [0; 2];
            input.read_exact(&mut length)?;
            let mut path = vec![0; usize::from(u16::from_le_bytes(length))];
            input.read_exact(&mut path)?;
            let mut size = [0; 8];
            input.read_exact(&mut size)?;
            let size = u64::from_le_bytes(size);
            if kind == 2 {
                return Ok(Some(Record::File { path, size }));
            }
            let mut offset = [0; 8];
            input.read_exact(&mut offset)?;
            Ok(Some(Record::Part { path, offset: u64::from_le_bytes(offset), length: size }))
        }
        _ => Err(io::Error::other("a record has an unknown type")),
    }
}
