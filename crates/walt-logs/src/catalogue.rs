//! The catalogue: which issuer and stream a number stands for.
//!
//! A file of entries, each `length u32, checksum u32, entry`; it only grows. The writer makes new entries durable before
//! the first batch that uses them. Numbers are never used again, so lines of an issuer that was forgotten stay hidden
//! until their segment expires or is compressed.

use crate::Error;
use crate::codec::{Input, checksum, put_varint};
use crate::limits::{MAX_ISSUER, MAX_STREAM_NAME, MAX_STREAMS, MAX_STREAMS_OF_ISSUER};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of a stream in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What a stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lines of text.
    Line,
    /// Pieces of a console's output, cut anywhere.
    Chunk,
}

/// A stream and its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its number.
    pub id: StreamId,
    /// The key of its issuer: what never changes, such as a MAC address.
    pub issuer: Arc<str>,
    /// Its name, unique for the issuer.
    pub name: Arc<str>,
    /// What it consists of.
    pub mode: Mode,
}

/// Says which streams are wanted.
pub type Selector = Arc<dyn Fn(&StreamInfo) -> bool + Send + Sync>;

/// Numbers of streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamSet {
    words: Vec<u64>,
}

impl StreamSet {
    /// Adds one.
    pub fn insert(&mut self, id: StreamId) {
        let word = id.0 as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (id.0 % 64);
    }

    /// Whether it is in.
    #[inline]
    pub fn contains(&self, id: StreamId) -> bool {
        self.words.get(id.0 as usize / 64).is_some_and(|w| w >> (id.0 % 64) & 1 != 0)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = StreamId> + '_ {
        let bits = self.words.iter().enumerate();
        bits.flat_map(|(i, w)| {
            (0..64).filter(move |b| w >> b & 1 != 0).map(move |b| StreamId((i * 64 + b) as u32))
        })
    }

    /// Whether both have one in common.
    pub fn meets(&self, other: &StreamSet) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }
}

impl Extend<StreamId> for StreamSet {
    fn extend<I: IntoIterator<Item = StreamId>>(&mut self, ids: I) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

impl FromIterator<StreamId> for StreamSet {
    fn from_iter<I: IntoIterator<Item = StreamId>>(ids: I) -> Self {
        let mut set = StreamSet::default();
        set.extend(ids);
        set
    }
}

/// What an entry of the file says.
enum Entry {
    Stream { issuer: String, name: String, mode: Mode },
    Forget { issuer: String },
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        let mut text = |kind: u8, parts: &[&str]| {
            bytes.push(kind);
            for part in parts {
                put_varint(&mut bytes, part.len() as u64);
                bytes.extend_from_slice(part.as_bytes());
            }
        };
        match self {
            Entry::Stream { issuer, name, mode: Mode::Line } => text(1, &[issuer, name]),
            Entry::Stream { issuer, name, mode: Mode::Chunk } => text(2, &[issuer, name]),
            Entry::Forget { issuer } => text(3, &[issuer]),
        }
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(checksum(&bytes).to_le_bytes());
        out.append(&mut bytes);
    }

    /// `None` at the end, which may be torn.
    fn decode(input: &mut Input<'_>) -> Option<Entry> {
        let (length, sum) = (input.u32()?, input.u32()?);
        let bytes = input.bytes(length as usize).filter(|b| checksum(b) == sum)?;
        let mut input = Input(bytes);
        let kind = input.u8()?;
        let mut text = || {
            let length = input.size()?;
            String::from_utf8(input.bytes(length)?.to_vec()).ok()
        };
        match kind {
            1 | 2 => {
                let mode = if kind == 1 { Mode::Line } else { Mode::Chunk };
                Some(Entry::Stream { issuer: text()?, name: text()?, mode })
            }
            3 => Some(Entry::Forget { issuer: text()? }),
            _ => None,
        }
    }
}

/// The catalogue in memory.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// By number; `None` for a stream of a forgotten issuer.
    streams: Vec<Option<StreamInfo>>,
    ids: HashMap<Arc<str>, HashMap<Arc<str>, StreamId>>,
    /// Entries that are not in the file yet.
    unsaved: Vec<u8>,
}

impl Catalogue {
    fn apply(&mut self, entry: Entry) -> Option<StreamId> {
        match entry {
            Entry::Stream { issuer, name, mode } => {
                let id = StreamId(self.streams.len() as u32);
                let issuer = match self.ids.get_key_value(issuer.as_str()) {
                    Some((key, _)) => Arc::clone(key),
                    None => Arc::from(issuer),
                };
                let name: Arc<str> = Arc::from(name);
                self.ids.entry(Arc::clone(&issuer)).or_default().insert(Arc::clone(&name), id);
                self.streams.push(Some(StreamInfo { id, issuer, name, mode }));
                Some(id)
            }
            Entry::Forget { issuer } => {
                for id in self.ids.remove(issuer.as_str()).unwrap_or_default().into_values() {
                    self.streams[id.0 as usize] = None;
                }
                None
            }
        }
    }

    /// The number of a stream, a new one if it is not known. The mode of a known stream does not change.
    pub fn stream(&mut self, issuer: &str, name: &str, mode: Mode) -> Result<StreamId, Error> {
        if let Some(id) = self.ids.get(issuer).and_then(|names| names.get(name)) {
            return Ok(*id);
        }
        for (kind, text, max) in [("issuer", issuer, MAX_ISSUER), ("stream", name, MAX_STREAM_NAME)] {
            if text.is_empty() || text.len() > max {
                return Err(Error::BadName { kind, length: text.len(), max });
            }
        }
        let full = |max, whole_store| Error::TooManyStreams {
            issuer: issuer.into(),
            stream: name.into(),
            max,
            whole_store,
        };
        if self.ids.get(issuer).is_some_and(|names| names.len() >= MAX_STREAMS_OF_ISSUER) {
            return Err(full(MAX_STREAMS_OF_ISSUER, false));
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(full(MAX_STREAMS, true));
        }
        let entry = Entry::Stream { issuer: issuer.into(), name: name.into(), mode };
        entry.encode(&mut self.unsaved);
        self.apply(entry).ok_or(Error::Closed)
    }

