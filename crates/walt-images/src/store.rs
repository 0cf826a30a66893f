//! The store's directories, and how layers get into it.

use crate::{
    attributed::Attributed,
    error::{Context, Error, Result},
    layer::{
        attributes::Skipped,
        disk::{self, Place, Root},
        implied::{self, DirMeta},
        import,
        scan::{Attributes, Kind, scan},
        skeleton::{LayerInfo, SkeletonReader},
        write::write_layer,
    },
    view::{View, ViewCache},
};
use parking_lot::Mutex;
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use walt_tar::paths::{as_path, split};
use walt_types::DiffId;

/// Most layers of an image: the platform layer and a session's upper directory come on top, and lookups of absent
/// names grow with the count.
pub const MAX_LAYERS: usize = 125;
/// Most layers of a foreign image, as in docker and in older versions of WalT. One with more than [`MAX_LAYERS`] is
/// squashed to one layer.
pub const MAX_FOREIGN_LAYERS: usize = 128;
/// Modification time of everything in a layer made from memory (2020-01-01): the same input gives the same digest.
const BUILT_MTIME: crate::Time = crate::Time { sec: 1_577_836_800, nsec: 0 };

/// The image store of one state directory. Safe to share between threads.
#[derive(Debug)]
pub struct Store {
    images: PathBuf,
    sessions: PathBuf,
    pub(crate) views: Mutex<ViewCache>,
    temporary: AtomicU64,
    /// Names below `images/tmp` that are in use.
    making: Arc<Mutex<BTreeSet<OsString>>>,
}

/// An entry of a layer made from memory.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Path below the root, without leading slash.
    pub path: Vec<u8>,
    /// Permission bits (ignored for links and whiteouts).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and content.
    pub kind: NewKind,
}

/// Type and content of a [`NewEntry`].
#[derive(Debug, Clone)]
pub enum NewKind {
    /// Regular file with these bytes.
    File(Vec<u8>),
    /// Regular file with an ext4 image of these files ([`Attributed::write`]).
    Attributed(Arc<Attributed>),
    /// Symbolic link with this target.
    Symlink(Vec<u8>),
    /// Directory.
    Dir,
    /// Hides the entry of the layers below.
    Whiteout,
}

/// A file or directory below `images/tmp`. Dropping this removes it, unless it was renamed away.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    making: Arc<Mutex<BTreeSet<OsString>>>,
}

impl Temporary {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If this fails, it is removed at the next start.
        let _ = fs::remove_dir_all(&self.path).or_else(|_| fs::remove_file(&self.path));
        if let Some(name) = self.path.file_name() {
            self.making.lock().remove(name);
        }
    }
}

/// An unpacked layer that is not in the store yet. Dropping it removes its files.
#[derive(Debug)]
pub struct Unpacked {
    files: Temporary,
    info: LayerInfo,
    skipped: Skipped,
}

impl Unpacked {
    /// Its digest, size and number of entries.
    pub fn info(&self) -> &LayerInfo {
        &self.info
    }

    /// Attributes that could not be set on its files.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }
}

