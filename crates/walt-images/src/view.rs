//! The merged, read-only tree of an image's layers and one platform layer.
//!
//! Entries are numbered: those of the image's layers first, in the order of a walk with sorted names, then those of the
//! platform layer. A number means one object for the life of the view's id. Image entries that the platform layer hides
//! keep their number and cannot be looked up. Names that share an inode in a layer share a [`Entry::fileid`].

mod build;
pub(crate) mod file;

use crate::{
    Time,
    error::{Context, Error, Result},
    layer::{
        disk::{Place, Root, Xattrs},
        scan::Kind,
    },
    store::{MAX_LAYERS, Store},
};
use rustix::fd::OwnedFd;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use walt_tar::local::is_overlay_xattr;
use walt_tar::paths::split;
use walt_types::{DiffId, Hash256, ViewId};

/// Version of the index file and of the order of entries. Part of the view id.
pub const INDEX_VERSION: u32 = 1;
/// Most views kept in memory; the least recently used one is dropped. The view of a Debian system takes about 3 MB.
const MAX_CACHED: usize = 32;
/// Symbolic links followed while one path is resolved (as in the kernel).
pub const MAX_LINKS: usize = 40;
/// Size reported for a directory, in bytes.
const DIR_SIZE: u64 = 4096;

/// One object of a view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub kind: Kind,
    pub visible: bool,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Time,
    pub rdev: (u32, u32),
    pub nlink: u32,
    pub fileid: u32,
    pub parent: u32,
    /// Position in the list of layers; the platform layer is the last.
    pub layer: u32,
    /// Offset and length in the text area.
    pub name: (u32, u32),
    pub target: (u32, u32),
    /// First position and count in the list of children.
    pub children: (u32, u32),
}

/// The stored part of a view.
#[derive(Debug)]
pub(crate) struct Index {
    /// Lowest first; the platform layer, if any, is the last.
    pub layers: Vec<DiffId>,
    pub platform: bool,
    pub records: Vec<Record>,
    pub children: Vec<u32>,
    pub text: Vec<u8>,
}

impl Index {
    /// The image's layers, and the platform layer.
    fn parts(&self) -> (&[DiffId], Option<&DiffId>) {
        match self.layers.split_last() {
            Some((platform, layers)) if self.platform => (layers, Some(platform)),
            _ => (&self.layers, None),
        }
    }
}

/// A merged tree. Immutable and cheap to share.
#[derive(Debug)]
pub struct View {
    id: ViewId,
    index: Index,
    dirs: Vec<PathBuf>,
    roots: Vec<OnceLock<Root>>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

/// Metadata of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Type: never a socket or a whiteout.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file or a link's target; 4096 for directories.
    pub size: u64,
    /// Last modification.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Names of the object in this view; for a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Number of the object's first name: equal for hard links.
    pub fileid: u32,
    /// Target of a symbolic link, else empty.
    pub target: &'a [u8],
}

impl View {
    /// The id of the view.
    pub fn id(&self) -> &ViewId {
        &self.id
    }

    /// The image's layers, lowest first, without the platform layer.
    pub fn layers(&self) -> &[DiffId] {
        let count = self.index.layers.len() - usize::from(self.index.platform);
        &self.index.layers[..count]
    }

    /// The platform layer.
    pub fn platform(&self) -> Option<&DiffId> {
        self.index.layers.last().filter(|_| self.index.platform)
    }

    /// Number of the root directory.
    pub fn root(&self) -> u32 {
        0
    }

    /// Count of numbered entries; the platform layer may hide some of them.
    pub fn len(&self) -> u32 {
        self.index.records.len() as u32
    }

