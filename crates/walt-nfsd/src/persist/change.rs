//! Calls on `/persist` that must not run twice: attributes and names.
//!
//! A call that was cut short by our death (an intent without a result) is sent again by the client. What
//! happened is then read from the tree, which is sound because an export has one client that waits for
//! the answer:
//!
//! | call | it was done if |
//! |---|---|
//! | CREATE, MKDIR, SYMLINK, MKNOD | the name did not exist before and exists now, with our type |
//! | LINK | the name did not exist before and is our file now |
//! | REMOVE, RMDIR | the name is not that file any more |
//! | RENAME | the old name is not that file any more, the new one is |
//! | SETATTR | setting again is harmless; only its guard has to be left out |

use super::{Durability, Export, Intent, Persist, act, allowed, errno, kind, openat};
use crate::kernel;
use rustix::fs::{AtFlags, Mode, OFlags, RawMode, Stat, Timespec, Timestamps};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use walt_nfs::vfs::Result;
use walt_nfs::{
    Attr, Context, CreateHow, Created, FileType, KernelHandle, SetAttr, SetTime, Special, Status, Time, Wcc,
    access,
};

/// Mode of a new file when the client gives none.
const FILE_MODE: u32 = 0o600;
/// Mode of a new directory when the client gives none.
const DIRECTORY_MODE: u32 = 0o700;

/// Where a new name goes, and what is wanted there.
struct New<'a> {
    ctx: &'a Context,
    x: &'a Export,
    dir: &'a KernelHandle,
    name: &'a [u8],
    kind: FileType,
    mode: Option<u32>,
    set: SetAttr,
}

impl Persist {
    /// SETATTR.
    pub fn setattr(
        &self,
        ctx: &Context,
        x: &Export,
        file: &KernelHandle,
        set: &SetAttr,
        guard: Option<Time>,
    ) -> Result<Wcc> {
        let (fd, before) = x.path(file)?;
        if guard.is_some() {
            let retried = x.begin(ctx, Intent::default())?.is_some();
            if !retried && guard != Some(x.attr(&before).ctime) {
                return Err(Status::NotSync);
            }
        }
        self.set(ctx, x, file, &fd, &before, set)?;
        if self.durability == Durability::Full {
            match kind(&before) {
                FileType::Regular => self.sync(&self.file(x, file)?.0.file)?,
                FileType::Directory => self.sync(&x.directory(file)?.0)?,
                // Opening a device or a pipe to sync it has effects; the whole file system has none.
                _ => rustix::fs::syncfs(&x.dir).map_err(|e| self.lost(&e.into()))?,
            }
        }
        Ok(x.wcc(&before, &fd))
    }

