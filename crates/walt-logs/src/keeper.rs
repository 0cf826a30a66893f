//! What becomes of closed segments: they are compressed, several small ones into one, and they expire.

use crate::Error;
use crate::block::{self, Filter, Header, Row};
use crate::catalogue::{StreamId, StreamSet};
use crate::limits::{BLOCK_BYTES, KEEPER_PERIOD, SEGMENT_BYTES, SEGMENT_ROWS, ZSTD_LEVEL};
use crate::reader::Reader;
use crate::segment::{self, Segment};
use crate::store::{Inner, Store, now};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Where a line is in the text of the group that is compressed.
struct Place {
    timestamp: i64,
    seq: u64,
    stream: StreamId,
    start: usize,
    length: usize,
}

/// Writes segments as one that is sorted by time and compressed. Only the known streams stay; `None` if that is nothing.
/// It has its name once it is durable. Memory: the text, and 40 bytes for each line.
fn compress(dir: &Path, group: &[Arc<Segment>], known: &StreamSet) -> Result<Option<Segment>, Error> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(None) };
    let (mut text, mut places) = (Vec::new(), Vec::new());
    let filter = Filter { seq: 0..u64::MAX, streams: known.clone(), ..Filter::default() };
    let mut reader = Reader::new()?;
    for segment in group {
        for entry in &segment.blocks {
            reader.each(segment, entry, &filter, &mut |row| {
                let (start, length) = (text.len(), row.line.len());
                text.extend_from_slice(row.line);
                places.push(Place {
                    timestamp: row.timestamp,
                    seq: row.seq,
                    stream: row.stream,
                    start,
                    length,
                });
            })?;
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    places.sort_unstable_by_key(|p| (p.timestamp, p.seq));
    let path = dir.join(segment::compressed_name(first.first_seq, last.last_seq));
    let mut out = Segment::empty(path.clone(), first.first_seq);
    let temporary = path.with_extension("tmp");
    let made = write(&temporary, &mut out, &text, &places, last.received);
    if let Err(e) = made {
        // A file that stays is removed at the next start.
        let _ = std::fs::remove_file(&temporary);
        return Err(e);
    }
    std::fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
    segment::sync_directory(dir)?;
    (out.last_seq, out.compressed) = (last.last_seq, true);
    Ok(Some(out))
}

fn write(
    temporary: &Path,
    out: &mut Segment,
    text: &[u8],
    places: &[Place],
    received: i64,
) -> Result<(), Error> {
    let failed = || Error::io("write to", temporary);
    let mut file = File::create(temporary).map_err(Error::io("make", temporary))?;
    file.write_all(&segment::head(out.first_seq)).map_err(failed())?;
    let mut compressor = Some(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed())?);
    let mut rest = places;
    while !rest.is_empty() {
        let mut bytes = 0;
        let count = rest.iter().take_while(|p| {
            let fits = bytes < BLOCK_BYTES;
            bytes += p.length + 8;
            fits
        });
        let (block, behind) = rest.split_at(count.count());
        rest = behind;
        let row = |p: &Place| Row {
            timestamp: p.timestamp,
            seq: p.seq,
            stream: p.stream,
            line: &text[p.start..p.start + p.length],
        };
        let mut rows: Vec<Row> = block.iter().map(row).collect();
        // Each block is a batch of its own: without the index, the file is read as one that is not compressed.
        let header = Header { last: true, batch: out.blocks.len() as u32 + 1, received, ..Header::default() };
        let (header, bytes) = block::encode(&mut rows, &[], header, &mut compressor);
        file.write_all(&bytes).map_err(failed())?;
        out.push(header);
    }
    let streams: StreamSet = places.iter().map(|p| p.stream).collect();
    let index = segment::index(&out.blocks, &streams, out.bytes, received);
    file.write_all(&index).and_then(|()| file.sync_all()).map_err(failed())?;
    out.bytes += index.len() as u64;
    out.streams = Some(streams);
    Ok(())
}

impl Inner {
    /// The keeper's thread.
    pub fn keep_segments(&self) {
        let mut idle = true;
        loop {
            let mut state = self.state.lock();
            if !state.closing && idle {
                self.chores.wait_for(&mut state, KEEPER_PERIOD);
            }
            if state.closing {
                return;
            }
            if state.active_is_old() {
                state.rotate = true;
                self.work.notify_one();
            }
            drop(state);
            self.expire(now());
            idle = match self.compress_some(false) {
                Ok(compressed) => !compressed,
                Err(e) => {
                    // A damaged segment stays as it is; a full disk may have room the next time.
                    self.state.lock().failed(e);
                    true
                }
            };
        }
    }

