//! A stream of unknown length, as files of a backup: its parts, numbered.

use super::sink::Sink;
use anyhow::Result;
use std::io::{self, Write};

/// Bytes of a part; the last one may have less.
pub const PART_SIZE: usize = 16 << 20;

/// Writes a stream as the files `<dir>/000000`, `<dir>/000001`, …
pub struct Parts<'a> {
    sink: &'a mut Sink,
    dir: String,
    number: usize,
    buffer: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// An empty stream.
    pub fn new(sink: &'a mut Sink, dir: String) -> Self {
        Self { sink, dir, number: 0, buffer: Vec::new() }
    }

    fn put(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        let path = format!("{}/{:06}", self.dir, self.number);
        self.number += 1;
        self.sink.write(&path, bytes.len() as u64, |to| Ok(to.write_all(&bytes)?))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As in [`Sink::write`].
    pub fn finish(mut self) -> Result<()> {
        self.put()
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PART_SIZE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == PART_SIZE {
            self.put().map_err(|e| io::Error::other(format!("{e:#}")))?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
