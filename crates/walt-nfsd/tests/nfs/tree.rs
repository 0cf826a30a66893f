//! For tests: a directory of the disk as a view, and exports that are everybody's.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walt_nfs::{FileType, Status};
use walt_nfsd::view::{ReadView, ViewEntry};
use walt_nfsd::{Export, Exports, MountError, MountKind};
use walt_types::{Hash256, ViewId};

/// The view's id.
pub const VIEW: ViewId = ViewId(Hash256([0xab; 32]));
/// The number of the `/persist` export.
pub const PERSIST: u64 = 7;

struct Node {
    path: PathBuf,
    meta: std::fs::Metadata,
    kind: FileType,
    target: Vec<u8>,
    parent: u32,
    first: u32,
    children: Vec<(Vec<u8>, u32)>,
}

/// A directory that was read once.
pub struct Tree(Vec<Node>);

impl Tree {
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut nodes = Vec::new();
        let mut inodes = HashMap::new();
        add(&mut nodes, &mut inodes, root.to_owned(), 0)?;
        Ok(Self(nodes))
    }
    fn node(&self, n: u32) -> &Node {
        &self.0[n as usize]
    }
}

fn add(nodes: &mut Vec<Node>, inodes: &mut HashMap<u64, u32>, path: PathBuf, parent: u32) -> io::Result<u32> {
    let meta = path.symlink_metadata()?;
    let t = meta.file_type();
    let kind = match () {
        () if t.is_dir() => FileType::Directory,
        () if t.is_symlink() => FileType::Symlink,
        () if t.is_block_device() => FileType::Block,
        () if t.is_char_device() => FileType::Char,
        () if t.is_fifo() => FileType::Fifo,
        () if t.is_socket() => FileType::Socket,
        () => FileType::Regular,
    };
    let target =
        if t.is_symlink() { std::fs::read_link(&path)?.into_os_string().into_vec() } else { Vec::new() };
    let number = nodes.len() as u32;
    let first = if t.is_dir() { number } else { *inodes.entry(meta.ino()).or_insert(number) };
    nodes.push(Node { path: path.clone(), meta, kind, target, parent, first, children: Vec::new() });
    if t.is_dir() {
        let mut names: Vec<_> =
            std::fs::read_dir(&path)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            let child = add(nodes, inodes, path.join(&name), number)?;
            nodes[number as usize].children.push((name.as_bytes().to_vec(), child));
        }
    }
    Ok(number)
}

impl ReadView for Tree {
    fn id(&self) -> ViewId {
        VIEW
    }
    fn root(&self) -> u32 {
        0
    }
    fn len(&self) -> u32 {
        self.0.len() as u32
    }
    fn entry(&self, number: u32) -> ViewEntry<'_> {
        let n = self.node(number);
        ViewEntry {
            kind: n.kind,
            mode: n.meta.mode(),
            uid: n.meta.uid(),
            gid: n.meta.gid(),
            size: n.meta.size(),
            mtime: n.meta.mtime(),
            mtime_nsec: n.meta.mtime_nsec() as u32,
            rdev: ((n.meta.rdev() >> 8 & 0xfff) as u32, (n.meta.rdev() & 0xff) as u32),
            nlink: n.meta.nlink() as u32,
            target: &n.target,
            first: n.first,
        }
    }
    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let children = &self.node(dir).children;
        let at = children.binary_search_by(|(n, _)| n.as_slice().cmp(name)).ok()?;
        Some(children[at].1)
    }
    fn child(&self, dir: u32, position: usize) -> Option<(&[u8], u32)> {
        self.node(dir).children.get(position).map(|(name, n)| (name.as_slice(), *n))
    }
    fn parent(&self, number: u32) -> u32 {
        self.node(number).parent
    }
    fn open(&self, number: u32) -> io::Result<File> {
        File::open(&self.node(number).path)
    }
}

/// One view and one directory for every node but `stranger`.
pub struct Everybody {
    pub view: Arc<Tree>,
    pub persist: PathBuf,
}

impl Exports for Everybody {
    fn mount(&self, _: Ipv4Addr, node: &str, what: MountKind) -> Result<Export, MountError> {
        match (node, what) {
            ("stranger", _) => Err(MountError::Denied),
            (_, MountKind::View) => Ok(Export::View(self.view.clone())),
            (_, MountKind::Persist) => Ok(Export::Persist { export_id: PERSIST, dir: self.persist.clone() }),
        }
    }
    fn view(&self, _: Ipv4Addr, view: &ViewId) -> Result<Arc<dyn ReadView>, Status> {
        if *view == VIEW { Ok(self.view.clone()) } else { Err(Status::Stale) }
    }
    fn persist(&self, _: Ipv4Addr, export_id: u64) -> Result<PathBuf, Status> {
        if export_id == PERSIST { Ok(self.persist.clone()) } else { Err(Status::Stale) }
    }
}
