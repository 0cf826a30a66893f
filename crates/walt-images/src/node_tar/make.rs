//! Making the tar of a layer for nodes: one pass over its files.

use super::{NodeTar, NodeTarKey, VERSION, remove};
use crate::{
    cancel,
    error::{Context, Error, Result},
    layer::{
        disk::{Root, sync_dir},
        holes,
        implied::{DirMeta, read_implied},
        scan::{Attributes, Kind, Node, scan},
        skeleton::{LayerInfo, SkeletonWriter},
    },
    store::Store,
    view::View,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
};
use walt_tar::{BLOCK, Dialect, END, Header, Region, Time, Type, write_header_as};
use walt_types::{DiffId, Hash256};

/// The directory of the layer's files in its tar.
const TOP: &[u8] = b"fs";
/// Bytes of the unit in which regions of sparse files are given; their map begins and ends at multiples of it.
const MIB: u64 = 1 << 20;
/// Size of a block of the node's disk, in bytes.
const DISK_BLOCK: u64 = 4096;
/// What an entry without content takes on a disk, in KiB: an inode and its name.
const ENTRY_KIB: u64 = 1;

/// One entry of the tar: what the layer has, with what overlayfs is to show.
struct Entry {
    path: Vec<u8>,
    header: Header,
    /// Regular files with content: their size.
    size: u64,
    /// The map of a file with large holes.
    map: Option<Vec<Region>>,
}

/// The tar while it is written.
struct Sink {
    hash: Sha256,
    seal: Sha256,
    size: u64,
    entries: u64,
    skeleton: SkeletonWriter,
    buffer: Vec<u8>,
}

impl Sink {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.skeleton.raw(bytes)
    }

    fn header(&mut self, header: &Header) -> Result<()> {
        self.entries += 1;
        self.raw(&encoded(header))
    }

    fn padding(&mut self, bytes: u64) -> Result<()> {
        self.raw(&[0; BLOCK][..(bytes.next_multiple_of(BLOCK as u64) - bytes) as usize])
    }

    /// A file of the tar itself.
    fn member(&mut self, name: &[u8], bytes: &[u8]) -> Result<()> {
        self.header(&Header { path: name.to_vec(), mode: 0o600, ..Header::file(bytes.len() as u64) })?;
        self.raw(bytes)?;
        self.padding(bytes.len() as u64)
    }

    /// The payload of a file of the layer; it is part of the seal.
    fn payload(&mut self, file: &File, (offset, length): Region) -> io::Result<()> {
        let (hash, seal) = (&mut self.hash, &mut self.seal);
        holes::read_payload(file, offset, length, &mut self.buffer, &mut |bytes| {
            hash.update(bytes);
            seal.update(bytes);
            Ok(())
        })?;
        self.size += length;
        Ok(())
    }
}

fn encoded(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 * BLOCK);
    write_header_as(&mut bytes, header, Dialect::Gnu);
    bytes
}

fn in_tar(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { TOP.to_vec() } else { [TOP, b"/", path].concat() }
}

fn in_list(list: &mut Vec<u8>, path: &[u8]) {
    list.extend_from_slice(b"./");
    list.extend_from_slice(path);
    list.push(0);
}

/// What busybox' `stat -c '%f %u %g %N'` prints of an entry, as a node has it.
fn stat_line(header: &Header, path: &[u8]) -> Vec<u8> {
    let kind = match header.kind {
        Type::File | Type::HardLink => 0o100_000,
        Type::Symlink => 0o120_000,
        Type::Char => 0o020_000,
        Type::Block => 0o060_000,
        Type::Dir => 0o040_000,
        Type::Fifo => 0o010_000,
    };
    let mode = kind | if header.kind == Type::Symlink { 0o777 } else { header.mode };
    let mut line = format!("{mode:x} {} {} ", header.uid, header.gid).into_bytes();
    match header.kind {
        Type::Symlink => {
            line.extend_from_slice(b"'./");
            line.extend_from_slice(path);
            line.extend_from_slice(b"' -> '");
            line.extend_from_slice(&header.link);
            line.push(b'\'');
        }
        _ => {
            line.extend_from_slice(b"./");
            line.extend_from_slice(path);
        }
    }
    line.push(b'\n');
    line
}

fn whiteout(path: Vec<u8>) -> Entry {
    let header = Header { kind: Type::Char, path: in_tar(&path), ..Header::file(0) };
    Entry { path, header, size: 0, map: None }
}

/// A layer, and what is below it.
struct Layer<'a> {
    root: &'a Root,
    nodes: &'a [Node],
    /// Positions of the entries of each directory.
    children: Vec<Vec<usize>>,
    implied: BTreeSet<Vec<u8>>,
    /// The merged tree below; none if the layer does not depend on it.
    below: Option<Arc<View>>,
}

