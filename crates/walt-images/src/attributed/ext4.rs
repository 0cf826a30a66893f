//! Writes a small read-only ext4 file system: no journal, no free blocks, one extent tree of one level for each
//! object.
//!
//! ```text
//! superblock │ group descriptors │ block bitmaps │ inode bitmaps │ inode tables │ attributes and content of each object
//! ```
//! Layout after the kernel's documentation (`Documentation/filesystems/ext4`). All metadata are at the start (`flex_bg`)
//! and have no second copy (`sparse_super2` with none named). Attributes are in a block of their own. The same objects
//! give the same bytes.

use crate::Time;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// Largest file, in bytes: four extents are in the inode itself.
pub(super) const MAX_FILE: u64 = EXTENTS * EXTENT_BLOCKS * BLOCK;
/// Extents in an inode.
const EXTENTS: u64 = 4;
/// Blocks of an extent.
const EXTENT_BLOCKS: u64 = 32_768;
/// Blocks of a group, and most inodes of one: what a bitmap of one block can hold.
const GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode and of a group descriptor.
const INODE: u64 = 256;
const DESCRIPTOR: u64 = 32;
/// Inodes before the first that is ours, which are reserved; the root is one of them.
const RESERVED: u64 = 10;
const ROOT: u64 = 2;
/// Bytes copied at once.
const CHUNK: usize = 1 << 20;
/// UUID of the file system. It can be constant: a machine has only one of them.
const UUID: &[u8; 16] = b"walt-attributes\0";

/// Type and content of an object.
pub(super) enum Content {
    /// A directory: names and objects, sorted by name, and the object of its parent.
    Dir(Vec<(Vec<u8>, usize)>, usize),
    /// A regular file with this size in bytes.
    File(u64),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A fifo.
    Fifo,
}

/// An object. The first one is the root directory.
pub(super) struct Object {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub links: u32,
    pub content: Content,
    /// Extended attributes as the kernel shows them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Content {
    /// Bits of the mode, and the type in a directory.
    fn kind(&self) -> (u16, u8) {
        match self {
            Self::Dir(..) => (0o040_000, 2),
            Self::File(_) => (0o100_000, 1),
            Self::Char(..) => (0o020_000, 3),
            Self::Block(..) => (0o060_000, 4),
            Self::Fifo => (0o010_000, 5),
        }
    }
}

fn inode_number(object: usize) -> u64 {
    if object == 0 { ROOT } else { RESERVED + object as u64 }
}

