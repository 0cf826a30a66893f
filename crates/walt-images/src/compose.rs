//! Makes one layer of entries that are put on top of a view: used by copies, saves of nodes and steps of builds.
//!
//! Nothing is mounted. The new entries are files in a directory that becomes a layer; everything below comes from the
//! view. Paths are those of the merged tree: [`Composer::resolve`] follows symbolic links inside it, as the kernel
//! does for a process with this root, and the other calls take its results.
//!
//! ```text
//! view ──┐                   put_file, put_dir, put_link, …    ┌─▶ nothing changed
//!        ├─▶ Composer ──▶     extract (a tar), remove      ──▶ finish
//! store ─┘                                                     └─▶ a layer, durable, in the store
//! ```
//! A directory that gets a new entry is copied up with the metadata and time it has below. An entry replaces an
//! existing one of another type; a directory is merged with an existing directory. Changing a file through one of
//! several names that a lower layer has, or linking to it, copies it: the other names keep the old file (as overlayfs
//! does without `index`).
//!
//! `tree` reads the merged tree, `put` adds one entry, `extract` a tar.
//!
//! Limits: those of a layer (4 million entries, 1 TiB apparent size), 40 links followed for one path. Names that begin
//! with `.wh.` and character devices 0:0 mean deletions in a layer and are refused. Attributes of overlayfs are dropped.

mod extract;
mod put;
mod tree;

pub use extract::Edit;

use crate::{
    Prepared, SaveRules, cancel,
    error::{Context, Error, Result},
    layer::{
        attributes::{self, Metadata, Skipped},
        disk::{OPAQUE, Place, Root, Xattrs},
        holes,
        import::{MAX_APPARENT, MAX_ENTRIES},
        scan::Kind,
        skeleton::LayerInfo,
    },
    store::{Store, Temporary},
    view::{Entry, View},
};
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, Mode},
};
use std::{collections::BTreeMap, io, sync::Arc};
use walt_tar::paths::{as_path, split};
use walt_tar::{MAX_PATH, Time};

/// Longest name of a file in bytes (Linux NAME_MAX).
const MAX_NAME: usize = 255;
/// Longest path in bytes: a whiteout needs `.wh.` in addition.
const MAX_LENGTH: usize = MAX_PATH - ".wh.".len();

/// Metadata of a new entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, 0 to 0o7777; ignored for symbolic links.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes by name; those of overlayfs are dropped.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Whether the last part of a path is followed if it is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Yes, as open(2) does.
    Follow,
    /// No, as lstat(2) does.
    Keep,
}

/// Outcome of [`Composer::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Composed {
    /// The tree has not changed.
    Unchanged,
    /// The new layer, which is in the store.
    Layer(LayerInfo),
}

/// An entry of the new layer.
#[derive(Debug)]
struct Upper {
    kind: Kind,
    /// A directory that hides the one below.
    opaque: bool,
    /// Target of a symbolic link.
    target: Vec<u8>,
}

/// A layer being made on top of a view. If it is dropped before it is finished, nothing of it remains.
#[derive(Debug)]
pub struct Composer<'a> {
    store: &'a Store,
    view: Arc<View>,
    temporary: Temporary,
    root: Root,
    /// Everything in the directory on disk, by path; the root is there from the start.
    upper: BTreeMap<Vec<u8>, Upper>,
    /// Times of directories, which are set at the end because adding entries changes them.
    times: BTreeMap<Vec<u8>, Time>,
    /// The directory used last: entries of one directory usually follow each other.
    parent: Option<(Vec<u8>, OwnedFd)>,
    entries: u64,
    apparent: u64,
    skipped: Skipped,
    /// Default access lists of directories. They are set at the end, too, as new entries would inherit them.
    inherited: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Only a directory may be put over a directory.
    keep_directories: bool,
}

