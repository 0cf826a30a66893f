//! What the writer's thread does with files: batches become blocks, segments begin.

use crate::Error;
use crate::block::{self, Header, Mark, Row};
use crate::limits::{BLOCK_BYTES, BLOCK_GAP, BLOCK_PARTS};
use crate::segment::{self, Segment};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The segment that is written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    /// Where the next batch starts.
    length: u64,
    batch: u32,
    /// A failed write could not be taken back: the next batch needs another file.
    broken: bool,
}

impl Writer {
    /// Goes on behind what was read of a `.log`; what is behind that is cut off.
    pub fn resume(segment: &Segment, batch: u32) -> Result<Writer, Error> {
        let path = segment.path().to_owned();
        let file = OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))?;
        file.set_len(segment.bytes).and_then(|()| file.sync_all()).map_err(Error::io("cut", &path))?;
        Ok(Writer { file, path, length: segment.bytes, batch, broken: false })
    }

    /// Begins a segment with the positions of all sources. It has its name once it is durable.
    pub fn begin(dir: &Path, first_seq: u64, marks: &[Mark], now: i64) -> Result<(Writer, Segment), Error> {
        let path = dir.join(segment::log_name(first_seq));
        let temporary = path.with_extension("tmp");
        let header = Header { last: true, all_marks: true, batch: 1, received: now, ..Header::default() };
        let (header, bytes) = block::encode(&mut [], marks, header, &mut None);
        let mut file = File::create(&temporary).map_err(Error::io("make", &temporary))?;
        let written = io::Write::write_all(&mut file, &segment::head(first_seq))
            .and_then(|()| io::Write::write_all(&mut file, &bytes))
            .and_then(|()| file.sync_all());
        if let Err(e) = written {
            // A file without its name is removed at the next start as well.
            let _ = std::fs::remove_file(&temporary);
            return Err(Error::io("write to", &temporary)(e));
        }
        std::fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        segment::sync_directory(dir)?;
        let mut begun = Segment::empty(path.clone(), first_seq);
        begun.push(header);
        Ok((Writer { file, path, length: begun.bytes, batch: 1, broken: false }, begun))
    }

    /// Whether the next batch needs another segment.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a batch durable, and gives the headers of its blocks. If it fails, nothing of it stays.
    pub fn write(
        &mut self,
        mut rows: Vec<Row<'_>>,
        marks: &[Mark],
        now: i64,
    ) -> Result<Vec<Header>, io::Error> {
        let blocks = cut(&mut rows);
        let mut out = Vec::new();
        let mut headers = Vec::with_capacity(blocks.len());
        let count = blocks.len();
        for (i, range) in blocks.into_iter().enumerate() {
            let last = i + 1 == count;
            let header = Header { last, batch: self.batch + 1, received: now, ..Header::default() };
            let marks = if last { marks } else { &[] };
            let (header, bytes) = block::encode(&mut rows[range], marks, header, &mut None);
            out.extend_from_slice(&bytes);
            headers.push(header);
        }
        if let Err(e) = self.file.write_all_at(&out, self.length).and_then(|()| self.file.sync_data()) {
            self.broken = self.file.set_len(self.length).and_then(|()| self.file.sync_all()).is_err();
            return Err(e);
        }
        self.length += out.len() as u64;
        self.batch += 1;
        Ok(headers)
    }
}

/// Divides a batch into blocks: by time, where it has gaps, and by size. A batch without lines is one empty block.
fn cut(rows: &mut [Row<'_>]) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    for part in parts(rows) {
        let (mut start, mut bytes) = (part.start, 0);
        for i in part.clone() {
            if bytes >= BLOCK_BYTES {
                blocks.push(start..i);
                (start, bytes) = (i, 0);
            }
            bytes += rows[i].line.len() + 8;
        }
        blocks.push(start..part.end);
    }
    blocks
}

fn parts(rows: &mut [Row<'_>]) -> Vec<Range<usize>> {
    let distance = |a: i64, b: i64| b.wrapping_sub(a) as u64;
    let times = || rows.iter().map(|r| r.timestamp);
    let whole = 0..rows.len();
    let (Some(min), Some(max)) = (times().min(), times().max()) else {
        return vec![whole];
    };
    if distance(min, max) <= BLOCK_GAP as u64 {
        return vec![whole];
    }
    rows.sort_by_key(|r| r.timestamp);
    let gap = |i: &usize| distance(rows[*i - 1].timestamp, rows[*i].timestamp);
    let mut cuts: Vec<usize> = (1..rows.len()).filter(|i| gap(i) > BLOCK_GAP as u64).collect();
    cuts.sort_by_key(|i| std::cmp::Reverse(gap(i)));
    cuts.truncate(BLOCK_PARTS - 1);
    cuts.push(rows.len());
    cuts.sort_unstable();
    let mut start = 0;
    cuts.into_iter().map(|end| std::mem::replace(&mut start, end)..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::StreamId;

    fn rows(times: &[i64]) -> Vec<Row<'static>> {
        let row =
            |(i, t): (usize, &i64)| Row { timestamp: *t, seq: i as u64, stream: StreamId(0), line: b"x" };
        times.iter().enumerate().map(row).collect()
    }

    #[test]
    fn a_clock_that_is_off_gets_blocks_of_its_own() {
        let second = 1_000_000;
        let mut batch = rows(&[900 * second, 5, 901 * second, 6, i64::MAX, i64::MIN]);
        let blocks = cut(&mut batch);
        let times: Vec<Vec<i64>> =
            blocks.into_iter().map(|b| batch[b].iter().map(|r| r.timestamp).collect()).collect();
        assert_eq!(times, [vec![i64::MIN], vec![5, 6], vec![900 * second, 901 * second], vec![i64::MAX]]);
    }

    #[test]
    fn random_timestamps_make_few_blocks() {
        let times: Vec<i64> = (0..1000).map(|i| (i * 7919 % 1000) * 3_600_000_000).collect();
        let mut batch = rows(&times);
        let blocks = cut(&mut batch);
        assert_eq!(blocks.len(), BLOCK_PARTS);
        assert_eq!(blocks.iter().map(|b| b.len()).sum::<usize>(), 1000);
    }

    #[test]
    fn blocks_end_at_their_size() {
        let line = vec![b'x'; BLOCK_BYTES / 2];
        let mut batch: Vec<Row> =
            (0..5).map(|i| Row { timestamp: i, seq: i as u64, stream: StreamId(0), line: &line }).collect();
        assert_eq!(cut(&mut batch), [0..2, 2..4, 4..5]);
        let nothing = cut(&mut []);
        assert!(nothing.len() == 1 && nothing[0].is_empty());
    }
}