impl Store {
    /// Opens the store below `state_dir`. Missing directories are made (mode 0700); unfinished layers of the previous
    /// server are removed.
    ///
    /// Fails if sessions and layers are not on one file system, or if that cannot hold overlay layers (devices and
    /// `trusted.*` attributes).
    pub fn open(state_dir: &Path) -> Result<Self> {
        let images = state_dir.join("images");
        let sessions = state_dir.join("sessions");
        let mut dirs = DirBuilder::new();
        dirs.recursive(true).mode(0o700);
        dirs.create(state_dir).on("create", state_dir)?;
        for name in ["layers", "configs", "blobs", "views", "node-tars", "tmp"] {
            let path = images.join(name);
            dirs.create(&path).on("create", &path)?;
        }
        dirs.create(&sessions).on("create", &sessions)?;
        for dir in [state_dir, &images, &sessions] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).on("set the mode of", dir)?;
        }
        let store = Self {
            images,
            sessions,
            views: Mutex::new(ViewCache::default()),
            temporary: AtomicU64::new(0),
            making: Arc::default(),
        };
        store.empty_tmp()?;
        store.probe().map_err(|why| Error::State { path: state_dir.to_owned(), why })?;
        Ok(store)
    }

    /// Opens the store below `state_dir` for reading, while a server uses it: nothing is created, emptied or tested.
    pub fn open_to_read(state_dir: &Path) -> Self {
        Self {
            images: state_dir.join("images"),
            sessions: state_dir.join("sessions"),
            views: Mutex::new(ViewCache::default()),
            temporary: AtomicU64::new(0),
            making: Arc::default(),
        }
    }

    fn empty_tmp(&self) -> Result<()> {
        let tmp = self.images.join("tmp");
        for entry in fs::read_dir(&tmp).on("list", &tmp)? {
            let path = entry.on("list", &tmp)?.path();
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).on("remove", &path)?;
        }
        Ok(())
    }

    /// Tests what layers need: a rename from sessions to layers, a whiteout, a `trusted.` attribute. On a full disk
    /// this is skipped, so that existing images can still be served.
    fn probe(&self) -> std::result::Result<(), String> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let session = self.guard(self.sessions.join(".probe"));
        let layer = self.guard(self.images.join("tmp/probe"));
        let (session, layer) = (session.path(), layer.path());
        let _ = fs::remove_dir_all(session);
        match fs::create_dir(session) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), StorageFull | QuotaExceeded) => return Ok(()),
            Err(e) => return Err(format!("cannot make a directory in it: {e}")),
        }
        fs::rename(session, layer).map_err(|e| {
            format!(
                "'sessions' and 'images' must be on the same file system; a rename between them failed: {e}"
            )
        })?;
        let dir = Root::open(layer).map_err(|e| format!("cannot open a new directory in it: {e}"))?;
        let whiteout = Place { dir: &dir.fd, name: b"whiteout" };
        whiteout.mknod(FileType::CharacterDevice, (0, 0)).map_err(|e| {
            format!("its file system or this process cannot make device files ({e}); run as root, on ext4, xfs or btrfs")
        })?;
        let root = Place { dir: &dir.fd, name: b"" };
        root.set_xattr(disk::OPAQUE.as_bytes(), b"y").map_err(|e| {
            format!("its file system has no 'trusted' extended attributes ({e}); use ext4, xfs or btrfs")
        })
    }

    /// Directory of the sessions.
    pub fn sessions_dir(&self) -> &Path {
        &self.sessions
    }

    pub(crate) fn images_dir(&self) -> &Path {
        &self.images
    }

    /// Directory of a layer, with its `fs`, `skeleton` and `implied`.
    pub(crate) fn layer_dir(&self, layer: &DiffId) -> PathBuf {
        self.images.join("layers").join(layer.to_string())
    }

    /// The layer as a lower directory for overlayfs. The path exists if the layer does.
    pub fn layer_fs(&self, layer: &DiffId) -> PathBuf {
        self.layer_dir(layer).join("fs")
    }

    /// Is the layer in the store?
    pub fn has_layer(&self, layer: &DiffId) -> bool {
        self.layer_dir(layer).is_dir()
    }

    /// Size and number of entries of a stored layer.
    pub fn layer_info(&self, layer: &DiffId) -> Result<LayerInfo> {
        Ok(self.skeleton(layer)?.info())
    }

    pub(crate) fn skeleton(&self, layer: &DiffId) -> Result<SkeletonReader> {
        if !self.has_layer(layer) {
            return Err(Error::Missing { kind: "layer", id: layer.to_string() });
        }
        SkeletonReader::open(&self.layer_dir(layer).join("skeleton"))
    }

    /// A new name below `images/tmp`. What the caller creates there is removed when the result is dropped.
    pub fn temporary_name(&self) -> Temporary {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.guard(self.images.join("tmp").join(format!("{}-{number}", std::process::id())))
    }

    fn guard(&self, path: PathBuf) -> Temporary {
        if let Some(name) = path.file_name() {
            self.making.lock().insert(name.to_owned());
        }
        Temporary { path, making: self.making.clone() }
    }

    /// Whether this name below `images/tmp` is in use.
    pub(crate) fn is_making(&self, name: &OsStr) -> bool {
        self.making.lock().contains(name)
    }

    /// A new directory below `images/tmp`.
    pub(crate) fn temporary(&self) -> Result<Temporary> {
        let temporary = self.temporary_name();
        fs::create_dir(temporary.path()).on("create", temporary.path())?;
        Ok(temporary)
    }

    /// Writes a file of the store. When this returns it is complete and durable; on an error it does not exist.
    pub(crate) fn write_file(&self, what: &'static str, path: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary_name();
        let mut file = File::create(temporary.path()).on(what, path)?;
        file.write_all(bytes).on(what, path)?;
        file.sync_all().on(what, path)?;
        fs::rename(temporary.path(), path).on(what, path)?;
        match path.parent() {
            Some(dir) => disk::sync_dir(dir).on(what, path),
            None => Ok(()),
        }
    }

    /// Stores a layer from its tar: a root file system, or an OCI layer with whiteouts; plain, gzip, bzip2, xz or
    /// zstd (seen from its first bytes). The layer is durable when this returns. An existing layer is left unchanged.
    pub fn import_tar(&self, tar: impl Read + Send) -> Result<LayerInfo> {
        self.keep_layer(self.unpack_tar(tar)?)
    }

    /// Unpacks a tar as in [`Store::import_tar`]. [`Store::keep_layer`] puts the layer into the store.
    pub fn unpack_tar(&self, tar: impl Read + Send) -> Result<Unpacked> {
        let files = self.temporary()?;
        let (info, skipped) = import::import(tar, files.path())?;
        Ok(Unpacked { files, info, skipped })
    }

    /// Unpacks the tar of the layer `expected`, and refuses any other. [`Store::keep_layers`] puts the layer into the
    /// store.
    pub fn unpack_layer(&self, tar: impl Read + Send, expected: &DiffId) -> Result<Unpacked> {
        let unpacked = self.unpack_tar(tar)?;
        if unpacked.info.diff_id != *expected {
            return Err(Error::Layer(format!(
                "its digest is {} instead of {}, as the image's configuration says",
                unpacked.info.diff_id.oci(),
                expected.oci()
            )));
        }
        Ok(unpacked)
    }

    /// Puts an unpacked layer into the store that has no layer below it, or whose implied directories shall keep
    /// their default metadata. It is durable when this returns.
    pub fn keep_layer(&self, unpacked: Unpacked) -> Result<LayerInfo> {
        let info = unpacked.info;
        self.keep_layers(vec![unpacked], &[info.diff_id])?;
        Ok(info)
    }

    /// Puts unpacked layers of one image into the store. `layers` are all layers of the image, lowest first; those
    /// below an unpacked one must be unpacked or in the store. Implied directories get the metadata they have in the
    /// layers below. All layers are durable when this returns; the disk is synced once.
    ///
    /// # Errors
    /// A layer below is missing, or the disk fails; some of the layers may be in the store then.
    pub fn keep_layers(&self, mut unpacked: Vec<Unpacked>, layers: &[DiffId]) -> Result<()> {
        let place = |of: &DiffId| layers.iter().position(|l| l == of);
        unpacked.sort_by_key(|u| place(&u.info.diff_id));
        for layer in &unpacked {
            let lower = &layers[..place(&layer.info.diff_id).unwrap_or_default()];
            let dir = |l: &DiffId| match unpacked.iter().find(|u| u.info.diff_id == *l) {
                Some(new) => new.files.path().to_owned(),
                None => self.layer_dir(l),
            };
            implied::inherit_metadata(layer.files.path(), &lower.iter().map(dir).collect::<Vec<_>>())?;
        }
        self.make_durable()?;
        for layer in unpacked {
            self.adopt_layer(layer.files.path(), &layer.info.diff_id)?;
        }
        Ok(())
    }

    /// Makes a layer from memory, such as the platform layer. Parents that are not given get the metadata they have
    /// in `over`, else mode 0755 and owner root. If a parent is a symbolic link in `over` (`/bin` on Debian), the
    /// link is followed: a directory in its place would hide the target's contents. Entries may come in any order;
    /// the same entries over the same directories give the same digest. Two entries of one path are an error.
    pub fn build_layer(&self, entries: Vec<NewEntry>, over: Option<&View>) -> Result<LayerInfo> {
        let temporary = self.temporary()?;
        let fs_dir = temporary.path().join("fs");
        fs::create_dir(&fs_dir).on("create", &fs_dir)?;
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let mut all = BTreeMap::new();
        for entry in entries {
            let mut path = entry.path.clone();
            if path.split(|b| *b == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Err(Error::Layer(format!("'{path}' is not a path below the root")));
            }
            if let Some(view) = over {
                path = through_links(view, &path);
            }
            if all.insert(path, entry).is_some() {
                return Err(Error::Layer("a path is given twice".into()));
            }
        }
        let given: Vec<Vec<u8>> = all.keys().cloned().collect();
        let mut times = BTreeMap::new();
        for path in &given {
            let mut dir = split(path).0;
            while !dir.is_empty() && !all.contains_key(dir) {
                let meta = over.and_then(|view| dir_meta(view, dir));
                let meta = meta.unwrap_or(DirMeta { mode: 0o755, uid: 0, gid: 0, mtime: BUILT_MTIME });
                times.insert(dir.to_vec(), meta.mtime);
                let entry = NewEntry {
                    path: dir.to_vec(),
                    mode: meta.mode,
                    uid: meta.uid,
                    gid: meta.gid,
                    kind: NewKind::Dir,
                };
                all.insert(dir.to_vec(), entry);
                dir = split(dir).0;
            }
        }
        for (path, entry) in &all {
            create(&root, path, entry).on("create", root.show(path))?;
        }
        // Deepest first, since making an entry changes the time of its parent.
        for (path, entry) in all.iter().rev() {
            if !matches!(entry.kind, NewKind::Whiteout) {
                let (dir, name) = split(path);
                let fd = root.dir(dir).on("open", root.show(dir))?;
                let mtime = times.get(path).copied().unwrap_or(BUILT_MTIME);
                Place { dir: &fd, name }.set_mtime(mtime).on("set the time of", root.show(path))?;
            }
        }
        let nodes = scan(&root, Attributes::All)?;
        let info = write_layer(temporary.path(), &root, &nodes, false)?;
        self.make_durable()?;
        self.adopt_layer(temporary.path(), &info.diff_id)?;
        Ok(info)
    }

    /// Makes `layer_dir/fs` for a session over `lower`: its root directory gets the metadata of the root below, since
    /// overlayfs shows the metadata of the upper directory.
    pub fn prepare_upper(&self, layer_dir: &Path, lower: &View) -> Result<PathBuf> {
        let fs_dir = layer_dir.join("fs");
        DirBuilder::new().recursive(true).mode(0o700).create(layer_dir).on("create", layer_dir)?;
        fs::create_dir(&fs_dir).on("create", &fs_dir)?;
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let place = Place { dir: &root.fd, name: b"" };
        let what = "set the metadata of";
        if let Some(meta) = dir_meta(lower, b"") {
            place.chown(meta.uid, meta.gid).on(what, &fs_dir)?;
            place.chmod(meta.mode).on(what, &fs_dir)?;
            for (name, value) in
                lower.xattrs(lower.root()).on("read the attributes of the root below", &fs_dir)?
            {
                place.set_xattr(&name, &value).on(what, &fs_dir)?;
            }
            place.set_mtime(meta.mtime).on(what, &fs_dir)?;
        }
        Ok(fs_dir)
    }

    /// Makes everything written to the store so far durable.
    pub(crate) fn make_durable(&self) -> Result<()> {
        let dir = File::open(&self.images).on("open", &self.images)?;
        disk::sync_filesystem(&dir).on("write to disk", &self.images)
    }

    /// Moves a finished layer directory, whose files are durable, into the store, and makes the move durable. If the
    /// store has the layer already, the directory is removed. It may be called again after a crash: a missing
    /// directory is not an error if the store has the layer.
    pub fn adopt_layer(&self, layer_dir: &Path, layer: &DiffId) -> Result<()> {
        let target = self.layer_dir(layer);
        if !layer_dir.exists() {
            return match self.has_layer(layer) {
                true => self.sync_layers(),
                false => Err(Error::Missing { kind: "layer", id: layer.to_string() }),
            };
        }
        if self.has_layer(layer) {
            fs::remove_dir_all(layer_dir).on("remove", layer_dir)?;
            return self.sync_layers();
        }
        let skeleton = layer_dir.join("skeleton");
        let found = SkeletonReader::open(&skeleton)?.info().diff_id;
        if found != *layer {
            let why = format!("it is the skeleton of {found}, not of {layer}");
            return Err(Error::Damaged { path: skeleton, why });
        }
        match fs::rename(layer_dir, &target) {
            Ok(()) => {}
            // Another task has put the same layer there since we checked.
            Err(_) if self.has_layer(layer) => fs::remove_dir_all(layer_dir).on("remove", layer_dir)?,
            Err(e) => return Err(e).on("move the layer to", &target),
        }
        if let Some(parent) = layer_dir.parent() {
            disk::sync_dir(parent).on("write to disk", parent)?;
        }
        self.sync_layers()
    }

    fn sync_layers(&self) -> Result<()> {
        let layers = self.images.join("layers");
        disk::sync_dir(&layers).on("write to disk", &layers)
    }
}

