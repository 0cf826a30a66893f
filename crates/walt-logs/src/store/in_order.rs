//! Sources that send their lines again: each line is stored once, whatever connections and disks do.

use super::{Done, Store};
use crate::block::Mark;
use crate::limits::MAX_SOURCES;
use crate::{Chunk, Error};

/// How often [`Store::resume`] tries while others resume the same source.
const RESUME_TRIES: usize = 3;

impl Store {
    /// How far a source has been stored durably. The last [`MAX_SOURCES`] ones are remembered.
    pub fn position(&self, source: u64) -> Option<u64> {
        self.inner.state.lock().marks.get(&source).map(|(position, _)| *position)
    }

    /// Where a source goes on: behind all that was appended of it, which is durable then. Whoever else appends lines of it
    /// in order cannot do so any more: the connection that it had before may still have some on their way.
    ///
    /// # Errors
    /// What was appended before cannot be written, or others resume the source at the same time ([`Error::Gap`]).
    pub fn resume(&self, source: u64) -> Result<u64, Error> {
        for _ in 0..RESUME_TRIES {
            self.inner.state.lock().expected.remove(&source);
            self.flush()?;
            let mut state = self.inner.state.lock();
            if state.expected.contains_key(&source) {
                continue;
            }
            if state.expected.len() > MAX_SOURCES {
                // Those that still send resume again.
                state.expected.clear();
            }
            let position = state.marks.get(&source).map_or(0, |(position, _)| *position);
            state.expected.insert(source, position);
            return Ok(position);
        }
        Err(Error::Gap)
    }

    /// As [`Store::append`], for a source that was resumed: its lines go on where its last ones ended, which is `from`.
    /// Once lines of it were dropped, it has to be resumed again: its position would be behind lines that are not there.
    ///
    /// # Errors
    /// [`Error::Closed`]. Others are given to `done`: [`Error::Gap`] among them.
    pub fn append_in_order(&self, chunk: Chunk, from: u64, mark: Mark, done: Done) -> Result<(), Error> {
        self.append_if(chunk, Some(mark), done, |state| match state.expected.get_mut(&mark.source) {
            Some(at) if *at == from => {
                *at = mark.position;
                true
            }
            _ => false,
        })
    }
}
