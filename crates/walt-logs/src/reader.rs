//! Reads blocks of segments.

use crate::block::{self, Directory, Filter, HEADER, Row, Run};
use crate::segment::{Entry, Segment};
use crate::{Error, Record};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Keeps the file that was read last open, and its buffers.
pub struct Reader {
    open: Option<(PathBuf, File)>,
    stored: Vec<u8>,
    unpacked: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Reader {
    pub fn new() -> Result<Reader, Error> {
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(Error::io("prepare to decompress", std::path::Path::new("logs")))?;
        Ok(Reader { open: None, stored: Vec::new(), unpacked: Vec::new(), decompressor })
    }

    fn read(&mut self, segment: &Segment, at: u64, length: usize) -> Result<(), Error> {
        let path = segment.path();
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            let file = File::open(path).map_err(Error::io("open", path))?;
            self.open = Some((path.to_owned(), file));
        }
        self.stored.resize(length, 0);
        if let Some((_, file)) = &self.open {
            file.read_exact_at(&mut self.stored, at).map_err(Error::io("read", path))?;
        }
        Ok(())
    }

    fn damaged(segment: &Segment, entry: &Entry) -> Error {
        let what = "the lines of a block do not have their checksum";
        Error::Damaged { path: segment.path().to_owned(), offset: entry.offset, what }
    }

    /// The directory of a block.
    pub fn directory(&mut self, segment: &Segment, entry: &Entry) -> Result<Directory, Error> {
        self.read(segment, entry.offset + HEADER as u64, entry.header.directory as usize)?;
        Directory::decode(&entry.header, &self.stored).ok_or_else(|| Self::damaged(segment, entry))
    }

    /// Hands out the lines of a block that a filter takes, stream by stream.
    pub fn each(
        &mut self,
        segment: &Segment,
        entry: &Entry,
        filter: &Filter,
        f: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        let directory = self.directory(segment, entry)?;
        let body = entry.offset + HEADER as u64 + u64::from(entry.header.directory);
        let damaged = || Self::damaged(segment, entry);
        let wanted = |r: &&Run| filter.streams.contains(r.stream) && filter.may_have(r.min_ts, r.max_ts);
        for frame in &directory.frames {
            let runs = &directory.runs[frame.runs.clone()];
            if !runs.iter().any(|r| wanted(&r)) {
                continue;
            }
            self.read(segment, body + frame.offset as u64, frame.stored)?;
            let bytes = block::open_frame(frame, &self.stored, &mut self.unpacked, &mut self.decompressor)
                .ok_or_else(damaged)?;
            for run in runs.iter().filter(wanted) {
                block::scan(&entry.header, run, bytes, filter, &mut |row| f(row)).ok_or_else(damaged)?;
            }
        }
        Ok(())
    }

    /// The lines of a block that a filter takes, by time and number.
    pub fn lines(&mut self, segment: &Segment, entry: &Entry, filter: &Filter) -> Result<Vec<Record>, Error> {
        let mut out = Vec::new();
        self.each(segment, entry, filter, &mut |row| out.push(Record::from(row)))?;
        out.sort_unstable_by_key(Record::key);
        Ok(out)
    }
}