impl Layer<'_> {
    /// Everything that the tar has below `fs`, parents first.
    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut first_names: HashMap<u64, usize> = HashMap::new();
        // Directories of the layer that hide those below, and these.
        let mut hiding: HashMap<usize, u32> = HashMap::new();
        for (position, node) in self.nodes.iter().enumerate() {
            cancel::check()?;
            let lower = self.below.as_ref().and_then(|below| below.find(&node.path));
            if let (Some(below), Some(lower), Kind::Dir) = (&self.below, lower, node.kind)
                && below.entry(lower).is_some_and(|e| e.kind == Kind::Dir)
                && (node.opaque || (position > 0 && hiding.contains_key(&node.parent)))
            {
                hiding.insert(position, lower);
            }
            if position > 0 {
                entries.extend(self.entry(position, &mut first_names)?);
            }
            if let (Some(lower), Some(below)) = (hiding.get(&position), &self.below) {
                let own: BTreeSet<&[u8]> =
                    self.children[position].iter().map(|child| self.nodes[*child].name()).collect();
                for child in below.children(*lower) {
                    if !own.contains(below.name(*child)) {
                        entries.push(whiteout(below.path(*child)));
                    }
                }
            }
        }
        Ok(entries)
    }

    fn entry(&self, position: usize, first_names: &mut HashMap<u64, usize>) -> Result<Option<Entry>> {
        let node = &self.nodes[position];
        let mtime = Time { sec: node.mtime.sec, nsec: 0 };
        let mut header = Header {
            path: in_tar(&node.path),
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime,
            ..Header::file(0)
        };
        let (mut size, mut map) = (0, None);
        match node.kind {
            Kind::Whiteout => return Ok(Some(whiteout(node.path.clone()))),
            Kind::Socket => return Ok(None),
            Kind::Dir => {
                header.kind = Type::Dir;
                if let Some(meta) = self.metadata_below(&node.path) {
                    let DirMeta { mode, uid, gid, mtime } = meta;
                    (header.mode, header.uid, header.gid) = (mode, uid, gid);
                    header.mtime = Time { sec: mtime.sec, nsec: 0 };
                }
            }
            // A hard link of a symbolic link would be made from one that busybox has not made yet.
            Kind::Symlink => (header.kind, header.link) = (Type::Symlink, node.target.clone()),
            kind => {
                if node.nlink > 1 {
                    if let Some(first) = first_names.get(&node.ino) {
                        (header.kind, header.link) = (Type::HardLink, in_tar(&self.nodes[*first].path));
                        return Ok(Some(Entry { path: node.path.clone(), header, size, map }));
                    }
                    first_names.insert(node.ino, position);
                }
                match kind {
                    Kind::Char => (header.kind, header.rdev) = (Type::Char, node.rdev),
                    Kind::Block => (header.kind, header.rdev) = (Type::Block, node.rdev),
                    Kind::Fifo => header.kind = Type::Fifo,
                    _ => {
                        let show = self.root.show(&node.path);
                        size = node.size;
                        if size >= holes::MIN_HOLES {
                            let file = self.root.file(&node.path).on("open", &show)?;
                            map = holes::map(&file, size).on("read", &show)?;
                        }
                        header.size = if map.is_none() { size } else { 0 };
                    }
                }
            }
        }
        Ok(Some(Entry { path: node.path.clone(), header, size, map }))
    }

    /// The metadata of an implied directory: that of the directory below.
    fn metadata_below(&self, path: &[u8]) -> Option<DirMeta> {
        let below = self.below.as_ref().filter(|_| self.implied.contains(path))?;
        let entry = below.entry(below.find(path)?).filter(|e| e.kind == Kind::Dir)?;
        Some(DirMeta { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime })
    }
}