/// Metadata of the directory that `view` has at `path`; links are not followed.
fn dir_meta(view: &View, path: &[u8]) -> Option<DirMeta> {
    let entry = view.entry(view.find(path)?)?;
    let meta = DirMeta { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime };
    (entry.kind == Kind::Dir).then_some(meta)
}

/// Replaces symbolic links among the parents of a path with their targets in `view`.
fn through_links(view: &View, path: &[u8]) -> Vec<u8> {
    let (dir, name) = split(path);
    if dir.is_empty() {
        return path.to_vec();
    }
    let mut real = match view.resolve(dir).filter(|n| view.entry(*n).is_some_and(|e| e.kind == Kind::Dir)) {
        Some(number) => view.path(number),
        None => through_links(view, dir),
    };
    if !real.is_empty() {
        real.push(b'/');
    }
    real.extend_from_slice(name);
    real
}

fn new_file(dir: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, as_path(name), flags, Mode::from_raw_mode(0o600))?.into())
}

fn create(root: &Root, path: &[u8], entry: &NewEntry) -> io::Result<()> {
    let (dir, name) = split(path);
    let dir = root.dir(dir)?;
    let place = Place { dir: &dir, name };
    match &entry.kind {
        NewKind::Whiteout => return Ok(place.mknod(FileType::CharacterDevice, (0, 0))?),
        NewKind::Symlink(target) => {
            rustix::fs::symlinkat(as_path(target), &dir, as_path(name))?;
            return place.chown(entry.uid, entry.gid);
        }
        NewKind::Dir => rustix::fs::mkdirat(&dir, as_path(name), Mode::from_raw_mode(0o700))?,
        NewKind::File(bytes) => new_file(&dir, name)?.write_all(bytes)?,
        NewKind::Attributed(files) => files.write(&new_file(&dir, name)?)?,
    }
    place.chown(entry.uid, entry.gid)?;
    place.chmod(entry.mode)
}