fn put16(buffer: &mut [u8], at: usize, value: u64) {
    buffer[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
}

fn put32(buffer: &mut [u8], at: usize, value: u64) {
    buffer[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

/// An attribute as it is stored: the number of its prefix, the rest of its name, its value.
type Stored = (u8, Vec<u8>, Vec<u8>);

/// `None` for a name or a value that ext4 has no place for.
fn stored((name, value): &(Vec<u8>, Vec<u8>)) -> Option<Stored> {
    match name.as_slice() {
        b"system.posix_acl_access" => Some((2, Vec::new(), access_list(value)?)),
        b"system.posix_acl_default" => Some((3, Vec::new(), access_list(value)?)),
        _ => [(1, b"user.".as_slice()), (6, b"security.")]
            .into_iter()
            .find_map(|(number, prefix)| Some((number, name.strip_prefix(prefix)?)))
            .filter(|(_, rest)| !rest.is_empty() && rest.len() <= 255)
            .map(|(number, rest)| (number, rest.to_vec(), value.clone())),
    }
}

/// Converts an access list from the kernel's form to the form on disk, which has another version and omits numbers
/// that mean nothing.
fn access_list(shown: &[u8]) -> Option<Vec<u8>> {
    let entries = shown.strip_prefix(&2_u32.to_le_bytes())?;
    let mut out = 1_u32.to_le_bytes().to_vec();
    let (entries, rest) = entries.as_chunks::<8>();
    for entry in entries {
        // Only a named user or group has a number.
        let named = matches!(entry[0], 2 | 8);
        out.extend_from_slice(&entry[..if named { 8 } else { 4 }]);
    }
    rest.is_empty().then_some(out)
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Whether these attributes fit into one block.
pub(super) fn fits(xattrs: &[(Vec<u8>, Vec<u8>)]) -> bool {
    attribute_block(xattrs).is_some()
}

/// The block of an object's attributes.
fn attribute_block(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<u8>> {
    const HEADER: usize = 32;
    let mut all: Vec<Stored> = xattrs.iter().map(stored).collect::<Option<_>>()?;
    // The order in which the kernel searches.
    all.sort_by(|a, b| (a.0, a.1.len(), &a.1).cmp(&(b.0, b.1.len(), &b.1)));
    let mut block = vec![0; BLOCK as usize];
    let (mut at, mut end) = (HEADER, block.len());
    let mut hash = 0_u32;
    for (prefix, name, value) in &all {
        let next = at + 16 + padded(name.len());
        end = end.checked_sub(padded(value.len()))?;
        // Four bytes of zeros are the end of the list.
        if next + 4 > end {
            return None;
        }
        block[end..end + value.len()].copy_from_slice(value);
        let one = entry_hash(name, &block[end..end + padded(value.len())]);
        hash = if one == 0 { 0 } else { hash.rotate_left(16) ^ one };
        block[at] = name.len() as u8;
        block[at + 1] = *prefix;
        put16(&mut block, at + 2, if value.is_empty() { 0 } else { end as u64 });
        put32(&mut block, at + 8, value.len() as u64);
        put32(&mut block, at + 12, one.into());
        block[at + 16..at + 16 + name.len()].copy_from_slice(name);
        at = next;
    }
    put32(&mut block, 0, 0xEA02_0000);
    put32(&mut block, 4, 1); // used by one inode
    put32(&mut block, 8, 1); // blocks
    put32(&mut block, 12, hash.into());
    Some(block)
}

fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let named = name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.as_chunks::<4>().0.iter().fold(named, |hash, word| hash.rotate_left(16) ^ u32::from_le_bytes(*word))
}

/// The blocks of a directory.
fn directory(names: &[(Vec<u8>, usize)], own: usize, above: usize, objects: &[Object]) -> Vec<u8> {
    let block = BLOCK as usize;
    let mut out: Vec<u8> = Vec::new();
    let mut last = 0;
    let dots = [(b".".to_vec(), own), (b"..".to_vec(), above)];
    for (name, object) in dots.iter().chain(names) {
        let length = 8 + padded(name.len());
        if out.len() % block + length > block {
            // The last entry of a block reaches to its end.
            let end = out.len().next_multiple_of(block);
            put16(&mut out, last + 4, (end - last) as u64);
            out.resize(end, 0);
        }
        last = out.len();
        out.resize(last + length, 0);
        put32(&mut out, last, inode_number(*object));
        put16(&mut out, last + 4, length as u64);
        out[last + 6] = name.len() as u8;
        out[last + 7] = objects[*object].content.kind().1;
        out[last + 8..last + 8 + name.len()].copy_from_slice(name);
    }
    let end = out.len().next_multiple_of(block);
    put16(&mut out, last + 4, (end - last) as u64);
    out.resize(end, 0);
    out
}

/// Positions of all parts, in blocks.
struct Layout {
    groups: u64,
    inodes_per_group: u64,
    block_bitmaps: u64,
    inode_bitmaps: u64,
    inode_tables: u64,
    data: u64,
    total: u64,
}

impl Layout {
    fn new(inodes: u64, data_blocks: u64) -> Self {
        let mut groups = 1;
        loop {
            let per_block = BLOCK / INODE;
            let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(per_block);
            let block_bitmaps = 1 + (groups * DESCRIPTOR).div_ceil(BLOCK);
            let inode_bitmaps = block_bitmaps + groups;
            let inode_tables = inode_bitmaps + groups;
            let data = inode_tables + groups * inodes_per_group / per_block;
            let total = data + data_blocks;
            if total <= groups * GROUP && inodes_per_group <= GROUP {
                return Self {
                    groups,
                    inodes_per_group,
                    block_bitmaps,
                    inode_bitmaps,
                    inode_tables,
                    data,
                    total,
                };
            }
            groups += 1;
        }
    }
}

/// Writes the file system into an empty file. `open` gives the content of a file by its object.
pub(super) fn write(
    objects: &[Object],
    open: &mut dyn FnMut(usize) -> io::Result<File>,
    out: &File,
) -> io::Result<()> {
    let directories: Vec<Vec<u8>> = objects
        .iter()
        .enumerate()
        .map(|(number, object)| match &object.content {
            Content::Dir(names, above) => directory(names, number, *above, objects),
            _ => Vec::new(),
        })
        .collect();
    let length = |number: usize| match objects[number].content {
        Content::File(size) => size,
        _ => directories[number].len() as u64,
    };
    let all = 0..objects.len();
    let blocks =
        |number: usize| u64::from(!objects[number].xattrs.is_empty()) + length(number).div_ceil(BLOCK);
    let inodes = inode_number(objects.len() - 1).max(RESERVED);
    let layout = Layout::new(inodes, all.clone().map(blocks).sum());

    let mut next = layout.data;
    for number in all {
        let object = &objects[number];
        let attributes = match attribute_block(&object.xattrs) {
            _ if object.xattrs.is_empty() => 0,
            Some(block) => {
                out.write_all_at(&block, next * BLOCK)?;
                next += 1;
                next - 1
            }
            None => return Err(io::Error::other("the attributes of a file are too large")),
        };
        let size = length(number);
        let start = next;
        match object.content {
            Content::File(size) => copy(&mut open(number)?, size, out, start * BLOCK)?,
            _ => out.write_all_at(&directories[number], start * BLOCK)?,
        }
        next += size.div_ceil(BLOCK);
        let inode = inode(object, size, start, attributes)?;
        out.write_all_at(&inode, layout.inode_tables * BLOCK + (inode_number(number) - 1) * INODE)?;
    }
    describe(&layout, inodes, objects, out)?;
    out.set_len(layout.total * BLOCK)
}

/// Copies exactly `size` bytes; runs of zeros become holes.
fn copy(from: &mut File, size: u64, to: &File, start: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK.min(size as usize)];
    let mut done = 0;
    while done < size {
        let part = &mut buffer[..CHUNK.min((size - done) as usize)];
        from.read_exact(part)?;
        if part.iter().any(|byte| *byte != 0) {
            to.write_all_at(part, start + done)?;
        }
        done += part.len() as u64;
    }
    Ok(())
}

fn inode(object: &Object, size: u64, start: u64, attributes: u64) -> io::Result<[u8; INODE as usize]> {
    let blocks = size.div_ceil(BLOCK);
    if blocks > EXTENTS * EXTENT_BLOCKS {
        return Err(io::Error::other("a file is too large"));
    }
    let mut i = [0; INODE as usize];
    put16(&mut i, 0, u64::from(object.content.kind().0) | u64::from(object.mode & 0o7777));
    put16(&mut i, 2, object.uid.into());
    put16(&mut i, 120, (object.uid >> 16).into());
    put16(&mut i, 24, object.gid.into());
    put16(&mut i, 122, (object.gid >> 16).into());
    put32(&mut i, 4, size);
    put32(&mut i, 108, size >> 32);
    // Seconds have 34 bits; the upper two are stored in the field of the nanoseconds.
    let sec = object.mtime.sec.clamp(-(1 << 31), (1 << 33) + (1 << 32) - 1);
    let epoch = (sec - i64::from(sec as i32)) >> 32;
    let extra = (u64::from(object.mtime.nsec) << 2) | (epoch as u64 & 3);
    for (seconds, rest) in [(8, 140), (12, 132), (16, 136), (144, 148)] {
        put32(&mut i, seconds, sec as u64);
        put32(&mut i, rest, extra);
    }
    put16(&mut i, 26, object.links.into());
    put32(&mut i, 28, (blocks + u64::from(attributes != 0)) * (BLOCK / 512));
    put32(&mut i, 104, attributes);
    put16(&mut i, 128, 32); // bytes of the inode beyond the first 128
    match object.content {
        Content::Dir(..) | Content::File(_) => {
            put32(&mut i, 32, 0x8_0000); // it has extents
            put16(&mut i, 40, 0xF30A);
            put16(&mut i, 42, blocks.div_ceil(EXTENT_BLOCKS));
            put16(&mut i, 44, EXTENTS);
            for extent in 0..blocks.div_ceil(EXTENT_BLOCKS) {
                let (at, first) = (52 + 12 * extent as usize, extent * EXTENT_BLOCKS);
                put32(&mut i, at, first);
                put16(&mut i, at + 4, (blocks - first).min(EXTENT_BLOCKS));
                put16(&mut i, at + 6, (start + first) >> 32);
                put32(&mut i, at + 8, start + first);
            }
        }
        Content::Char(major, minor) | Content::Block(major, minor) => {
            let (major, minor) = (u64::from(major), u64::from(minor));
            if major < 256 && minor < 256 {
                put32(&mut i, 40, major << 8 | minor);
            } else {
                put32(&mut i, 44, (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12));
            }
        }
        Content::Fifo => {}
    }
    Ok(i)
}

/// Superblock, group descriptors, bitmaps.
fn describe(layout: &Layout, inodes: u64, objects: &[Object], out: &File) -> io::Result<()> {
    let mut dirs = vec![0; layout.groups as usize];
    for number in (0..objects.len()).filter(|n| matches!(objects[*n].content, Content::Dir(..))) {
        dirs[((inode_number(number) - 1) / layout.inodes_per_group) as usize] += 1;
    }
    let mut free_inodes = 0;
    let mut descriptors = vec![0; (layout.groups * DESCRIPTOR) as usize];
    for group in 0..layout.groups {
        let d = &mut descriptors[(group * DESCRIPTOR) as usize..][..DESCRIPTOR as usize];
        let used = inodes.saturating_sub(group * layout.inodes_per_group).min(layout.inodes_per_group);
        put32(d, 0, layout.block_bitmaps + group);
        put32(d, 4, layout.inode_bitmaps + group);
        put32(d, 8, layout.inode_tables + group * layout.inodes_per_group * INODE / BLOCK);
        put16(d, 14, layout.inodes_per_group - used);
        put16(d, 16, dirs[group as usize]);
        free_inodes += layout.inodes_per_group - used;
        // Bits beyond the last block and inode are set, too.
        out.write_all_at(&[0xff; BLOCK as usize], (layout.block_bitmaps + group) * BLOCK)?;
        let mut bitmap = [0xff; BLOCK as usize];
        for free in used..layout.inodes_per_group {
            bitmap[free as usize / 8] &= !(1 << (free % 8));
        }
        out.write_all_at(&bitmap, (layout.inode_bitmaps + group) * BLOCK)?;
    }
    out.write_all_at(&descriptors, BLOCK)?;

    let mut s = [0; 1024];
    for (at, value) in [
        (0, layout.groups * layout.inodes_per_group),
        (4, layout.total),
        (16, free_inodes),
        (24, u64::from(BLOCK.ilog2() - 10)),
        (28, u64::from(BLOCK.ilog2() - 10)),
        (32, GROUP),
        (36, GROUP),
        (40, layout.inodes_per_group),
        (76, 1), // revision with features
        (84, RESERVED + 1),
        (92, 0x0208),  // ext_attr, sparse_super2
        (96, 0x0242),  // filetype, extents, flex_bg
        (100, 0x0042), // large_file, extra_isize
        (256, 0x000c), // attributes of users, access lists
        (352, 0x0001), // signed characters in hashes, of which there are none
    ] {
        put32(&mut s, at, value);
    }
    for (at, value) in [(54, 0xffff), (56, 0xEF53), (58, 1), (60, 1), (88, INODE), (348, 32), (350, 32)] {
        put16(&mut s, at, value);
    }
    s[104..120].copy_from_slice(UUID);
    s[120..136].copy_from_slice(UUID);
    s[372] = 16; // two to this power: groups whose metadata may be together
    out.write_all_at(&s, 1024)
}