    /// Forgets an issuer with all its streams.
    pub fn forget(&mut self, issuer: &str) {
        if self.ids.contains_key(issuer) {
            let entry = Entry::Forget { issuer: issuer.into() };
            entry.encode(&mut self.unsaved);
            self.apply(entry);
        }
    }

    /// What is known of a stream.
    pub fn info(&self, id: StreamId) -> Option<&StreamInfo> {
        self.streams.get(id.0 as usize)?.as_ref()
    }

    /// How many numbers have been given out.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// The known streams, from a number on.
    pub fn streams_from(&self, first: usize) -> impl Iterator<Item = &StreamInfo> {
        self.streams.get(first..).unwrap_or_default().iter().flatten()
    }

    /// Takes what has to be written to the file.
    pub fn take_unsaved(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsaved)
    }

    /// Puts back what could not be written.
    pub fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.append(&mut self.unsaved);
        self.unsaved = bytes;
    }
}

/// The file.
#[derive(Debug)]
pub struct CatalogueFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl CatalogueFile {
    /// Opens or makes the file. An entry that was being written at a crash is cut off: no line that uses it has been
    /// acknowledged.
    pub fn open(path: &Path) -> Result<(CatalogueFile, Catalogue), Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let mut catalogue = Catalogue::default();
        let (mut input, mut length) = (Input(&bytes), 0);
        while let Some(entry) = Entry::decode(&mut input) {
            catalogue.apply(entry);
            length = bytes.len() - input.0.len();
        }
        let length = length as u64;
        if length < bytes.len() as u64 {
            file.set_len(length).map_err(Error::io("cut", path))?;
        }
        Ok((CatalogueFile { file, path: path.to_owned(), length }, catalogue))
    }

    /// Makes entries durable.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all_at(bytes, self.length).and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            // What is behind the length is overwritten by the next entries, or cut off at the next start.
            let _ = self.file.set_len(self.length);
            return Err(Error::io("write to", &self.path)(e));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_are_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue");
        let (mut file, mut catalogue) = CatalogueFile::open(&path).unwrap();
        let a = catalogue.stream("aa:bb", "out", Mode::Line).unwrap();
        assert_eq!(
            catalogue.stream("aa:bb", "out", Mode::Chunk).unwrap(),
            a,
            "known streams keep their mode"
        );
        let b = catalogue.stream("aa:bb", "virtualconsole", Mode::Chunk).unwrap();
        let other = catalogue.stream("cc:dd", "out", Mode::Line).unwrap();
        catalogue.forget("aa:bb");
        let again = catalogue.stream("aa:bb", "out", Mode::Line).unwrap();
        assert_eq!([a.0, b.0, other.0, again.0], [0, 1, 2, 3]);
        file.append(&catalogue.take_unsaved()).unwrap();

        let (_, read) = CatalogueFile::open(&path).unwrap();
        assert_eq!(read.len(), 4);
        assert_eq!(read.info(a), None);
        assert_eq!(read.info(again), catalogue.info(again));
        assert_eq!(&*read.info(other).unwrap().issuer, "cc:dd");
    }

    #[test]
    fn a_torn_entry_is_cut_off_wherever_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue");
        let (mut file, mut catalogue) = CatalogueFile::open(&path).unwrap();
        catalogue.stream("a", "one", Mode::Line).unwrap();
        file.append(&catalogue.take_unsaved()).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        catalogue.stream("a", "two", Mode::Line).unwrap();
        file.append(&catalogue.take_unsaved()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in whole..bytes.len() as u64 {
            std::fs::write(&path, &bytes[..length as usize]).unwrap();
            let (_, read) = CatalogueFile::open(&path).unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        }
    }

    #[test]
    fn names_and_numbers_of_streams_are_limited() {
        let mut catalogue = Catalogue::default();
        assert!(matches!(catalogue.stream("", "x", Mode::Line), Err(Error::BadName { kind: "issuer", .. })));
        let long = "x".repeat(MAX_STREAM_NAME + 1);
        assert!(matches!(
            catalogue.stream("a", &long, Mode::Line),
            Err(Error::BadName { kind: "stream", .. })
        ));
        for i in 0..MAX_STREAMS_OF_ISSUER {
            catalogue.stream("a", &i.to_string(), Mode::Line).unwrap();
        }
        let refused = catalogue.stream("a", "more", Mode::Line).unwrap_err();
        assert!(
            refused.to_string().contains("'more' of a: there are already 20000 streams; use fewer"),
            "{refused}"
        );
        catalogue.stream("a", "7", Mode::Line).unwrap();
        catalogue.stream("b", "more", Mode::Line).unwrap();
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: StreamSet = [StreamId(0), StreamId(63), StreamId(64), StreamId(1000)].into_iter().collect();
        assert_eq!(set.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 63, 64, 1000]);
        assert!(set.contains(StreamId(64)) && !set.contains(StreamId(65)) && !set.contains(StreamId(5000)));
        assert!(set.meets(&[StreamId(1000)].into_iter().collect()));
        assert!(!set.meets(&[StreamId(1)].into_iter().collect()));
        assert!(!StreamSet::default().meets(&set));
    }
}
