//! Verifies everything that is on the disk.

use crate::block::{Filter, HEADER};
use crate::catalogue::StreamSet;
use crate::limits::MAX_FINDINGS;
use crate::reader::Reader;
use crate::segment::{self, Entry, Segment};
use crate::store::Store;
use crate::{Error, block::Row};
use std::fs::File;

/// What a check has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Lines in them.
    pub lines: u64,
    /// What is wrong, one sentence each; at most [`MAX_FINDINGS`].
    pub findings: Vec<String>,
}

impl Report {
    fn find(&mut self, text: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(text);
        }
    }
}

impl Store {
    /// Reads all segments and compares: checksums, sizes, the index with the blocks, timestamps and numbers with what the
    /// headers say, streams with the catalogue, and that each number is there once.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read at all; damage is a finding.
    pub fn check(&self) -> Result<Report, Error> {
        let snapshot = self.inner.snapshot(&self.inner.state.lock());
        let streams = self.inner.catalogue.lock().len() as u32;
        let mut report = Report::default();
        let mut reader = Reader::new()?;
        // Numbers of one segment are below those of the next, except for what was compressed from it.
        let mut before = None;
        for segment in &snapshot.segments {
            report.segments += 1;
            let name = segment.path().display();
            for (offset, what) in &segment.damage {
                report.find(format!("{name}: damaged at byte {offset}: {what}"));
            }
            if before.is_some_and(|last| segment.rows > 0 && segment.first_seq <= last) {
                report.find(format!("{name}: its numbers overlap with those of the segment before"));
            }
            let numbers = check_segment(segment, streams, &mut reader, &mut report)?;
            check_numbers(segment, numbers, &mut report);
            if segment.rows > 0 {
                before = Some(segment.last_seq);
            }
        }
        Ok(report)
    }
}

fn check_segment(
    segment: &Segment,
    streams: u32,
    reader: &mut Reader,
    report: &mut Report,
) -> Result<Vec<u64>, Error> {
    let path = segment.path();
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let (mut numbers, mut buffer) = (Vec::new(), Vec::new());
    if length < segment.bytes {
        report.find(format!("{}: it has {length} bytes instead of {}", path.display(), segment.bytes));
    }
    for entry in &segment.blocks {
        report.blocks += 1;
        let mut wrong = |what: &str| {
            report.find(format!("{}: the block at byte {}: {what}", path.display(), entry.offset))
        };
        if entry.offset + HEADER as u64 > length {
            wrong("it lies behind the end of the file");
            continue;
        }
        match segment::read_whole(&file, path, entry.offset, length, &mut buffer)? {
            Ok((header, _)) if header == entry.header => {}
            Ok(_) => wrong("the index does not agree with it"),
            Err(what) => {
                wrong(what);
                continue;
            }
        }
        match check_lines(segment, entry, streams, reader, &mut numbers) {
            Ok(None) => report.lines += u64::from(entry.header.rows),
            Ok(Some(what)) => wrong(what),
            Err(Error::Damaged { what, .. }) => wrong(what),
            Err(e) => return Err(e),
        }
    }
    Ok(numbers)
}

/// What is wrong with the lines of a block.
fn check_lines(
    segment: &Segment,
    entry: &Entry,
    streams: u32,
    reader: &mut Reader,
    numbers: &mut Vec<u64>,
) -> Result<Option<&'static str>, Error> {
    let all: StreamSet = reader.directory(segment, entry)?.runs.iter().map(|r| r.stream).collect();
    let filter = Filter { seq: 0..u64::MAX, streams: all, ..Filter::default() };
    let (h, mut wrong, mut rows) = (entry.header, None, 0);
    let (mut times, mut seqs) = ((i64::MAX, i64::MIN), (u64::MAX, u64::MIN));
    let mut before: Option<Row<'static>> = None;
    reader.each(segment, entry, &filter, &mut |row| {
        rows += 1;
        times = (times.0.min(row.timestamp), times.1.max(row.timestamp));
        seqs = (seqs.0.min(row.seq), seqs.1.max(row.seq));
        numbers.push(row.seq);
        if row.stream.0 >= streams {
            wrong = Some("a stream of it is not in the catalogue");
        }
        let key = |r: &Row<'_>| (r.stream, r.timestamp, r.seq);
        if before.is_some_and(|b| key(&b) >= key(&row)) {
            wrong = Some("its lines are not in order");
        }
        if segment.streams.as_ref().is_some_and(|s| !s.contains(row.stream)) {
            wrong = Some("a stream of it is not in the segment's index");
        }
        before = Some(Row { line: b"", ..row });
    })?;
    if rows != h.rows || times != (h.min_ts, h.max_ts) || seqs != (h.min_seq, h.max_seq) {
        wrong = Some("its lines do not agree with its header");
    }
    Ok(wrong)
}

fn check_numbers(segment: &Segment, mut numbers: Vec<u64>, report: &mut Report) {
    numbers.sort_unstable();
    let name = segment.path().display();
    if numbers.windows(2).any(|w| w[0] == w[1]) {
        report.find(format!("{name}: a line is there twice"));
    }
    let outside = |n: &u64| *n < segment.first_seq || *n > segment.last_seq;
    if numbers.first().is_some_and(outside) || numbers.last().is_some_and(outside) {
        report.find(format!("{name}: it has numbers of another segment"));
    }
}
