//! Makes a layer of a directory: the bytes of the tar are hashed and kept as a skeleton; the tar itself is never
//! stored.
//!
//! The bytes depend on the tree alone: parents first, the opaque mark of a directory before its whiteouts, these
//! before the other names, each group sorted byte-wise; the first name of an inode is the file, later ones are hard
//! links; no user or group names; holes are zeros, except in files with a gigabyte of holes or more ([`holes`]).
//! Docker, podman and umoci unpack it.

use super::{
    disk::Root,
    holes,
    implied::write_implied,
    import::MAX_APPARENT,
    scan::{Kind, Node},
    skeleton::{LayerInfo, SkeletonWriter},
};
use crate::{
    cancel,
    error::{Context, Error, Result},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    path::Path,
};
use walt_tar::paths::split;
use walt_tar::{BLOCK, Header, Region, Sparse, Time, Type, write_header, write_map};
use walt_types::{DiffId, Hash256};

/// Time of whiteouts in a tar: they have none of their own.
const WHITEOUT_MTIME: Time = Time { sec: 0, nsec: 0 };

struct Sink {
    hash: Sha256,
    size: u64,
    entries: u64,
    skeleton: SkeletonWriter,
    buffer: Vec<u8>,
}

impl Sink {
    fn header(&mut self, header: &Header) -> Result<()> {
        let mut bytes = Vec::with_capacity(3 * BLOCK);
        write_header(&mut bytes, header);
        self.entries += 1;
        self.raw(&bytes)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.skeleton.raw(bytes)
    }

    /// A regular file: header, bytes, padding. A file with large holes is a sparse one in the tar.
    fn file(&mut self, root: &Root, node: &Node, header: &mut Header) -> Result<()> {
        let show = root.show(&node.path);
        let file = root.file(&node.path).on("open", &show)?;
        let Some(map) = holes::map(&file, node.size).on("read", &show)? else {
            self.header(header)?;
            self.skeleton.file(&node.path, node.size)?;
            self.payload(&file, (0, node.size)).on("read", &show)?;
            return self.padding(node.size);
        };
        let text = write_map(&map);
        let bytes = text.len() as u64 + map.iter().map(|region| region.1).sum::<u64>();
        header.sparse = Some(Sparse { size: node.size, map: None });
        header.size = bytes;
        self.header(header)?;
        self.raw(&text)?;
        for region in map.into_iter().filter(|region| region.1 > 0) {
            self.skeleton.part(&node.path, region.0, region.1)?;
            self.payload(&file, region).on("read", &show)?;
        }
        self.padding(bytes)
    }

