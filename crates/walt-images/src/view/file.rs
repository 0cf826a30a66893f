//! The index file of a view.
//!
//! ```text
//! magic "WALTVIEW" | BLAKE3 of all that follows (32)
//! version u32 | platform u32 | layers u32 | records u32 | children u32 | text u32     little endian
//! layers × diff-id (32) | records × 80 | children × u32 | text
//! ```
//! The whole file is read and checked: sizes, checksum, and all numbers, ranges and parents. After that, no access
//! can fail. Any bytes give either an index or an error.

use super::{INDEX_VERSION, Index, Record};
use crate::{Time, layer::scan::Kind};
use walt_types::{DiffId, Hash256};

/// Offset of the bytes that the checksum covers.
pub(crate) const BODY: usize = 40;
const MAGIC: &[u8; 8] = b"WALTVIEW";
const RECORD: usize = 80;
const COUNTS: usize = 24;
/// Most layers a file may name: those of an image and the platform's, with room.
const MAX_FILE_LAYERS: usize = 1024;

pub(crate) fn encode(index: &Index) -> Vec<u8> {
    let size = 64 + index.layers.len() * 32 + index.records.len() * RECORD + index.children.len() * 4;
    let mut out = Vec::with_capacity(size + index.text.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 32]);
    let word = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_le_bytes());
    let counts = [index.layers.len(), index.records.len(), index.children.len(), index.text.len()];
    word(&mut out, INDEX_VERSION);
    word(&mut out, u32::from(index.platform));
    for count in counts {
        // The builder kept all of them below 2^32.
        word(&mut out, count as u32);
    }
    for layer in &index.layers {
        out.extend_from_slice(&layer.0.0);
    }
    for r in &index.records {
        let kind = match r.kind {
            Kind::Dir => 1,
            Kind::Symlink => 2,
            Kind::Char => 3,
            Kind::Block => 4,
            Kind::Fifo => 5,
            Kind::File | Kind::Socket | Kind::Whiteout => 0u32,
        };
        out.extend_from_slice(&r.size.to_le_bytes());
        out.extend_from_slice(&r.mtime.sec.to_le_bytes());
        word(&mut out, r.mtime.nsec);
        word(&mut out, kind | u32::from(r.visible) << 8 | r.mode << 16);
        let words = [r.uid, r.gid, r.rdev.0, r.rdev.1, r.nlink, r.fileid, r.parent, r.layer];
        let ranges = [r.name.0, r.name.1, r.target.0, r.target.1, r.children.0, r.children.1];
        for value in words.into_iter().chain(ranges) {
            word(&mut out, value);
        }
    }
    for child in &index.children {
        word(&mut out, *child);
    }
    out.extend_from_slice(&index.text);
    let sum = blake3::hash(&out[40..]);
    out[8..40].copy_from_slice(sum.as_bytes());
    out
}

struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
}

/// Reads an index file; the error says what is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Index, &'static str> {
    let short = "it is too short";
    let rest = bytes.strip_prefix(MAGIC).ok_or("its first bytes are wrong")?;
    let (sum, body) = rest.split_first_chunk::<32>().ok_or(short)?;
    if blake3::hash(body).as_bytes() != sum {
        return Err("its checksum is wrong");
    }
    check(body)
}

/// Reads and checks what follows the checksum.
pub(crate) fn check(body: &[u8]) -> Result<Index, &'static str> {
    let short = "it is too short";
    let mut words = Words(body);
    let mut count = || words.u32().map(|n| n as usize).ok_or(short);
    let (version, platform) = (count()?, count()?);
    let (layers, records, children, text) = (count()?, count()?, count()?, count()?);
    if version != INDEX_VERSION as usize {
        return Err("its version is not supported");
    }
    let wanted = [COUNTS, layers * 32, records * RECORD, children * 4, text].iter().sum::<usize>();
    if wanted != body.len() || layers > MAX_FILE_LAYERS || layers == 0 || records == 0 || platform > 1 {
        return Err("its length is wrong");
    }
    let layers: Vec<_> = (0..layers).filter_map(|_| words.bytes().map(|b| DiffId(Hash256(b)))).collect();
    let records: Option<Vec<_>> = (0..records).map(|_| record(&mut words)).collect();
    let records = records.ok_or("a record is damaged")?;
    let children: Vec<_> = (0..children).filter_map(|_| words.u32()).collect();
    let text = words.0.to_vec();
    let index = Index { layers, platform: platform == 1, records, children, text };
    fits(&index).ok_or("its entries are inconsistent")?;
    Ok(index)
}