/// Writes the tar; the room that its files take, in KiB.
fn write(sink: &mut Sink, root: &Root, entries: &[Entry]) -> Result<u64> {
    let top = Header { kind: Type::Dir, path: TOP.to_vec(), mode: 0o755, ..Header::file(0) };
    sink.header(&top)?;
    let (mut all, mut files, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut kib = 0;
    for entry in entries {
        // Before any content.
        sink.seal.update(stat_line(&entry.header, &entry.path));
        in_list(&mut all, &entry.path);
        kib += match entry.header.kind {
            Type::Dir => DISK_BLOCK >> 10,
            _ => (entry.header.size.next_multiple_of(DISK_BLOCK) >> 10) + ENTRY_KIB,
        };
    }
    for entry in entries {
        cancel::check()?;
        sink.header(&entry.header)?;
        let Header { kind, uid, gid, size, .. } = &entry.header;
        if *kind == Type::Symlink && (*uid, *gid) != (0, 0) {
            links.extend_from_slice(format!("{uid}:{gid}\0").as_bytes());
            in_list(&mut links, &entry.path);
        }
        if *size > 0 {
            let show = root.show(&entry.path);
            let file = root.file(&entry.path).on("open", &show)?;
            sink.skeleton.file(&entry.path, *size)?;
            sink.payload(&file, (0, *size)).on("read", &show)?;
            sink.padding(*size)?;
            in_list(&mut files, &entry.path);
        }
    }
    let mut sparse = Vec::new();
    for (number, entry) in entries.iter().filter(|e| e.map.is_some()).enumerate() {
        kib += write_sparse(sink, root, entry, number, &mut sparse)?;
    }
    let mut dirs = Vec::new();
    for entry in entries.iter().rev().filter(|e| e.header.kind == Type::Dir) {
        dirs.extend(encoded(&entry.header));
    }
    dirs.extend_from_slice(&END);
    for (name, bytes) in [
        (b"entries".as_slice(), &all),
        (b"files", &files),
        (b"links", &links),
        (b"sparse", &sparse),
        (b"dirs", &dirs),
    ] {
        sink.member(name, bytes)?;
        kib += (bytes.len() as u64).next_multiple_of(DISK_BLOCK) >> 10;
    }
    sink.raw(&END)?;
    Ok(kib)
}

/// The regions of a file with large holes, as a file `data/<number>`, and its lines in the list `sparse`.
fn write_sparse(
    sink: &mut Sink,
    root: &Root,
    entry: &Entry,
    number: usize,
    list: &mut Vec<u8>,
) -> Result<u64> {
    let show = root.show(&entry.path);
    let file = root.file(&entry.path).on("open", &show)?;
    let regions: Vec<Region> = entry.map.iter().flatten().copied().filter(|r| r.1 > 0).collect();
    let bytes: u64 = regions.iter().map(|r| r.1).sum();
    let name = format!("data/{number}").into_bytes();
    sink.header(&Header { path: name, mode: 0o600, ..Header::file(bytes) })?;
    let mut words = Vec::new();
    for region in regions {
        sink.skeleton.part(&entry.path, region.0, region.1)?;
        sink.payload(&file, region).on("read", &show)?;
        words.push(format!("{}:{}", region.0 / MIB, region.1.div_ceil(MIB)));
    }
    sink.padding(bytes)?;
    in_list(list, &entry.path);
    list.extend_from_slice(format!("{}\0{}\0", entry.size, words.join(" ")).as_bytes());
    // Twice while it is unpacked.
    Ok(2 * (bytes.next_multiple_of(DISK_BLOCK) >> 10))
}

impl Store {
    /// Makes the tar of the topmost of `layers` (lowest first) for nodes; one that exists is returned. Reads all files of
    /// the layer.
    ///
    /// # Errors
    /// A layer is missing or damaged, or the disk failed.
    pub fn make_node_tar(&self, layers: &[DiffId]) -> Result<NodeTar> {
        if let Some(tar) = self.node_tar(layers)? {
            return Ok(tar);
        }
        let Some((top, below)) = layers.split_last() else {
            return Err(Error::Layer("an image needs at least one layer".into()));
        };
        if !self.has_layer(top) {
            return Err(Error::Missing { kind: "layer", id: top.to_string() });
        }
        let fs_dir = self.layer_fs(top);
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let nodes = scan(&root, Attributes::Opaque)?;
        let mut implied = read_implied(&self.layer_dir(top))?;
        // The root shows the metadata of the upper directory.
        implied.remove(b"".as_slice());
        let mut children = vec![Vec::new(); nodes.len()];
        for (position, node) in nodes.iter().enumerate().skip(1) {
            children[node.parent].push(position);
        }
        // Whether it is the lowest or not: the layer alone decides, so that it has one kind of key.
        let depends = !implied.is_empty() || nodes.iter().any(|node| node.opaque);
        let key = if depends { NodeTarKey::over(*top, below) } else { NodeTarKey::alone(*top) };
        let below = if depends && !below.is_empty() { Some(self.view_in_memory(below)?) } else { None };
        let layer = Layer { root: &root, nodes: &nodes, children, implied, below };
        let entries = layer.entries()?;

        let temporary = self.temporary()?;
        let mut sink = Sink {
            hash: Sha256::new(),
            seal: Sha256::new(),
            size: 0,
            entries: 0,
            skeleton: SkeletonWriter::create(&temporary.path().join("skeleton"))?,
            buffer: Vec::new(),
        };
        let unpacked_kib = write(&mut sink, &root, &entries)?;
        let sha256 = Hash256(sink.hash.finalize().into());
        let seal = Hash256(sink.seal.finalize().into());
        let bytes = sink.size;
        sink.skeleton.finish(&LayerInfo { diff_id: DiffId(sha256), size: bytes, entries: sink.entries })?;
        let sums = format!("{VERSION}\n{unpacked_kib}\n{seal}\n");
        keep(temporary.path(), &sums, &self.node_tars(), &key)?;
        Ok(NodeTar { key, bytes, sha256, unpacked_kib, seal })
    }
}

/// Moves a finished tar to its place. It may be made again at any time, so it need not be durable, but whole: a file
/// that a crash has cut is found by its checksum or its first line.
fn keep(made: &Path, sums: &str, dir: &Path, key: &NodeTarKey) -> Result<()> {
    let path = made.join("sums");
    let mut file = File::create(&path).on("create", &path)?;
    file.write_all(sums.as_bytes()).on("write", &path)?;
    for name in ["sums", "skeleton"] {
        let path = made.join(name);
        File::open(&path).and_then(|file| file.sync_all()).on("write to disk", &path)?;
    }
    let target = dir.join(key.to_string());
    remove(&target)?;
    fs::rename(made, &target).on("move the tar to", &target)?;
    sync_dir(dir).on("write to disk", dir)
}
