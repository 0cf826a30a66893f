//! Lines that are appended together.

use crate::Error;
use crate::block::Row;
use crate::catalogue::StreamId;
use crate::limits::{MAX_CHUNK_BYTES, MAX_CHUNK_ROWS, MAX_LINE};

/// Lines on their way to the store, in the order in which they came. Making a chunk takes no lock.
#[derive(Debug, Default)]
pub struct Chunk {
    text: Vec<u8>,
    rows: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    timestamp: i64,
    stream: StreamId,
    end: u32,
}

impl Chunk {
    /// An empty one.
    pub fn new() -> Chunk {
        Chunk::default()
    }

    /// Adds a line: any bytes, without the newline that ended it. The timestamp is in microseconds since 1970.
    ///
    /// # Errors
    /// [`Error::LineTooLong`]; [`Error::ChunkFull`] if the chunk has to be appended first.
    pub fn push(&mut self, stream: StreamId, timestamp: i64, line: &[u8]) -> Result<(), Error> {
        if line.len() > MAX_LINE {
            return Err(Error::LineTooLong(line.len()));
        }
        if self.rows.len() >= MAX_CHUNK_ROWS || self.text.len() >= MAX_CHUNK_BYTES {
            return Err(Error::ChunkFull);
        }
        self.text.extend_from_slice(line);
        self.rows.push(Place { timestamp, stream, end: self.text.len() as u32 });
        Ok(())
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of text.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The lines from an index on, numbered from `base` on.
    pub(crate) fn rows(&self, base: u64, from: usize) -> impl Iterator<Item = Row<'_>> {
        let mut start = if from == 0 { 0 } else { self.rows.get(from - 1).map_or(0, |p| p.end as usize) };
        self.rows.iter().enumerate().skip(from).map(move |(i, place)| {
            let line = &self.text[start..place.end as usize];
            start = place.end as usize;
            Row { timestamp: place.timestamp, seq: base + i as u64, stream: place.stream, line }
        })
    }
}
