//! `/persist`: a directory of the server's disk, for one node.
//!
//! Files are opened by the kernel's file handles, which the node got from us with a MAC: they survive
//! renames, restarts and upgrades. Names are one component and are never followed. Operations on names
//! run as the caller (uid, gid and groups of the thread), so that new files get their owner and the
//! kernel checks the permissions; reading and writing check the mode here, because a file that was
//! opened once must stay usable after its mode has changed.
//!
//! **Durability** (RFC 1813, sections 3.3.7 and 4.8). UNSTABLE is a write into the page cache of the
//! kernel, which survives our death; DATA_SYNC and FILE_SYNC are synchronous writes; COMMIT is
//! `fdatasync`. Calls on names are answered after `fsync` of the directory. The write verifier is a hash
//! of the kernel's boot id, the file system and an *epoch*, a number on the disk that rises when a
//! sync reports lost data, before that error is answered: clients then send again what was not committed. A
//! COMMIT that meets such an error is answered with the new verifier, so that the client, which still has the
//! data, writes it again; if the next one fails too, the client gets the error.
//! A file with uncommitted data stays open, so that the kernel reports its errors here.
//!
//! **Retries.** See [`super::ring`] and [`change`].
//!
//! Limits: [`MAX_OPEN_FILES`] files kept open; an error of the disk that the kernel meets between our death
//! and the next opening of that file, after it has evicted the inode, is not seen. The directories should
//! lie on a mount with `nodev,nosuid`: nodes make device nodes and set-uid files there.

mod change;
mod files;
mod sweep;

use super::ring::{Intent, Ring};
use super::{Error, kernel, status};
use files::OpenFiles;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, OFlags, Stat, StatVfs};
use std::collections::HashMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
pub use sweep::Swept;
use walt_nfs::vfs::Result;
use walt_nfs::{
    Attr, Before, Context, DirEntry, FileType, Found, FsStat, KernelHandle, Listed, Object, Status, Time,
    Wcc, access,
};
use walt_sys::creds::ActAs;

/// Most files of all exports that are kept open for reading and writing.
pub const MAX_OPEN_FILES: usize = 256;
/// Most exports kept open. Each costs two descriptors and some kilobytes.
const MAX_EXPORTS: usize = 512;
/// Bytes of one read of a directory.
const DIRECTORY_BUFFER: usize = 32 << 10;

/// What an answered call on names or attributes has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: as NFS promises.
    Full,
    /// Our death only. Faster on slow disks.
    Process,
}

/// One directory, open.
pub struct Export {
    id: u64,
    path: PathBuf,
    dir: File,
    root: KernelHandle,
    root_ino: u64,
    /// What its client has done.
    pub(super) ring: Ring,
}

impl Export {
    fn object(&self, file: KernelHandle) -> Object {
        Object::Persist { export: self.id, file }
    }

    /// Opens a file without reading it. Files without a name are gone, also while we have them open.
    fn path(&self, file: &KernelHandle) -> Result<(File, Stat)> {
        let fd = kernel::open(self.dir.as_fd(), file, OFlags::PATH | OFlags::NOFOLLOW)?;
        let stat = rustix::fs::fstat(&fd).map_err(errno)?;
        if stat.st_nlink == 0 { Err(Status::Stale) } else { Ok((fd, stat)) }
    }

    fn directory(&self, file: &KernelHandle) -> Result<(File, Stat)> {
        // Not opened for reading before it is known to be one: opening a device or a pipe has effects.
        let (_, stat) = self.path(file)?;
        if kind(&stat) != FileType::Directory {
            return Err(Status::NotDir);
        }
        Ok((kernel::open(self.dir.as_fd(), file, OFlags::RDONLY | OFlags::DIRECTORY)?, stat))
    }

