//! Values of RFC 1813 that pass between the protocol and the [`crate::Vfs`].

use crate::xdr::{Malformed, Reader, Result, Write};

/// `nfsstat3` other than OK (RFC 1813, section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the names are the RFC's
#[repr(u32)]
pub enum Status {
    #[error("not the owner")]
    Perm = 1,
    #[error("no such file or directory")]
    NoEnt = 2,
    #[error("input/output error")]
    Io = 5,
    #[error("no such device")]
    NxIo = 6,
    #[error("permission denied")]
    Access = 13,
    #[error("file exists")]
    Exist = 17,
    #[error("link across file systems or exports")]
    XDev = 18,
    #[error("no such device")]
    NoDev = 19,
    #[error("not a directory")]
    NotDir = 20,
    #[error("is a directory")]
    IsDir = 21,
    #[error("invalid argument")]
    Inval = 22,
    #[error("file too large")]
    FBig = 27,
    #[error("no space left")]
    NoSpc = 28,
    #[error("read-only file system")]
    RoFs = 30,
    #[error("too many links")]
    MLink = 31,
    #[error("name too long")]
    NameTooLong = 63,
    #[error("directory not empty")]
    NotEmpty = 66,
    #[error("quota exceeded")]
    DQuot = 69,
    #[error("stale file handle")]
    Stale = 70,
    #[error("bad file handle")]
    BadHandle = 10001,
    #[error("attributes changed since they were read")]
    NotSync = 10002,
    #[error("bad directory cookie")]
    BadCookie = 10003,
    #[error("operation not supported")]
    NotSupp = 10004,
    #[error("reply too small")]
    TooSmall = 10005,
    #[error("server fault")]
    ServerFault = 10006,
    #[error("bad file type")]
    BadType = 10007,
    #[error("try again later")]
    Jukebox = 10008,
}

/// `ftype3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the RFC's
pub enum FileType {
    Regular = 1,
    Directory = 2,
    Block = 3,
    Char = 4,
    Symlink = 5,
    Socket = 6,
    Fifo = 7,
}

/// `nfstime3`: seconds and nanoseconds since 1970. On the wire the seconds have 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds.
    pub sec: u32,
    /// Nanoseconds.
    pub nsec: u32,
}

impl Time {
    /// From a signed 64-bit time: what does not fit in the protocol becomes its nearest value.
    pub fn new(sec: i64, nsec: u32) -> Self {
        Self { sec: sec.clamp(0, u32::MAX.into()) as u32, nsec }
    }
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.put_u32(self.sec);
        out.put_u32(self.nsec);
    }
    pub(crate) fn get(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { sec: r.u32()?, nsec: r.u32()? })
    }
}

/// `fattr3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Kind of file.
    pub kind: FileType,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Names of the file.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes on the disk.
    pub used: u64,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// File system.
    pub fsid: u64,
    /// Number of the file in its file system.
    pub fileid: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

impl Attr {
    /// Length of an encoded `fattr3`, in bytes.
    pub(crate) const LEN: usize = 84;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        for v in [self.kind as u32, self.mode, self.nlink, self.uid, self.gid] {
            out.put_u32(v);
        }
        out.put_u64(self.size);
        out.put_u64(self.used);
        out.put_u32(self.rdev.0);
        out.put_u32(self.rdev.1);
        out.put_u64(self.fsid);
        out.put_u64(self.fileid);
        for t in [self.atime, self.mtime, self.ctime] {
            t.put(out);
        }
    }

    /// What the mode bits allow a caller, as the bits of [`access`]. Root may do everything, but may
    /// execute only what somebody may execute.
    pub fn allowed(&self, uid: u32, gid: u32, groups: &[u32]) -> u32 {
        let dir = self.kind == FileType::Directory;
        let bits = if uid == 0 {
            6 | u32::from(dir || self.mode & 0o111 != 0)
        } else if uid == self.uid {
            self.mode >> 6
        } else if gid == self.gid || groups.contains(&self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        let mut all = 0;
        if bits & 4 != 0 {
            all |= access::READ;
        }
        if bits & 2 != 0 {
            all |= access::MODIFY | access::EXTEND;
            if dir {
                all |= access::DELETE;
            }
        }
        if bits & 1 != 0 {
            all |= if dir { access::LOOKUP } else { access::EXECUTE };
        }
        all
    }
}

/// Bits of the ACCESS procedure (RFC 1813, section 3.3.4).
pub mod access {
    /// Read a file or list a directory.
    pub const READ: u32 = 1;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 2;
    /// Rewrite what is there.
    pub const MODIFY: u32 = 4;
    /// Write new data or add names.
    pub const EXTEND: u32 = 8;
    /// Remove a name of a directory.
    pub const DELETE: u32 = 16;
    /// Execute a file.
    pub const EXECUTE: u32 = 32;
}

/// `wcc_attr`: what a client compares to see whether its cache is still right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