fn record(words: &mut Words) -> Option<Record> {
    let size = u64::from_le_bytes(words.bytes()?);
    let sec = i64::from_le_bytes(words.bytes()?);
    let nsec = words.u32()?;
    let flags = words.u32()?;
    let kind = match flags & 0xff {
        0 => Kind::File,
        1 => Kind::Dir,
        2 => Kind::Symlink,
        3 => Kind::Char,
        4 => Kind::Block,
        5 => Kind::Fifo,
        _ => return None,
    };
    let mut next = || words.u32();
    Some(Record {
        kind,
        visible: flags >> 8 & 1 == 1,
        mode: flags >> 16 & 0o7777,
        size,
        mtime: Time { sec, nsec },
        uid: next()?,
        gid: next()?,
        rdev: (next()?, next()?),
        nlink: next()?,
        fileid: next()?,
        parent: next()?,
        layer: next()?,
        name: (next()?, next()?),
        target: (next()?, next()?),
        children: (next()?, next()?),
    })
}

/// Checks that all numbers and ranges are valid, and that the visible entries form one tree below the root.
fn fits(index: &Index) -> Option<()> {
    let inside = |(start, length): (u32, u32), size: usize| {
        (u64::from(start) + u64::from(length) <= size as u64).then_some(())
    };
    let root = index.records.first()?;
    if root.kind != Kind::Dir || !root.visible || root.parent != 0 {
        return None;
    }
    let mut seen = vec![false; index.records.len()];
    seen[0] = true;
    for r in &index.records {
        inside(r.name, index.text.len())?;
        inside(r.target, index.text.len())?;
        inside(r.children, index.children.len())?;
        index.records.get(r.fileid as usize)?;
        index.layers.get(r.layer as usize)?;
        if r.mtime.nsec >= 1_000_000_000 {
            return None;
        }
    }
    for (number, r) in index.records.iter().enumerate() {
        let (start, count) = r.children;
        if count > 0 && (r.kind != Kind::Dir || !r.visible) {
            return None;
        }
        let mut last: Option<&[u8]> = None;
        for child in &index.children[start as usize..(start + count) as usize] {
            let record = index.records.get(*child as usize)?;
            let name = &index.text[record.name.0 as usize..(record.name.0 + record.name.1) as usize];
            let usual = !name.is_empty()
                && name != b"."
                && name != b".."
                && !name.contains(&b'/')
                && !name.contains(&0);
            if seen[*child as usize] || !record.visible || record.parent as usize != number || !usual {
                return None;
            }
            if last.is_some_and(|last| last >= name) {
                return None;
            }
            seen[*child as usize] = true;
            last = Some(name);
        }
    }
    // Each visible entry has one parent; it remains to check that all are reachable from the root.
    let visible = index.records.iter().filter(|r| r.visible).count();
    let mut pending = vec![0u32];
    let mut reached = 0;
    while let Some(at) = pending.pop() {
        reached += 1;
        let (start, count) = index.records[at as usize].children;
        pending.extend(&index.children[start as usize..(start + count) as usize]);
    }
    (reached == visible).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Index {
        let record = |kind, parent, name, children| Record {
            kind,
            visible: true,
            mode: 0o755,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: Time { sec: -1, nsec: 5 },
            rdev: (0, 0),
            nlink: 1,
            fileid: 0,
            parent,
            layer: 0,
            name,
            target: (0, 0),
            children,
        };
        Index {
            layers: vec![DiffId(Hash256([7; 32]))],
            platform: false,
            records: vec![
                record(Kind::Dir, 0, (0, 0), (0, 2)),
                record(Kind::File, 0, (0, 1), (2, 0)),
                record(Kind::Dir, 0, (1, 1), (2, 1)),
                record(Kind::File, 2, (0, 1), (0, 0)),
            ],
            children: vec![1, 2, 3],
            text: b"ab".to_vec(),
        }
    }

    #[test]
    fn an_index_round_trips() {
        let bytes = encode(&small());
        assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn changed_indexes_are_errors_or_whole(changes in prop::collection::vec((0usize..500, any::<u8>()), 1..4), cut in 0usize..500) {
            let mut bytes = encode(&small());
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            prop_assert!(decode(&bytes).is_err() || bytes == encode(&small()));
            // Behind the checksum, too, nothing may panic.
            let body = &bytes[40..bytes.len() - cut % (bytes.len() - 40)];
            if let Ok(index) = check(body) {
                encode(&index);
            }
        }
    }
}