    fn attr(&self, stat: &Stat) -> Attr {
        let time = |sec: i64, nsec: u64| Time::new(sec, nsec as u32);
        Attr {
            kind: kind(stat),
            mode: stat.st_mode & 0o7777,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            used: stat.st_blocks as u64 * 512,
            rdev: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            // Not st_dev, which may be another after a reboot of the server.
            fsid: self.id,
            fileid: stat.st_ino,
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    fn wcc(&self, before: &Stat, after: impl AsFd) -> Wcc {
        let after = rustix::fs::fstat(after).ok();
        Wcc { before: Some(Before::from(&self.attr(before))), after: after.map(|s| self.attr(&s)) }
    }

    /// Starts a call that must not run twice. `Some` if it was cut short when it ran before.
    fn begin(&self, ctx: &Context, intent: Intent) -> Result<Option<Intent>> {
        self.ring.begin(&ctx.key, intent).map_err(|error| {
            tracing::error!(export = self.id, %error, "cannot write to the ring of an export");
            status(&error)
        })
    }

    /// As [`Self::begin`], for a call that makes room: it has to run on a full disk, too.
    fn begin_to_remove(&self, ctx: &Context, intent: Intent) -> Result<Option<Intent>> {
        match self.begin(ctx, intent) {
            Err(Status::NoSpc | Status::DQuot) => Ok(None),
            other => other,
        }
    }
}

fn errno(e: rustix::io::Errno) -> Status {
    status(&e.into())
}

fn kind(stat: &Stat) -> FileType {
    use rustix::fs::FileType as T;
    match T::from_raw_mode(stat.st_mode) {
        T::Directory => FileType::Directory,
        T::Symlink => FileType::Symlink,
        T::BlockDevice => FileType::Block,
        T::CharacterDevice => FileType::Char,
        T::Fifo => FileType::Fifo,
        T::Socket => FileType::Socket,
        T::RegularFile | T::Unknown => FileType::Regular,
    }
}

/// Lets this thread act as the caller until the guard goes.
fn act(ctx: &Context) -> Result<Option<ActAs>> {
    if (ctx.uid, ctx.gid) == (0, 0) {
        return Ok(None);
    }
    ActAs::new(ctx.uid, ctx.gid, ctx.groups.as_slice()).map(Some).map_err(|e| status(&e))
}

fn allowed(ctx: &Context, attr: &Attr) -> u32 {
    attr.allowed(ctx.uid, ctx.gid, ctx.groups.as_slice())
}

/// The number of syncs that have failed, on the disk.
struct Epoch {
    file: File,
    number: u64,
}

impl Epoch {
    /// Digits and a line feed: always as long, so that a full disk has room for it, and within one sector.
    const LEN: usize = 21;

    fn open(path: &Path) -> std::result::Result<Self, Error> {
        let failed = |what: &str| Error::io(format!("{what} {}", path.display()));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "0".to_owned(),
            Err(e) => return Err(failed("read")(e)),
        };
        let number = text.trim().parse().map_err(|_| Error::Damaged(path.to_owned()))?;
        if text.len() != Self::LEN {
            super::replace(path, &Self::text(number)).map_err(failed("write"))?;
        }
        let file = File::options().write(true).open(path).map_err(failed("open"))?;
        Ok(Self { file, number })
    }

    fn text(number: u64) -> Vec<u8> {
        format!("{number:0width$}\n", width = Self::LEN - 1).into_bytes()
    }

    fn raise(&mut self) -> std::io::Result<()> {
        self.number += 1;
        self.file.write_all_at(&Self::text(self.number), 0)?;
        self.file.sync_data()
    }
}

/// The back end of all exports.
pub struct Persist {
    dir: PathBuf,
    durability: Durability,
    sync_data: fn(&File) -> std::io::Result<()>,
    exports: Mutex<HashMap<u64, Arc<Export>>>,
    files: OpenFiles,
    epoch: Mutex<Epoch>,
    verifier: AtomicU64,
}

impl Persist {
    /// `dir` holds the epoch and the rings; `sync_data` is [`super::Config::sync_data`].
    ///
    /// # Errors
    /// A file of `dir` cannot be read or written.
    pub fn new(
        dir: &Path,
        durability: Durability,
        sync_data: fn(&File) -> std::io::Result<()>,
    ) -> std::result::Result<Self, Error> {
        super::make_dir(dir)?;
        let epoch = Epoch::open(&dir.join("epoch"))?;
        let present = epoch.number;
        let new = Self {
            dir: dir.to_owned(),
            durability,
            sync_data,
            exports: Mutex::default(),
            files: OpenFiles::new(MAX_OPEN_FILES),
            epoch: Mutex::new(epoch),
            verifier: AtomicU64::new(0),
        };
        new.set_verifier(present)?;
        Ok(new)
    }

    fn set_verifier(&self, epoch: u64) -> std::result::Result<(), Error> {
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read(BOOT_ID).map_err(Error::io(format!("read {BOOT_ID}")))?;
        let fs = rustix::fs::statvfs(&self.dir)
            .map_err(|e| Error::io(format!("look at the file system of {}", self.dir.display()))(e.into()))?;
        let mut hash = blake3::Hasher::new();
        hash.update(&boot).update(&fs.f_fsid.to_be_bytes()).update(&epoch.to_be_bytes());
        let mut first = [0; 8];
        hash.finalize_xof().fill(&mut first);
        self.verifier.store(u64::from_be_bytes(first), Ordering::SeqCst);
        Ok(())
    }

    /// The verifier of WRITE and COMMIT.
    pub fn verifier(&self) -> [u8; 8] {
        self.verifier.load(Ordering::SeqCst).to_be_bytes()
    }

    /// The answer for a failed sync: data may be lost that was promised to be kept until COMMIT.
    fn lost(&self, error: &std::io::Error) -> Status {
        let mut epoch = self.epoch.lock();
        let raised = epoch.raise();
        tracing::error!(%error, epoch = epoch.number, "a sync failed: clients will send uncommitted data again");
        if let Err(error) = raised {
            // The new verifier holds at least as long as this process.
            tracing::error!(dir = %self.dir.display(), %error, "cannot write the epoch of lost writes");
        }
        if let Err(error) = self.set_verifier(epoch.number) {
            tracing::error!(%error, "cannot compute the write verifier");
            self.verifier.fetch_add(1, Ordering::SeqCst);
        }
        status(error)
    }