    fn set(
        &self,
        ctx: &Context,
        x: &Export,
        file: &KernelHandle,
        fd: &File,
        before: &Stat,
        set: &SetAttr,
    ) -> Result<()> {
        if let Some(size) = set.size {
            let (open, attr) = self.file(x, file)?;
            if allowed(ctx, &attr) & access::MODIFY == 0 && ctx.uid != attr.uid {
                return Err(Status::Access);
            }
            if size > i64::MAX as u64 {
                return Err(Status::FBig);
            }
            let _as = act(ctx)?;
            rustix::fs::ftruncate(&open.file, size).map_err(errno)?;
        }
        // A descriptor opened with PATH cannot be changed itself; through /proc its file can.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let _as = act(ctx)?;
        if set.uid.is_some() || set.gid.is_some() {
            // The value means "no change" to the kernel and is nobody's identity.
            if set.uid == Some(u32::MAX) || set.gid == Some(u32::MAX) {
                return Err(Status::Inval);
            }
            let (uid, gid) = (set.uid.map(rustix::fs::Uid::from_raw), set.gid.map(rustix::fs::Gid::from_raw));
            rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)?;
        }
        // After the owner, because a change of owner clears set-uid bits.
        if let Some(mode) = set.mode
            && kind(before) != FileType::Symlink
        {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode as RawMode)).map_err(errno)?;
        }
        if (set.atime, set.mtime) != (SetTime::Keep, SetTime::Keep) {
            let times = Timestamps { last_access: time(set.atime), last_modification: time(set.mtime) };
            rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH).map_err(errno)?;
        }
        Ok(())
    }

    /// CREATE.
    pub fn create(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        name: &[u8],
        how: &CreateHow,
    ) -> Result<Created> {
        let set = match how {
            CreateHow::Unchecked(set) | CreateHow::Guarded(set) => *set,
            CreateHow::Exclusive(verifier) => stamped(verifier),
        };
        let existing = self.existing(ctx, x, dir, name)?;
        if let Some((handle, fd, stat)) = existing {
            match how {
                CreateHow::Unchecked(set) => {
                    // As O_CREAT on an existing file: nothing changes but, with O_TRUNC, the size.
                    if kind(&stat) == FileType::Regular {
                        let set = SetAttr { size: set.size, ..SetAttr::default() };
                        self.set(ctx, x, &handle, &fd, &stat, &set)?;
                        if set.size.is_some() {
                            self.sync(&self.file(x, &handle)?.0.file)?;
                        }
                    }
                    return self.created(x, dir, &fd, None);
                }
                CreateHow::Exclusive(verifier) if stamps(&x.attr(&stat)) == Some(*verifier) => {
                    return self.created(x, dir, &fd, None);
                }
                // `make` decides whether it was made by this call, before the server was killed.
                _ => {}
            }
        }
        let new = New { ctx, x, dir, name, kind: FileType::Regular, mode: set.mode, set };
        self.make(new, |dir| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, mode(set.mode.unwrap_or(FILE_MODE))).map(drop)
        })
    }

    /// MKDIR.
    pub fn mkdir(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        name: &[u8],
        set: &SetAttr,
    ) -> Result<Created> {
        let new = New { ctx, x, dir, name, kind: FileType::Directory, mode: set.mode, set: *set };
        self.make(new, |dir| rustix::fs::mkdirat(dir, name, mode(set.mode.unwrap_or(DIRECTORY_MODE))))
    }

    /// SYMLINK.
    pub fn symlink(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        name: &[u8],
        target: &[u8],
        set: &SetAttr,
    ) -> Result<Created> {
        // A link has no mode of its own on Linux.
        let set = SetAttr { mode: None, size: None, ..*set };
        let new = New { ctx, x, dir, name, kind: FileType::Symlink, mode: None, set };
        self.make(new, |dir| rustix::fs::symlinkat(target, dir, name))
    }

    /// MKNOD.
    pub fn mknod(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        name: &[u8],
        special: Special,
        set: &SetAttr,
    ) -> Result<Created> {
        use rustix::fs::FileType as T;
        let (kind, raw, device) = match special {
            Special::Char(major, minor) => {
                (FileType::Char, T::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Special::Block(major, minor) => {
                (FileType::Block, T::BlockDevice, rustix::fs::makedev(major, minor))
            }
            Special::Socket => (FileType::Socket, T::Socket, 0),
            Special::Fifo => (FileType::Fifo, T::Fifo, 0),
        };
        let set = SetAttr { size: None, ..*set };
        let new = New { ctx, x, dir, name, kind, mode: set.mode, set };
        self.make(new, |dir| rustix::fs::mknodat(dir, name, raw, mode(set.mode.unwrap_or(FILE_MODE)), device))
    }

    /// What a name is now, as the caller may know it.
    #[allow(clippy::type_complexity)] // a handle, its file and what was found about it
    fn existing(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        name: &[u8],
    ) -> Result<Option<(KernelHandle, File, Stat)>> {
        let (dir, _) = x.directory(dir)?;
        let opened = {
            let _as = act(ctx)?;
            openat(&dir, name, OFlags::PATH)
        };
        match opened {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(errno)?;
                Ok(Some((kernel::of(&fd)?, fd, stat)))
            }
            Err(Status::NoEnt) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a name that must not exist yet.
    fn make(
        &self,
        new: New<'_>,
        action: impl FnOnce(&File) -> std::result::Result<(), rustix::io::Errno>,
    ) -> Result<Created> {
        let New { ctx, x, dir, name, .. } = new;
        let (dir_fd, before) = x.directory(dir)?;
        let absent = !exists(&dir_fd, name);
        let unfinished = x.begin(ctx, Intent { inode: None, absent })?;
        let made = {
            let _as = act(ctx)?;
            action(&dir_fd)
        };
        match made {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) if unfinished.is_some_and(|i| i.absent) => {
                let stat = rustix::fs::statat(&dir_fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
                if kind(&stat) != new.kind {
                    return Err(Status::Exist);
                }
            }
            Err(e) => return Err(errno(e)),
        }
        let fd = openat(&dir_fd, name, OFlags::PATH)?;
        self.dress(&new, &fd)?;
        self.sync(&dir_fd)?;
        self.created(x, dir, &fd, Some(&before))
    }

    /// Gives a new file the attributes that were asked for.
    fn dress(&self, new: &New<'_>, fd: &File) -> Result<()> {
        let stat = rustix::fs::fstat(fd).map_err(errno)?;
        let mut set = new.set;
        // The client has applied its umask; ours may have taken more, and mkdir(2) takes no set-group bit. What
        // the kernel added (that bit of a directory's children) stays.
        set.mode =
            new.mode.map(|mode| mode | stat.st_mode & 0o7000).filter(|mode| stat.st_mode & 0o7777 != *mode);
        // Setting what is already so would need rights that making a file does not.
        set.uid = set.uid.filter(|uid| *uid != stat.st_uid);
        set.gid = set.gid.filter(|gid| *gid != stat.st_gid);
        set.size = set.size.filter(|size| *size != stat.st_size as u64);
        if set == SetAttr::default() {
            // The sync of the directory that follows has the file as it was made, too.
            return Ok(());
        }
        self.set(new.ctx, new.x, &kernel::of(fd)?, fd, &stat, &set)?;
        if new.kind == FileType::Regular && self.durability == Durability::Full {
            let file = kernel::open(new.x.dir.as_fd(), &kernel::of(fd)?, OFlags::RDONLY | OFlags::NOFOLLOW)?;
            self.sync(&file)?;
        }
        Ok(())
    }

    fn created(&self, x: &Export, dir: &KernelHandle, fd: &File, before: Option<&Stat>) -> Result<Created> {
        let stat = rustix::fs::fstat(fd).map_err(errno)?;
        let (dir_fd, now) = x.path(dir)?;
        let dir = x.wcc(before.unwrap_or(&now), &dir_fd);
        Ok(Created { object: x.object(kernel::of(fd)?), attr: x.attr(&stat), dir })
    }

    /// REMOVE and RMDIR.
    pub fn remove(
        &self,
        ctx: &Context,
        x: &Export,
        dir: &KernelHandle,
        name: &[u8],
        directory: bool,
    ) -> Result<Wcc> {
        let (dir_fd, before) = x.directory(dir)?;
        let victim = Named::at(&dir_fd, name);
        let unfinished =
            x.begin_to_remove(ctx, Intent { inode: victim.as_ref().map(|v| v.handle), absent: false })?;
        let was = unfinished.and_then(|i| i.inode);
        if was.is_some() && was != victim.as_ref().map(|v| v.handle) {
            return Ok(x.wcc(&before, &dir_fd));
        }
        {
            let _as = act(ctx)?;
            let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(&dir_fd, name, flags).map_err(errno)?;
        }
        self.sync(&dir_fd)?;
        self.close_if_gone(x, victim);
        Ok(x.wcc(&before, &dir_fd))
    }

    /// RENAME.
    pub fn rename(
        &self,
        ctx: &Context,
        x: &Export,
        from: (&KernelHandle, &[u8]),
        to: (&KernelHandle, &[u8]),
    ) -> Result<(Wcc, Wcc)> {
        let (from_fd, from_before) = x.directory(from.0)?;
        let (to_fd, to_before) = x.directory(to.0)?;
        let source = Named::at(&from_fd, from.1).map(|n| n.handle);
        let replaced = Named::at(&to_fd, to.1);
        let unfinished = x.begin(ctx, Intent { inode: source, absent: replaced.is_none() })?;
        let done = || (x.wcc(&from_before, &from_fd), x.wcc(&to_before, &to_fd));
        if let Some(was) = unfinished.and_then(|i| i.inode)
            && source != Some(was)
            && replaced.as_ref().map(|n| n.handle) == Some(was)
        {
            return Ok(done());
        }
        {
            let _as = act(ctx)?;
            rustix::fs::renameat(&from_fd, from.1, &to_fd, to.1).map_err(errno)?;
        }
        self.sync(&to_fd)?;
        if from.0 != to.0 {
            self.sync(&from_fd)?;
        }
        self.close_if_gone(x, replaced);
        Ok(done())
    }

    /// LINK.
    pub fn link(
        &self,
        ctx: &Context,
        x: &Export,
        file: &KernelHandle,
        dir: &KernelHandle,
        name: &[u8],
    ) -> Result<(Attr, Wcc)> {
        let (fd, _) = x.path(file)?;
        let (dir_fd, before) = x.directory(dir)?;
        let there = Named::at(&dir_fd, name);
        let unfinished = x.begin(ctx, Intent { inode: Some(*file), absent: there.is_none() })?;
        let was_done =
            unfinished.is_some_and(|i| i.absent) && there.is_some_and(|there| there.handle == *file);
        if !was_done {
            let _as = act(ctx)?;
            // By /proc: linking a descriptor directly needs a capability that the caller has not.
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::linkat(rustix::fs::CWD, &path, &dir_fd, name, AtFlags::SYMLINK_FOLLOW)
                .map_err(errno)?;
        }
        self.sync(&dir_fd)?;
        let stat = rustix::fs::fstat(&fd).map_err(errno)?;
        Ok((x.attr(&stat), x.wcc(&before, &dir_fd)))
    }

    /// Closes our descriptor of a file that lost its last name.
    fn close_if_gone(&self, x: &Export, victim: Option<Named>) {
        if let Some(v) = victim
            && rustix::fs::fstat(&v.fd).is_ok_and(|s| s.st_nlink == 0)
        {
            self.files.forget(x.id, &v.handle);
        }
    }
}

/// What a name leads to, kept open.
struct Named {
    handle: KernelHandle,
    fd: File,
}

impl Named {
    fn at(dir: &File, name: &[u8]) -> Option<Self> {
        let fd = openat(dir, name, OFlags::PATH).ok()?;
        Some(Self { handle: kernel::of(&fd).ok()?, fd })
    }
}

fn exists(dir: &File, name: &[u8]) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn mode(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as RawMode)
}

fn time(t: SetTime) -> Timespec {
    match t {
        SetTime::Keep => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        SetTime::Now => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        SetTime::To(t) => Timespec { tv_sec: t.sec.into(), tv_nsec: t.nsec.into() },
    }
}

/// An exclusive CREATE's verifier as times of the new file: durable with it, and replaced by the
/// SETATTR that the client sends next. The top bits go into the nanoseconds: not every file system
/// stores seconds beyond 2038.
fn stamped(verifier: &[u8; 8]) -> SetAttr {
    let [a, b, c, d, e, f, g, h] = *verifier;
    let sec = |bytes| u32::from_be_bytes(bytes) & 0x7fff_ffff;
    SetAttr {
        atime: SetTime::To(Time { sec: sec([a, b, c, d]), nsec: u32::from(a >> 7) }),
        mtime: SetTime::To(Time { sec: sec([e, f, g, h]), nsec: u32::from(e >> 7) }),
        ..SetAttr::default()
    }
}

/// The verifier that a file's times hold.
fn stamps(attr: &Attr) -> Option<[u8; 8]> {
    let word = |t: Time| (t.nsec <= 1).then_some((t.sec | t.nsec << 31).to_be_bytes());
    let ([a, b, c, d], [e, f, g, h]) = (word(attr.atime)?, word(attr.mtime)?);
    Some([a, b, c, d, e, f, g, h])
}