impl From<&Attr> for Before {
    fn from(a: &Attr) -> Self {
        Self { size: a.size, mtime: a.mtime, ctime: a.ctime }
    }
}

/// `wcc_data`: attributes before and after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wcc {
    /// Before.
    pub before: Option<Before>,
    /// After.
    pub after: Option<Attr>,
}

impl Wcc {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_bool(self.before.is_some());
        if let Some(b) = self.before {
            out.put_u64(b.size);
            b.mtime.put(out);
            b.ctime.put(out);
        }
        put_attr(out, self.after.as_ref());
    }
}

/// `post_op_attr`.
pub(crate) fn put_attr(out: &mut Vec<u8>, attr: Option<&Attr>) {
    out.put_bool(attr.is_some());
    if let Some(a) = attr {
        a.put(out);
    }
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetTime {
    /// Leave it.
    #[default]
    Keep,
    /// The server's clock.
    Now,
    /// This time.
    To(Time),
}

/// `sattr3`: attributes to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // as in `Attr`
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

impl SetAttr {
    pub(crate) fn get(r: &mut Reader<'_>) -> Result<Self> {
        fn opt(r: &mut Reader<'_>) -> Result<Option<u32>> {
            Ok(if r.bool()? { Some(r.u32()?) } else { None })
        }
        fn time(r: &mut Reader<'_>) -> Result<SetTime> {
            Ok(match r.u32()? {
                0 => SetTime::Keep,
                1 => SetTime::Now,
                2 => SetTime::To(Time::get(r)?),
                _ => return Err(Malformed),
            })
        }
        Ok(Self {
            mode: opt(r)?.map(|m| m & 0o7777),
            uid: opt(r)?,
            gid: opt(r)?,
            size: if r.bool()? { Some(r.u64()?) } else { None },
            atime: time(r)?,
            mtime: time(r)?,
        })
    }
}

/// `stable_how`: how durable a WRITE has to be before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stable {
    /// Nothing is promised until COMMIT.
    Unstable = 0,
    /// The data, and what is needed to find it again.
    DataSync = 1,
    /// Data and all attributes.
    FileSync = 2,
}

/// `createhow3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateHow {
    /// An existing file is fine.
    Unchecked(SetAttr),
    /// An existing file is an error.
    Guarded(SetAttr),
    /// An existing file is an error, unless it was made with this verifier.
    Exclusive([u8; 8]),
}

/// What MKNOD makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Character device with major and minor number.
    Char(u32, u32),
    /// Block device with major and minor number.
    Block(u32, u32),
    /// Socket.
    Socket,
    /// Named pipe.
    Fifo,
}

/// `mountstat3` other than OK (RFC 1813, section 5.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MountStatus {
    /// No such path.
    #[error("no such export")]
    NoEnt = 2,
    /// An input/output error.
    #[error("input/output error")]
    Io = 5,
    /// Not for this caller.
    #[error("permission denied")]
    Access = 13,
    /// Not a path.
    #[error("invalid path")]
    Inval = 22,
    /// Something else went wrong.
    #[error("server fault")]
    ServerFault = 10006,
}

/// Numbers of a file system (FSSTAT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsStat {
    /// Bytes: all, free, free for the caller.
    pub bytes: [u64; 3],
    /// Files: all, free, free for the caller.
    pub files: [u64; 3],
    /// Seconds for which the numbers will not change.
    pub invariant: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use access::*;

    #[test]
    fn allowed_follows_the_mode() {
        let a = |kind, mode| Attr {
            kind,
            mode,
            nlink: 1,
            uid: 10,
            gid: 20,
            size: 0,
            used: 0,
            rdev: (0, 0),
            fsid: 0,
            fileid: 1,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
        };
        use FileType::{Directory as D, Regular as F};
        for (kind, mode, uid, gid, groups, want) in [
            (F, 0o000, 0, 0, &[][..], READ | MODIFY | EXTEND),
            (F, 0o010, 0, 0, &[], READ | MODIFY | EXTEND | EXECUTE),
            (D, 0o000, 0, 0, &[], READ | MODIFY | EXTEND | DELETE | LOOKUP),
            (F, 0o640, 10, 0, &[], READ | MODIFY | EXTEND),
            (F, 0o640, 11, 20, &[], READ),
            (F, 0o640, 11, 0, &[5, 20], READ),
            (F, 0o640, 11, 0, &[], 0),
            // The owner is judged by the owner's bits only.
            (F, 0o077, 10, 20, &[], 0),
            (D, 0o751, 11, 11, &[], LOOKUP),
        ] {
            assert_eq!(a(kind, mode).allowed(uid, gid, groups), want, "{mode:o} {uid} {gid} {groups:?}");
        }
    }

    #[test]
    fn times_are_clamped() {
        assert_eq!(Time::new(-5, 7), Time { sec: 0, nsec: 7 });
        assert_eq!(Time::new(1 << 40, 0).sec, u32::MAX);
    }
}