    /// Closed segments that are worth a compressed one: neighbours, about as many lines as one segment takes.
    fn group(&self, all: bool) -> Vec<Arc<Segment>> {
        let state = self.state.lock();
        let (mut group, mut rows, mut bytes) = (Vec::<Arc<Segment>>::new(), 0, 0);
        for segment in &state.sealed {
            let suitable = !segment.compressed && segment.damage.is_empty();
            if suitable
                && (group.is_empty()
                    || rows + segment.rows <= SEGMENT_ROWS && bytes + segment.bytes <= SEGMENT_BYTES)
            {
                rows += segment.rows;
                bytes += segment.bytes;
                group.push(Arc::clone(segment));
            } else if !group.is_empty() {
                // What follows does not fit, or cannot be joined: the group is as large as it gets.
                return group;
            }
        }
        if all || rows >= SEGMENT_ROWS / 2 || bytes >= SEGMENT_BYTES / 2 { group } else { Vec::new() }
    }

    /// Compresses one group of segments; small ones that may get neighbours only if `all` is set.
    pub fn compress_some(&self, all: bool) -> Result<bool, Error> {
        let _one = self.compressing.lock();
        let group = self.group(all);
        if group.is_empty() {
            return Ok(false);
        }
        let known: StreamSet = self.catalogue.lock().streams_from(0).map(|info| info.id).collect();
        let compressed = compress(&self.dir, &group, &known).inspect_err(|e| {
            if let Error::Damaged { offset, what, .. } = e {
                self.mark_damaged(&group, e, *offset, what);
            }
        })?;
        let mut state = self.state.lock();
        let is_member = |s: &Arc<Segment>| group.iter().any(|g| Arc::ptr_eq(g, s));
        let at = state.sealed.iter().position(is_member);
        if state.sealed.iter().filter(|s| is_member(s)).count() < group.len() {
            // Some have expired meanwhile: what was made of them goes as well.
            compressed.inspect(|segment| segment.file.doom());
            return Ok(true);
        }
        state.sealed.retain(|s| !is_member(s));
        if let (Some(at), Some(segment)) = (at, compressed) {
            state.sealed.insert(at, Arc::new(segment));
        }
        drop(state);
        group.iter().for_each(|segment| segment.file.doom());
        Ok(true)
    }

    /// Remembers damage that was found while compressing, so that the segment is left alone from now on.
    fn mark_damaged(&self, group: &[Arc<Segment>], error: &Error, offset: u64, what: &'static str) {
        let Error::Damaged { path, .. } = error else { return };
        let mut state = self.state.lock();
        for segment in &mut state.sealed {
            if segment.path() == path && group.iter().any(|g| Arc::ptr_eq(g, segment)) {
                let mut marked = Segment::clone(segment);
                marked.damage.push((offset, what));
                *segment = Arc::new(marked);
            }
        }
    }

    /// Removes segments that are too old at a time (microseconds since 1970), and the oldest ones above the size.
    pub fn expire(&self, now: i64) {
        let mut state = self.state.lock();
        let mut gone = Vec::new();
        if let Some(keep) = state.retention.keep {
            let limit = now.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
            gone.extend(state.sealed.extract_if(.., |s| s.received < limit));
        }
        if let Some(max) = state.retention.max_size {
            while state.total_bytes() > max && !state.sealed.is_empty() {
                gone.push(state.sealed.remove(0));
            }
        }
        for segment in &gone {
            state.expired(segment.rows);
            segment.file.doom();
        }
    }
}

impl Store {
    /// Compresses all closed segments now, and not only when there are enough of them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`]; what was not compressed stays as it is.
    pub fn compress(&self) -> Result<(), Error> {
        while self.inner.compress_some(true)? {}
        Ok(())
    }

    /// Removes what is too old or too much at this time (microseconds since 1970); the store does it itself every
    /// [`KEEPER_PERIOD`].
    pub fn expire(&self, now: i64) {
        self.inner.expire(now);
    }
}