    fn payload(&mut self, file: &File, (offset, length): Region) -> io::Result<()> {
        let hash = &mut self.hash;
        holes::read_payload(file, offset, length, &mut self.buffer, &mut |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        self.size += length;
        Ok(())
    }

    fn padding(&mut self, bytes: u64) -> Result<()> {
        self.raw(&[0; BLOCK][..(bytes.next_multiple_of(BLOCK as u64) - bytes) as usize])
    }
}

/// Refuses what the format cannot hold: some names, and too large files. Sockets must have been removed.
pub(crate) fn check(nodes: &[Node]) -> Result<()> {
    let mut apparent = 0u64;
    for node in nodes {
        if node.kind != Kind::Whiteout && node.name().starts_with(b".wh.") {
            let name = String::from_utf8_lossy(&node.path);
            return Err(Error::Commit(format!(
                "/{name}: names that start with '.wh.' mean a deletion in an OCI layer; rename or remove it"
            )));
        }
        apparent = apparent.saturating_add(node.size);
    }
    let largest = nodes.iter().max_by_key(|node| node.size);
    if let Some(largest) = largest.filter(|_| apparent > MAX_APPARENT) {
        let (name, max) = (String::from_utf8_lossy(&largest.path), MAX_APPARENT >> 30);
        return Err(Error::Commit(format!(
            "its files are larger than {max} GiB together (holes count); the largest is /{name} with {} GiB: remove it, \
             or make it smaller",
            largest.size >> 30
        )));
    }
    Ok(())
}

/// Writes `layer/skeleton` and `layer/implied` for the tree `nodes` of `layer/fs`. `with_root` says that the root
/// directory's own metadata belong to the layer.
pub(crate) fn write_layer(layer: &Path, root: &Root, nodes: &[Node], with_root: bool) -> Result<LayerInfo> {
    check(nodes)?;
    let mut sink = Sink {
        hash: Sha256::new(),
        size: 0,
        entries: 0,
        skeleton: SkeletonWriter::create(&layer.join("skeleton"))?,
        buffer: Vec::new(),
    };
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate().skip(1) {
        children[node.parent].push(i);
    }
    for list in &mut children {
        // Stable: both groups stay sorted.
        list.sort_by_key(|i| nodes[*i].kind != Kind::Whiteout);
    }
    let mut first_names: HashMap<u64, usize> = HashMap::new();
    let mut pending = vec![0];
    while let Some(position) = pending.pop() {
        cancel::check()?;
        let node = &nodes[position];
        if position > 0 || with_root {
            one(&mut sink, root, nodes, position, &mut first_names)?;
        }
        if node.opaque {
            sink.header(&marker(&node.path, b".wh..opq"))?;
        }
        pending.extend(children[position].iter().rev());
    }
    sink.raw(&walt_tar::END)?;
    let diff_id = DiffId(Hash256(sink.hash.finalize().into()));
    let info = LayerInfo { diff_id, size: sink.size, entries: sink.entries };
    sink.skeleton.finish(&info)?;
    let implied = if with_root { BTreeSet::new() } else { BTreeSet::from([Vec::new()]) };
    write_implied(layer, &implied)?;
    Ok(info)
}

/// A whiteout's header: `<dir>/.wh.<hidden>`; for the opaque mark `hidden` is `.wh..opq`.
fn marker(dir: &[u8], hidden: &[u8]) -> Header {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(b".wh.");
    path.extend_from_slice(hidden);
    Header {
        kind: Type::File,
        path,
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        sparse: None,
        mtime: WHITEOUT_MTIME,
        rdev: (0, 0),
        xattrs: Vec::new(),
    }
}

fn one(
    sink: &mut Sink,
    root: &Root,
    nodes: &[Node],
    position: usize,
    first_names: &mut HashMap<u64, usize>,
) -> Result<()> {
    let node = &nodes[position];
    let mut header = Header {
        kind: Type::File,
        path: node.path.clone(),
        link: Vec::new(),
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        size: 0,
        sparse: None,
        mtime: node.mtime,
        rdev: (0, 0),
        xattrs: node.xattrs.clone(),
    };
    // Whiteouts share one inode in an upper directory: they must be handled before inodes are compared.
    if node.kind == Kind::Whiteout {
        let (dir, name) = split(&node.path);
        return sink.header(&marker(dir, name));
    }
    if node.kind != Kind::Dir && node.nlink > 1 {
        if let Some(first) = first_names.get(&node.ino) {
            header.kind = Type::HardLink;
            header.link = nodes[*first].path.clone();
            header.xattrs = Vec::new();
            return sink.header(&header);
        }
        first_names.insert(node.ino, position);
    }
    match node.kind {
        Kind::Dir => header.kind = Type::Dir,
        Kind::File => header.size = node.size,
        Kind::Symlink => {
            header.kind = Type::Symlink;
            header.link = node.target.clone();
        }
        Kind::Char => (header.kind, header.rdev) = (Type::Char, node.rdev),
        Kind::Block => (header.kind, header.rdev) = (Type::Block, node.rdev),
        Kind::Fifo => header.kind = Type::Fifo,
        Kind::Socket | Kind::Whiteout => return Ok(()),
    }
    match node.size {
        0 => sink.header(&header),
        _ => sink.file(root, node, &mut header),
    }
}
