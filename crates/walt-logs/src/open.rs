//! Opening: which files there are, and what a crash has left of them.

use crate::Error;
use crate::block::Mark;
use crate::segment::{self, Name, Segment};
use crate::store::now;
use crate::writer::Writer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a directory contains.
pub struct Found {
    pub sealed: Vec<Arc<Segment>>,
    pub active: Segment,
    pub writer: Writer,
    /// Positions of sources, oldest first.
    pub marks: Vec<Mark>,
    pub next_seq: u64,
}

struct Files {
    logs: Vec<(u64, PathBuf)>,
    compressed: Vec<(u64, u64, PathBuf)>,
}

/// Sorts the files by their names, and removes those whose making was not finished.
fn list(dir: &Path) -> Result<Files, Error> {
    let mut files = Files { logs: Vec::new(), compressed: Vec::new() };
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        match segment::parse_name(&path.file_name().unwrap_or_default().to_string_lossy()) {
            Name::Log { first_seq } => files.logs.push((first_seq, path)),
            Name::Compressed { first_seq, last_seq } => files.compressed.push((first_seq, last_seq, path)),
            Name::Temporary => std::fs::remove_file(&path).map_err(Error::io("remove", &path))?,
            Name::Other => {}
        }
    }
    files.logs.sort();
    files.compressed.sort();
    Ok(files)
}

/// Opens all segments of a directory.
pub fn open(dir: &Path) -> Result<Found, Error> {
    let files = list(dir)?;
    let mut sealed = Vec::new();
    for (_, last_seq, path) in &files.compressed {
        sealed.push(open_compressed(path, *last_seq)?);
    }
    let mut marks = Vec::new();
    let mut active = None;
    let logs = files.logs.len();
    for (i, (first_seq, path)) in files.logs.into_iter().enumerate() {
        // It was compressed, and the server ended before the file was removed.
        if files.compressed.iter().any(|(first, last, _)| (*first..=*last).contains(&first_seq)) {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            continue;
        }
        let scanned = match segment::scan(&path) {
            Ok(scanned) => scanned,
            // Its name is only given to a file with a whole head, so this is damage. What lies behind is kept.
            Err(Error::Damaged { what, .. }) => {
                let mut segment = Segment::empty(path, first_seq);
                segment.damage.push((0, what));
                sealed.push(segment);
                continue;
            }
            Err(e) => return Err(e),
        };
        marks.extend(scanned.marks);
        if i + 1 == logs && scanned.segment.damage.is_empty() {
            active = Some((scanned.segment, scanned.batch));
        } else {
            sealed.push(scanned.segment);
        }
    }
    sealed.sort_by_key(|s| s.first_seq);
    let behind = |s: &Segment| if s.rows > 0 { s.last_seq + 1 } else { s.first_seq };
    let mut next_seq = sealed.iter().chain(active.iter().map(|(s, _)| s)).map(behind).max().unwrap_or(0);
    let (active, writer) = match active {
        Some((segment, batch)) => {
            let writer = Writer::resume(&segment, batch)?;
            (segment, writer)
        }
        None => {
            // The number of a damaged file must not be taken again.
            while dir.join(segment::log_name(next_seq)).exists() {
                next_seq += 1;
            }
            let (writer, mut segment) = Writer::begin(dir, next_seq, &marks, now())?;
            segment.streams = Some(Default::default());
            (segment, writer)
        }
    };
    sealed.retain(|s| s.rows > 0 || !s.damage.is_empty());
    Ok(Found { sealed: sealed.into_iter().map(Arc::new).collect(), active, writer, marks, next_seq })
}

/// A compressed segment whose index is damaged is read from its start, as after a crash.
fn open_compressed(path: &Path, last_seq: u64) -> Result<Segment, Error> {
    match segment::open_compressed(path, last_seq) {
        Err(Error::Damaged { offset, what, .. }) => {
            let mut segment = match segment::scan(path) {
                Ok(scanned) => scanned.segment,
                Err(Error::Damaged { .. }) => Segment::empty(path.to_owned(), last_seq),
                Err(e) => return Err(e),
            };
            segment.damage.push((offset, what));
            segment.last_seq = last_seq;
            segment.compressed = true;
            Ok(segment)
        }
        other => other,
    }
}