    /// Makes changes of names in a directory durable.
    fn sync(&self, file: &File) -> Result<()> {
        match self.durability {
            Durability::Full => file.sync_all().map_err(|e| self.lost(&e)),
            Durability::Process => Ok(()),
        }
    }

    /// The export, opened once.
    pub fn export(&self, id: u64, path: &Path) -> Result<Arc<Export>> {
        let mut exports = self.exports.lock();
        if let Some(x) = exports.get(&id).filter(|x| x.path == path) {
            return Ok(x.clone());
        }
        let x = self.open(id, path).map_err(|error| {
            tracing::error!(export = id, path = %path.display(), %error, "cannot open an export");
            // The directory is gone: so is all that is in it.
            if status(&error) == Status::NoEnt { Status::Stale } else { status(&error) }
        })?;
        let x = Arc::new(x);
        if exports.len() >= MAX_EXPORTS {
            // Those in use are kept by the calls that use them, and are opened again by the next ones.
            exports.clear();
        }
        exports.insert(id, x.clone());
        Ok(x)
    }

    fn open(&self, id: u64, path: &Path) -> std::io::Result<Export> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
        let root = kernel::of(&dir).map_err(std::io::Error::other)?;
        let root_ino = rustix::fs::fstat(&dir)?.st_ino;
        let ring = Ring::open(&self.dir.join(format!("{id:016x}.ring")))?;
        Ok(Export { id, path: path.to_owned(), dir, root, root_ino, ring })
    }

    /// The root of an export, for MNT.
    pub fn root(&self, id: u64, path: &Path) -> Result<Object> {
        let x = self.export(id, path)?;
        Ok(x.object(x.root))
    }

    /// GETATTR.
    pub fn getattr(&self, x: &Export, file: &KernelHandle) -> Result<Attr> {
        x.path(file).map(|(_, stat)| x.attr(&stat))
    }

    /// LOOKUP. `..` of the export's root is the root.
    pub fn lookup(&self, ctx: &Context, x: &Export, dir: &KernelHandle, name: &[u8]) -> Result<Found> {
        let (fd, stat) = x.path(dir)?;
        if kind(&stat) != FileType::Directory {
            return Err(Status::NotDir);
        }
        let parent = Some(x.attr(&stat));
        if name == b"." || (name == b".." && stat.st_ino == x.root_ino) {
            return Ok(Found { object: x.object(*dir), attr: x.attr(&stat), dir: parent });
        }
        let found = {
            let _as = act(ctx)?;
            openat(&fd, name, OFlags::PATH)?
        };
        let stat = rustix::fs::fstat(&found).map_err(errno)?;
        Ok(Found { object: x.object(kernel::of(&found)?), attr: x.attr(&stat), dir: parent })
    }

    /// READLINK.
    pub fn readlink(&self, x: &Export, file: &KernelHandle) -> Result<(Vec<u8>, Attr)> {
        let (fd, stat) = x.path(file)?;
        if kind(&stat) != FileType::Symlink {
            return Err(Status::Inval);
        }
        let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(errno)?;
        Ok((target.into_bytes(), x.attr(&stat)))
    }

    /// READDIR: cookies are the file system's own.
    pub fn readdir(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<Listed> {
        let (fd, stat) = x.directory(dir)?;
        let attr = x.attr(&stat);
        let bits = allowed(ctx, &attr);
        if bits & access::READ == 0 {
            return Err(Status::Access);
        }
        let plus = plus && bits & access::LOOKUP != 0;
        let is_root = stat.st_ino == x.root_ino;
        if cookie != 0 {
            if cookie > i64::MAX as u64 {
                return Err(Status::BadCookie);
            }
            rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(cookie)).map_err(errno)?;
        }
        let mut buffer = vec![MaybeUninit::uninit(); DIRECTORY_BUFFER];
        let mut entries = rustix::fs::RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            let dots = matches!(name, b"." | b"..");
            let fileid = if is_root && name == b".." { x.root_ino } else { entry.ino() };
            let plus = if plus && !dots { self.plus(x, &fd, name) } else { None };
            if !sink(&DirEntry { name, fileid, cookie: entry.next_entry_cookie(), plus }) {
                return Ok(Listed { dir: Some(attr), end: false });
            }
        }
        Ok(Listed { dir: Some(attr), end: true })
    }

    /// Object and attributes of a listed name; `None` if it has just gone.
    fn plus(&self, x: &Export, dir: &File, name: &[u8]) -> Option<(Object, Attr)> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((x.object(kernel::at(dir, name).ok()?), x.attr(&stat)))
    }

    /// FSSTAT.
    pub fn fsstat(&self, x: &Export) -> Result<FsStat> {
        let s: StatVfs = rustix::fs::fstatvfs(&x.dir).map_err(errno)?;
        Ok(FsStat {
            bytes: [s.f_blocks, s.f_bfree, s.f_bavail].map(|n| n.saturating_mul(s.f_frsize)),
            files: [s.f_files, s.f_ffree, s.f_favail],
            invariant: 0,
        })
    }
}

/// Opens a name of a directory; a symbolic link itself with `PATH`, never what it points to.
fn openat(dir: &File, name: &[u8], flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()).map(File::from).map_err(errno)
}

#[cfg(test)]
mod tests;
