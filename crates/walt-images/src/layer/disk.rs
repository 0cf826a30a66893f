//! Files below a layer's root, reached without ever leaving it.
//!
//! Every path is resolved by openat2(2) with `RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS`: a symbolic link of a hostile
//! layer leads inside the layer or nowhere. Extended attributes and times of links need a path, and get
//! `/proc/self/fd/<directory>/<name>` with the calls that do not follow the last component.

use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{self, AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use walt_tar::paths::as_path;
use walt_tar::{Time, local::MAX_XATTR};

/// Marks a directory that hides the one below it (value `y`).
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Extended attributes: names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An open directory that is the root of a layer.
pub(crate) struct Root {
    pub fd: OwnedFd,
    pub path: PathBuf,
}

/// A directory below a root, and a name in it.
pub(crate) struct Place<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a [u8],
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: fs::open(path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// Opens what `path` names, symbolic links resolved inside the root; `empty` is the root.
    pub fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.at_with(path, flags, ResolveFlags::empty())
    }

    /// [`Root::at`] with more rules of resolution.
    pub fn at_with(&self, path: &[u8], flags: OFlags, rules: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | rules;
        fs::openat2(&self.fd, as_path(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Opens the directory `path` as a reference.
    pub fn dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.at(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens the regular file `path` for reading. A fifo or device there does not block and is an error.
    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        let fd = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY)?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file)
    }

    /// The path in the image, for messages. The path in the store would not help a user.
    pub fn show(&self, path: &[u8]) -> PathBuf {
        Path::new("/").join(as_path(path))
    }
}

impl Place<'_> {
    fn proc_path(&self) -> PathBuf {
        let fd = self.dir.as_raw_fd();
        let name = if self.name.is_empty() { b"." } else { self.name };
        PathBuf::from(format!("/proc/self/fd/{fd}")).join(as_path(name))
    }

    fn file_name(&self) -> &Path {
        as_path(if self.name.is_empty() { b"." } else { self.name })
    }

    /// Names of the extended attributes, as the kernel lists them.
    pub fn xattr_names(&self) -> io::Result<Vec<Vec<u8>>> {
        let path = self.proc_path();
        let mut small = [0; 512];
        let list = match fs::llistxattr(&path, &mut small) {
            Ok(n) => small[..n].to_vec(),
            Err(Errno::RANGE) => {
                let mut large = vec![0; MAX_XATTR];
                let n = fs::llistxattr(&path, &mut large)?;
                large.truncate(n);
                large
            }
            Err(Errno::NOTSUP) => Vec::new(),
            Err(e) => return Err(e.into()),
        };
        Ok(list.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
    }

    pub fn xattr(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let path = self.proc_path();
        let mut small = [0; 512];
        match fs::lgetxattr(&path, OsStr::from_bytes(name), &mut small) {
            Ok(n) => Ok(Some(small[..n].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(Errno::RANGE) => {
                let mut large = vec![0; MAX_XATTR];
                let n = fs::lgetxattr(&path, OsStr::from_bytes(name), &mut large)?;
                large.truncate(n);
                Ok(Some(large))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// All extended attributes, sorted by name.
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        let mut all = Vec::new();
        for name in self.xattr_names()? {
            if let Some(value) = self.xattr(&name)? {
                all.push((name, value));
            }
        }
        all.sort();
        Ok(all)
    }

    pub fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(fs::lsetxattr(self.proc_path(), OsStr::from_bytes(name), value, XattrFlags::empty())?)
    }

    pub fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        match fs::lremovexattr(self.proc_path(), OsStr::from_bytes(name)) {
            Err(Errno::NODATA) => Ok(()),
            other => Ok(other?),
        }
    }

    pub fn chown(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(fs::chownat(self.dir, self.file_name(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the mode. The name must not be a symbolic link.
    pub fn chmod(&self, mode: u32) -> io::Result<()> {
        Ok(fs::chmodat(self.dir, self.file_name(), Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    pub fn set_mtime(&self, mtime: Time) -> io::Result<()> {
        Ok(fs::utimensat(self.dir, self.file_name(), &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub fn stat(&self) -> Result<fs::Stat, Errno> {
        fs::statat(self.dir, self.file_name(), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub fn unlink(&self, flags: AtFlags) -> Result<(), Errno> {
        fs::unlinkat(self.dir, self.file_name(), flags)
    }

    /// Makes a device, fifo or (0:0) whiteout.
    pub fn mknod(&self, kind: fs::FileType, rdev: (u32, u32)) -> Result<(), Errno> {
        fs::mknodat(self.dir, self.file_name(), kind, Mode::from_raw_mode(0o600), fs::makedev(rdev.0, rdev.1))
    }
}

/// Access and modification time: a layer has only the latter.
pub(crate) fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.sec, tv_nsec: i64::from(mtime.nsec) };
    Timestamps { last_access: time, last_modification: time }
}

/// Whether this is a whiteout, a character device 0:0.
pub(crate) fn is_whiteout(stat: &fs::Stat) -> bool {
    fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::CharacterDevice && stat.st_rdev == 0
}

/// A disk with less free space counts as full, in bytes.
const MIN_ROOM: u64 = 1 << 20;

/// Whether the file system of `fd` has space for more files.
pub(crate) fn has_room(fd: impl AsFd) -> bool {
    fs::fstatvfs(fd).is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) > MIN_ROOM && s.f_favail > 0)
}

/// Makes everything of the file system of `fd` durable.
pub(crate) fn sync_filesystem(fd: impl AsFd) -> io::Result<()> {
    Ok(fs::syncfs(fd)?)
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