    /// A view has at least its root.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.index.records.get(number as usize).filter(|r| r.visible)
    }

    fn text(&self, (start, length): (u32, u32)) -> &[u8] {
        // Ranges were checked when the index was loaded.
        &self.index.text[start as usize..(start + length) as usize]
    }

    /// Metadata of an entry; `None` if the number does not exist in this view, or is hidden.
    pub fn entry(&self, number: u32) -> Option<Entry<'_>> {
        let r = self.record(number)?;
        let (mode, uid, gid, size, mtime, rdev) = (r.mode, r.uid, r.gid, r.size, r.mtime, r.rdev);
        let (kind, nlink, fileid, target) = (r.kind, r.nlink, r.fileid, self.text(r.target));
        Some(Entry { kind, mode, uid, gid, size, mtime, rdev, nlink, fileid, target })
    }

    /// Numbers of a directory's entries, sorted by name (byte-wise): a position in it is a stable READDIR cookie.
    /// Empty for anything else.
    pub fn children(&self, dir: u32) -> &[u32] {
        self.record(dir).map_or(&[], |r| {
            let (start, count) = r.children;
            &self.index.children[start as usize..(start + count) as usize]
        })
    }

    /// Last name of an entry; empty for the root.
    pub fn name(&self, number: u32) -> &[u8] {
        self.record(number).map_or(&[], |r| self.text(r.name))
    }

    /// The parent directory of an entry; the root's is the root.
    pub fn parent(&self, number: u32) -> u32 {
        self.record(number).map_or(0, |r| r.parent)
    }

    /// Entry `name` of directory `dir`: neither `.` nor `..` are known here.
    pub fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let children = self.children(dir);
        let at =
            children.binary_search_by(|n| self.text(self.index.records[*n as usize].name).cmp(name)).ok()?;
        Some(children[at])
    }

    /// Path below the root, without leading slash; empty for the root.
    pub fn path(&self, number: u32) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = number;
        while at != 0 {
            let Some(record) = self.record(at) else { break };
            parts.push(self.text(record.name));
            at = record.parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// The entry at a path; links are not followed, empty parts are skipped, `.` and `..` are not supported.
    pub fn find(&self, path: &[u8]) -> Option<u32> {
        let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty());
        parts.into_iter().try_fold(0, |dir, name| self.lookup(dir, name))
    }

    /// The entry at a path below the root. Symbolic links are followed inside the view, including the last one.
    /// `None` if it does not exist, or after 40 links.
    pub fn resolve(&self, path: &[u8]) -> Option<u32> {
        let mut left: Vec<Vec<u8>> = Vec::new();
        let push = |left: &mut Vec<Vec<u8>>, path: &[u8]| {
            left.extend(
                path.split(|b| *b == b'/').rev().filter(|p| !p.is_empty() && *p != b".").map(<[u8]>::to_vec),
            );
        };
        push(&mut left, path);
        let (mut at, mut links) = (0, 0);
        while let Some(name) = left.pop() {
            if name == b".." {
                at = self.parent(at);
                continue;
            }
            let next = self.lookup(at, &name)?;
            let entry = self.entry(next)?;
            if entry.kind != Kind::Symlink {
                at = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if entry.target.starts_with(b"/") {
                at = 0;
            }
            push(&mut left, entry.target);
        }
        Some(at)
    }

    fn layer_root(&self, layer: u32) -> io::Result<&Root> {
        let slot = &self.roots[layer as usize];
        if let Some(root) = slot.get() {
            return Ok(root);
        }
        let root = Root::open(&self.dirs[layer as usize])?;
        Ok(slot.get_or_init(|| root))
    }

    /// Opens a regular file for reading; other types are an error.
    pub fn open(&self, number: u32) -> io::Result<File> {
        let record = self.record(number).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        if record.kind != Kind::File {
            return Err(io::Error::other("it is not a regular file"));
        }
        self.layer_root(record.layer)?.file(&self.path(number))
    }

    /// Extended attributes of an entry, sorted by name, without overlayfs' own.
    pub fn xattrs(&self, number: u32) -> io::Result<Xattrs> {
        let record = self.record(number).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let root = self.layer_root(record.layer)?;
        let path = self.path(number);
        let (dir, name) = split(&path);
        let dir = root.dir(dir)?;
        let mut all = Place { dir: &dir, name }.xattrs()?;
        all.retain(|(name, _)| !is_overlay_xattr(name));
        Ok(all)
    }

    /// Calls `each` with every entry of a directory that has extended attributes, and with their names, without
    /// overlayfs' own. The directory is opened once for each layer of its entries.
    pub(crate) fn attribute_names(
        &self,
        dir: u32,
        each: &mut dyn FnMut(u32, Vec<Vec<u8>>),
    ) -> io::Result<()> {
        let path = self.path(dir);
        let mut open: Vec<(u32, OwnedFd)> = Vec::new();
        for number in self.children(dir) {
            let Some(record) = self.record(*number) else { continue };
            if !open.iter().any(|(layer, _)| *layer == record.layer) {
                open.push((record.layer, self.layer_root(record.layer)?.dir(&path)?));
            }
            let Some((_, dir)) = open.iter().find(|(layer, _)| *layer == record.layer) else { continue };
            let mut names = Place { dir, name: self.text(record.name) }.xattr_names()?;
            names.retain(|name| !is_overlay_xattr(name));
            if !names.is_empty() {
                each(*number, names);
            }
        }
        Ok(())
    }

    /// The parent directory of an entry in the layer that the entry comes from.
    pub(crate) fn directory_in_layer(&self, number: u32) -> io::Result<OwnedFd> {
        let record = self.record(number).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(self.layer_root(record.layer)?.dir(split(&self.path(number)).0)?)
    }

    /// Whether an entry of this view and one of another are the same object of the same layer, which never changes.
    /// False for directories, whose metadata may come from below.
    pub(crate) fn same_object(&self, number: u32, other: &View, theirs: u32) -> bool {
        let (Some(a), Some(b)) = (self.record(number), other.record(theirs)) else { return false };
        a.kind != Kind::Dir
            && self.index.layers[a.layer as usize] == other.index.layers[b.layer as usize]
            && self.path(number) == other.path(theirs)
    }

    /// Whether this entry comes from the platform layer.
    pub fn from_platform(&self, number: u32) -> bool {
        self.index.platform
            && self.record(number).is_some_and(|r| r.layer as usize + 1 == self.index.layers.len())
    }
}