impl Store {
    /// Starts a layer on top of `view`. Unfinished layers of a killed server are removed when the store is opened.
    pub fn compose(&self, view: &Arc<View>) -> Result<Composer<'_>> {
        let temporary = self.temporary()?;
        let fs_dir = self.prepare_upper(temporary.path(), view)?;
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let mtime = view.entry(view.root()).map_or(Time::default(), |e| e.mtime);
        let top = Upper { kind: Kind::Dir, opaque: false, target: Vec::new() };
        Ok(Composer {
            store: self,
            view: view.clone(),
            temporary,
            root,
            upper: BTreeMap::from([(Vec::new(), top)]),
            times: BTreeMap::from([(Vec::new(), mtime)]),
            parent: None,
            entries: 0,
            apparent: 0,
            skipped: Skipped::default(),
            inherited: BTreeMap::new(),
            keep_directories: false,
        })
    }
}

fn refuse(path: &[u8], why: &str) -> Error {
    Error::Commit(format!("/{}: {why}", String::from_utf8_lossy(path)))
}

/// Whether `path` is below `dir`.
fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| dir.is_empty() || rest.starts_with(b"/"))
}

impl Composer<'_> {
    /// The view below this layer.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// From now on, only a directory can be put over a directory: other entries are refused instead of replacing it.
    pub fn keep_directories(&mut self) {
        self.keep_directories = true;
    }

    /// Makes `dir` the current directory, and copies it into this layer if it is only below.
    fn enter(&mut self, dir: &[u8]) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == dir) {
            return Ok(());
        }
        if !self.upper.contains_key(dir) {
            let absent = || refuse(dir, "No such file or directory");
            let number = self.below(dir).ok_or_else(absent)?;
            let entry = self.view.entry(number).filter(|e| e.kind == Kind::Dir);
            let entry = entry.ok_or_else(|| refuse(dir, "it is not a directory"))?;
            let meta = self.lower_meta(number, &entry)?;
            self.enter(split(dir).0)?;
            self.make_dir(dir, &meta, false)?;
        }
        match self.upper.get(dir).map(|u| u.kind) {
            Some(Kind::Dir) => {}
            Some(Kind::Whiteout) | None => return Err(refuse(dir, "No such file or directory")),
            Some(_) => return Err(refuse(dir, "it is not a directory")),
        }
        let fd = self.root.dir(dir).on("open", self.root.show(dir))?;
        self.parent = Some((dir.to_vec(), fd));
        Ok(())
    }

    /// The metadata of an entry of the view.
    fn lower_meta(&self, number: u32, entry: &Entry) -> Result<Meta> {
        let (mode, uid, gid, mtime) = (entry.mode, entry.uid, entry.gid, entry.mtime);
        Ok(Meta { mode, uid, gid, mtime, xattrs: self.lower_xattrs(number)? })
    }

    fn lower_xattrs(&self, number: u32) -> Result<Xattrs> {
        let show = self.root.show(&self.view.path(number));
        self.view.xattrs(number).on("read the extended attributes below", show)
    }

    /// The name of `path` in the current directory, which is its parent.
    fn place<'b>(&'b self, path: &'b [u8]) -> Place<'b> {
        match &self.parent {
            Some((_, dir)) => Place { dir, name: split(path).1 },
            None => Place { dir: &self.root.fd, name: b"" },
        }
    }

    /// Attributes that could not be set on the entries so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Sets the metadata of `path`, which is in the current directory.
    fn set_metadata(&mut self, path: &[u8], meta: &Meta, kind: Kind) -> Result<()> {
        let mut skipped = std::mem::take(&mut self.skipped);
        let later = meta.xattrs.iter().find(|(name, _)| kind == Kind::Dir && name == attributes::INHERITED);
        let mut meta = meta.clone();
        self.inherited.remove(path);
        if let Some((_, list)) = later {
            self.inherited.insert(path.to_vec(), list.clone());
            meta.xattrs.retain(|(name, _)| name != attributes::INHERITED);
        }
        let done = metadata(&self.place(path), &meta, kind, &mut skipped);
        self.skipped = skipped;
        done.on("set the metadata of", self.root.show(path))
    }

    fn note(&mut self, path: &[u8], kind: Kind, target: &[u8]) {
        self.upper.insert(path.to_vec(), Upper { kind, opaque: false, target: target.to_vec() });
    }

    /// Makes a new directory in the current one.
    fn make_dir(&mut self, path: &[u8], meta: &Meta, opaque: bool) -> Result<()> {
        let place = self.place(path);
        let show = self.root.show(path);
        fs::mkdirat(place.dir, as_path(place.name), Mode::from_raw_mode(0o700))
            .on("create directory", &show)?;
        if opaque {
            place.set_xattr(OPAQUE.as_bytes(), b"y").on("mark as opaque", &show)?;
        }
        self.set_metadata(path, meta, Kind::Dir)?;
        self.note(path, Kind::Dir, b"");
        if let (true, Some(upper)) = (opaque, self.upper.get_mut(path)) {
            upper.opaque = true;
        }
        self.times.insert(path.to_vec(), meta.mtime);
        Ok(())
    }

    /// Counts an entry towards the limits, and refuses names that a layer cannot contain.
    fn check_limits(&mut self, path: &[u8], size: u64) -> Result<()> {
        if path.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            let why = "names that start with '.wh.' mean a deletion in an OCI layer; rename or remove it";
            return Err(refuse(path, why));
        }
        let odd =
            |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.len() > MAX_NAME || part.contains(&0);
        if !path.is_empty() && path.split(|b| *b == b'/').any(odd) || path.len() >= MAX_LENGTH {
            return Err(refuse(path, "it is not a path below the root"));
        }
        cancel::check()?;
        self.entries += 1;
        self.apparent = self.apparent.saturating_add(size);
        if self.entries > MAX_ENTRIES {
            return Err(refuse(path, &format!("the layer would have more than {MAX_ENTRIES} files")));
        }
        if self.apparent > MAX_APPARENT {
            let max = MAX_APPARENT >> 30;
            return Err(refuse(
                path,
                &format!("the files of the layer would be larger than {max} GiB together (holes count)"),
            ));
        }
        Ok(())
    }

    /// Removes the entry of this layer at `path`, with everything in it. Its parent is the current directory.
    fn clear(&mut self, path: &[u8]) -> Result<()> {
        let Some(upper) = self.upper.remove(path) else { return Ok(()) };
        let show = self.root.show(path);
        let is_dir = upper.kind == Kind::Dir;
        if is_dir {
            let below: Vec<Vec<u8>> = {
                let start = [path, b"/"].concat();
                let range = self.upper.range(start.clone()..);
                range.map(|(p, _)| p.clone()).take_while(|p| p.starts_with(&start)).collect()
            };
            // A directory sorts before its entries: remove in reverse order.
            for inner in below.iter().rev() {
                let (dir, name) = split(inner);
                let fd = self.root.dir(dir).on("open", self.root.show(dir))?;
                let inner_is_dir = self.upper.remove(inner).is_some_and(|u| u.kind == Kind::Dir);
                self.times.remove(inner);
                let flags = if inner_is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                Place { dir: &fd, name }.unlink(flags).on("remove", self.root.show(inner))?;
            }
            self.times.remove(path);
        }
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.place(path).unlink(flags).on("remove", show)
    }

    /// Prepares `path` for an entry that is not a directory.
    fn replace(&mut self, path: &[u8], size: u64) -> Result<()> {
        self.check_limits(path, size)?;
        if path.is_empty() {
            return Err(refuse(path, "only a directory can be the root"));
        }
        if self.keep_directories && self.kind(path) == Some(Kind::Dir) {
            return Err(refuse(path, "it is a directory, which a file cannot replace"));
        }
        self.enter(split(path).0)?;
        self.clear(path)
    }

    /// Completes entries of a source with limited metadata: a file or link with the same content as the one below
    /// keeps its extended attributes and, if its time has whole seconds only, its time; a directory keeps its
    /// attributes.
    pub fn keep_from_below(&mut self) -> Result<()> {
        let view = self.view.clone();
        let paths: Vec<Vec<u8>> = self.upper.keys().filter(|p| !p.is_empty()).cloned().collect();
        for path in paths {
            cancel::check()?;
            let Some(kind) = self.upper.get(&path).map(|u| u.kind) else { continue };
            let Some(number) = self.below(&path) else { continue };
            let Some(entry) = view.entry(number).filter(|e| e.kind == kind) else { continue };
            let show = self.root.show(&path);
            let (dir, name) = split(&path);
            let fd = self.root.dir(dir).on("open", self.root.show(dir))?;
            let place = Place { dir: &fd, name };
            let stat = place.stat().on("read the metadata of", &show)?;
            let same = match kind {
                Kind::Dir => true,
                Kind::Symlink => self.target(&path) == entry.target,
                Kind::File if stat.st_size.cast_unsigned() == entry.size => {
                    let ours = self.root.file(&path).on("open", &show)?;
                    let below = view.open(number).on("open below", &show)?;
                    holes::same(&ours, &below, entry.size).on("compare", &show)?
                }
                _ => false,
            };
            if !same {
                continue;
            }
            let ours = place.xattr_names().on("read the extended attributes of", &show)?;
            for (name, value) in self.lower_xattrs(number)? {
                if !ours.contains(&name) {
                    place.set_xattr(&name, &value).on("set an extended attribute of", &show)?;
                }
            }
            if kind != Kind::Dir && stat.st_mtime_nsec == 0 && stat.st_mtime == entry.mtime.sec {
                place.set_mtime(entry.mtime).on("set the time of", &show)?;
            }
        }
        Ok(())
    }

    /// Makes the layer, durable and in the store, unless the tree has not changed (files with the same content,
    /// metadata and time count as unchanged).
    ///
    /// The caller must keep garbage collection away until something refers to the layer.
    pub fn finish(self) -> Result<Composed> {
        self.finish_with(&SaveRules::exact())
    }

    /// Like [`Composer::finish`], without the entries that `rules` leave out.
    pub fn finish_with(self, rules: &SaveRules) -> Result<Composed> {
        for (path, list) in self.inherited.iter().filter(|(path, _)| self.times.contains_key(*path)) {
            let (dir, name) = split(path);
            let what = "set the access list of";
            let fd = self.root.dir(dir).on(what, self.root.show(path))?;
            Place { dir: &fd, name }.set_xattr(attributes::INHERITED, list).on(what, self.root.show(path))?;
        }
        for (path, mtime) in &self.times {
            let (dir, name) = split(path);
            let what = "set the time of";
            let fd = self.root.dir(dir).on(what, self.root.show(path))?;
            Place { dir: &fd, name }.set_mtime(*mtime).on(what, self.root.show(path))?;
        }
        let layer_dir = self.temporary.path();
        match self.store.prepare_commit(layer_dir, &self.view, rules)? {
            Prepared::Unchanged { .. } => Ok(Composed::Unchanged),
            Prepared::Layer { info, .. } => {
                // A cancelled layer must not be stored.
                cancel::check()?;
                self.store.adopt_layer(layer_dir, &info.diff_id)?;
                Ok(Composed::Layer(info))
            }
        }
    }
}

fn metadata(place: &Place, meta: &Meta, kind: Kind, skipped: &mut Skipped) -> io::Result<()> {
    let mode = (kind != Kind::Symlink).then_some(meta.mode);
    let (uid, gid, mtime) = (meta.uid, meta.gid, meta.mtime);
    Metadata { uid, gid, mode, mtime, xattrs: &meta.xattrs }.apply(place, skipped)
}