/// The id of the view of these layers (lowest first) under this platform layer.
pub(crate) fn view_id(layers: &[DiffId], platform: Option<&DiffId>) -> ViewId {
    let mut hash = Sha256::new();
    hash.update(b"walt view");
    hash.update(INDEX_VERSION.to_le_bytes());
    hash.update((layers.len() as u32).to_le_bytes());
    for layer in layers.iter().chain(platform) {
        hash.update(layer.0.0);
    }
    ViewId(Hash256(hash.finalize().into()))
}

/// Views in memory, the most recently used one last.
#[derive(Debug, Default)]
pub(crate) struct ViewCache(Vec<Arc<View>>);

impl ViewCache {
    fn get(&mut self, id: &ViewId) -> Option<Arc<View>> {
        let at = self.0.iter().position(|v| v.id == *id)?;
        let view = self.0.remove(at);
        self.0.push(view.clone());
        Some(view)
    }

    fn put(&mut self, view: Arc<View>) {
        self.0.retain(|v| v.id != view.id);
        if self.0.len() >= MAX_CACHED {
            self.0.remove(0);
        }
        self.0.push(view);
    }

    pub(crate) fn forget(&mut self, dead: impl Fn(&ViewId) -> bool) {
        self.0.retain(|v| !dead(&v.id));
    }
}

impl Store {
    fn view_path(&self, id: &ViewId) -> PathBuf {
        self.images_dir().join("views").join(id.to_string())
    }

    fn cached(&self, id: &ViewId) -> Option<Arc<View>> {
        self.views.lock().get(id)
    }

    /// The view of `layers` (lowest first) under `platform`. Its index is built and stored the first time, loaded
    /// later; a damaged index file is built again.
    pub fn view(&self, layers: &[DiffId], platform: Option<&DiffId>) -> Result<Arc<View>> {
        if layers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers { count: layers.len(), max: MAX_LAYERS });
        }
        self.view_of_any(layers, platform)
    }

    /// [`Store::view`] of any number of layers, which may be too many to be mounted.
    pub(crate) fn view_of_any(&self, layers: &[DiffId], platform: Option<&DiffId>) -> Result<Arc<View>> {
        let id = view_id(layers, platform);
        match self.view_by_id(&id) {
            Err(Error::Missing { kind: "view", .. } | Error::Damaged { .. }) => {}
            other => return other,
        }
        let index = build::build(self, layers, platform)?;
        self.write_file("write the index", &self.view_path(&id), &file::encode(&index))?;
        Ok(self.keep(id, index))
    }

    /// The view of these layers, which is not stored.
    pub(crate) fn view_in_memory(&self, layers: &[DiffId]) -> Result<Arc<View>> {
        let index = build::build(self, layers, None)?;
        Ok(Arc::new(self.of_index(view_id(layers, None), index)))
    }

    /// Loads a view by its id. Its layers must be in the store.
    pub fn view_by_id(&self, id: &ViewId) -> Result<Arc<View>> {
        if let Some(view) = self.cached(id) {
            return Ok(view);
        }
        let index = self.load(id)?.1;
        if let Some(layer) = index.layers.iter().find(|l| !self.has_layer(l)) {
            return Err(Error::Missing { kind: "layer", id: layer.to_string() });
        }
        Ok(self.keep(*id, index))
    }

    /// Reads an index file: its bytes, and what they mean.
    fn load(&self, id: &ViewId) -> Result<(Vec<u8>, Index)> {
        let path = self.view_path(id);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { kind: "view", id: id.to_string() });
            }
            other => other.on("read the index", &path)?,
        };
        let damaged = |why: &str| Error::Damaged { path: path.clone(), why: why.to_owned() };
        let index = file::decode(&bytes).map_err(damaged)?;
        let (layers, platform) = index.parts();
        if view_id(layers, platform) != *id {
            return Err(damaged("it is the index of another view"));
        }
        Ok((bytes, index))
    }

    /// The layers that a stored view is made of, the platform layer last.
    pub(crate) fn view_layers(&self, id: &ViewId) -> Result<Vec<DiffId>> {
        match self.cached(id) {
            Some(view) => Ok(view.index.layers.clone()),
            None => Ok(self.load(id)?.1.layers),
        }
    }

    /// Builds a stored view again from its layers and compares every byte of its index.
    pub(crate) fn verify_view(&self, id: &ViewId) -> Result<()> {
        let (bytes, index) = self.load(id)?;
        let (layers, platform) = index.parts();
        if file::encode(&build::build(self, layers, platform)?) == bytes {
            return Ok(());
        }
        let why = "it does not match the files of its layers".into();
        Err(Error::Damaged { path: self.view_path(id), why })
    }

    fn of_index(&self, id: ViewId, index: Index) -> View {
        let dirs: Vec<_> = index.layers.iter().map(|l| self.layer_fs(l)).collect();
        let roots = dirs.iter().map(|_| OnceLock::new()).collect();
        View { id, index, dirs, roots }
    }

    fn keep(&self, id: ViewId, index: Index) -> Arc<View> {
        let view = Arc::new(self.of_index(id, index));
        self.views.lock().put(view.clone());
        view
    }
}
