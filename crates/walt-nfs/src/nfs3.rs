//! The 22 procedures of NFS version 3 (RFC 1813, section 3).

use crate::dispatch::{Dispatcher, Peer};
use crate::rpc::{Call, Refusal};
use crate::types::put_attr;
use crate::xdr::{Malformed, Reader, Write};
use crate::{Attr, Context, CreateHow, Created, Object, SetAttr, Special, Stable, Status, Time, Vfs, Wcc};

/// Program number.
pub const PROGRAM: u32 = 100_003;
/// Version that is served.
pub const VERSION: u32 = 3;
/// Most bytes of one READ or WRITE (FSINFO's `rtmax` and `wtmax`): what Linux asks for at most.
pub const MAX_TRANSFER: u32 = 1 << 20;
/// Preferred size of a READDIR reply (FSINFO's `dtpref`), in bytes.
pub const PREFERRED_DIRECTORY: u32 = 64 << 10;
/// Longest name in a directory, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes (`PATH_MAX` of Linux without its NUL).
pub const MAX_TARGET: usize = 4095;

/// Most hard links of one file, as PATHCONF tells; file systems may stop earlier with `NFS3ERR_MLINK`.
const LINK_MAX: u32 = 32_000;
/// FSINFO's properties: hard links, symbolic links, one answer of PATHCONF for all, times can be set.
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08 | 0x10;
/// Longest name that is decoded at all, so that one that is too long gets `NFS3ERR_NAMETOOLONG`.
const MAX_NAME_ON_WIRE: usize = 4096;
/// Longest handle that is decoded at all, so that a wrong one gets `NFS3ERR_BADHANDLE`.
const MAX_HANDLE_ON_WIRE: usize = crate::handle::MAX_HANDLE;

/// Procedure numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum Proc {
    Null,
    GetAttr,
    SetAttr,
    Lookup,
    Access,
    ReadLink,
    Read,
    Write,
    Create,
    MkDir,
    SymLink,
    MkNod,
    Remove,
    RmDir,
    Rename,
    Link,
    ReadDir,
    ReadDirPlus,
    FsStat,
    FsInfo,
    PathConf,
    Commit,
}

impl Proc {
    const ALL: [Self; 22] = [
        Self::Null,
        Self::GetAttr,
        Self::SetAttr,
        Self::Lookup,
        Self::Access,
        Self::ReadLink,
        Self::Read,
        Self::Write,
        Self::Create,
        Self::MkDir,
        Self::SymLink,
        Self::MkNod,
        Self::Remove,
        Self::RmDir,
        Self::Rename,
        Self::Link,
        Self::ReadDir,
        Self::ReadDirPlus,
        Self::FsStat,
        Self::FsInfo,
        Self::PathConf,
        Self::Commit,
    ];

    /// From its number.
    pub fn new(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// Running it twice could give another answer than running it once.
    pub fn must_not_repeat(self) -> bool {
        self == Self::SetAttr || (self >= Self::Create && self <= Self::Link)
    }

    fn changes(self) -> bool {
        self.must_not_repeat() || self == Self::Write
    }
}

/// Whether a call is for NFS and its first handle claims a `/persist` file: those may block on the disk,
/// views hardly do. For scheduling only: nothing has been checked.
pub fn may_block(call: &Call<'_>) -> bool {
    call.program == PROGRAM
        && Reader::new(call.args).opaque(MAX_HANDLE_ON_WIRE).is_ok_and(crate::handle::claims_persist)
}

/// Why a procedure gives no good result.
enum Fail {
    /// Answered as a refusal of the call.
    Garbage,
    /// Answered as the procedure's own failure.
    Status(Status),
}
impl From<Malformed> for Fail {
    fn from(_: Malformed) -> Self {
        Fail::Garbage
    }
}
impl From<Status> for Fail {
    fn from(s: Status) -> Self {
        Fail::Status(s)
    }
}

pub(crate) fn run<V: Vfs>(
    d: &Dispatcher<V>,
    ctx: &Context,
    peer: Peer,
    call: &Call<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let proc = Proc::new(call.procedure).ok_or(Refusal::ProcedureUnavailable)?;
    let start = out.len();
    let mut p = Procedure { d, ctx, trusted: peer.trusted, proc, r: Reader::new(call.args), first: None };
    match p.run(out) {
        Ok(()) => {}
        Err(Fail::Garbage) => return Err(Refusal::GarbageArguments),
        Err(Fail::Status(status)) => {
            out.truncate(start);
            out.put_u32(status as u32);
            p.put_failure(status, out);
        }
    }
    // "Try again later" is not an answer to keep, and a handle that was refused has nowhere to keep it.
    if let Some(object) = p.first.filter(|_| proc.must_not_repeat()) {
        if out[start..].starts_with(JUKEBOX) {
            d.vfs.deferred(ctx, &object);
        } else {
            d.vfs.completed(ctx, &object, &out[start..]);
        }
    }
    Ok(())
}

const JUKEBOX: &[u8] = &(Status::Jukebox as u32).to_be_bytes();

struct Procedure<'a, V> {
    d: &'a Dispatcher<V>,
    ctx: &'a Context,
    trusted: bool,
    proc: Proc,
    r: Reader<'a>,
    /// The first handle of the call, once it was found good and the call has not been replayed.
    first: Option<Object>,
}

impl<V: Vfs> Procedure<'_, V> {
    fn object(&mut self) -> Result<Object, Fail> {
        let handle = self.r.opaque(MAX_HANDLE_ON_WIRE)?;
        Ok(self.open(handle)?)
    }

    fn open(&self, handle: &[u8]) -> Result<Object, Status> {
        if !self.trusted {
            return Err(Status::Perm);
        }
        self.d.key.open(handle).ok_or(Status::BadHandle)
    }

    fn run(&mut self, out: &mut Vec<u8>) -> Result<(), Fail> {
        let (vfs, ctx) = (&self.d.vfs, self.ctx);
        // All arguments are decoded before anything is done.
        let o = self.object()?;
        let mut r = self.r;
        match self.proc {
            Proc::Null => {}
            Proc::GetAttr => {
                let attr = vfs.getattr(ctx, &o)?;
                out.put_u32(0);
                attr.put(out);
            }
            Proc::SetAttr => {
                let set = SetAttr::get(&mut r)?;
                let guard = if r.bool()? { Some(Time::get(&mut r)?) } else { None };
                if self.replayed(&o, out) {
                    return Ok(());
                }
                let wcc = vfs.setattr(ctx, &o, &set, guard)?;
                out.put_u32(0);
                wcc.put(out);
            }
            Proc::Lookup => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                self.first = Some(o);
                let found = vfs.lookup(ctx, &o, checked(name)?)?;
                out.put_u32(0);
                out.put_opaque(self.d.key.seal(&found.object).as_slice());
                put_attr(out, Some(&found.attr));
                put_attr(out, found.dir.as_ref());
            }
            Proc::Access => {
                let wanted = r.u32()?;
                let (granted, attr) = vfs.access(ctx, &o, wanted)?;
                out.put_u32(0);
                put_attr(out, Some(&attr));
                out.put_u32(granted & wanted);
            }
            Proc::ReadLink => {
                let (target, attr) = vfs.readlink(ctx, &o)?;
                out.put_u32(0);
                put_attr(out, Some(&attr));
                out.put_opaque(&target);
            }
            Proc::Read => {
                let (offset, count) = (r.u64()?, r.u32()?.min(MAX_TRANSFER));
                self.read(&o, offset, count, out)?;
            }
            Proc::Write => {
                let (offset, count, stable) = (r.u64()?, r.u32()?, r.u32()?);
                let stable = match stable {
                    0 => Stable::Unstable,
                    1 => Stable::DataSync,
                    2 => Stable::FileSync,
                    _ => return Err(Fail::Garbage),
                };
                let data = r.opaque(MAX_TRANSFER as usize)?;
                if data.len() != count as usize {
                    return Err(Fail::Garbage);
                }
                // Linux refuses larger offsets with EINVAL; the RFC has a status for it.
                if offset.checked_add(count.into()).is_none_or(|end| end > i64::MAX as u64) {
                    return Err(Status::FBig.into());
                }
                let w = vfs.write(ctx, &o, offset, data, stable)?;
                out.put_u32(0);
                w.file.put(out);
                out.put_u32(w.count);
                out.put_u32(w.stable as u32);
                out.extend_from_slice(&vfs.write_verifier());
            }
            Proc::Create => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                let how = match r.u32()? {
                    0 => CreateHow::Unchecked(SetAttr::get(&mut r)?),
                    1 => CreateHow::Guarded(SetAttr::get(&mut r)?),
                    2 => CreateHow::Exclusive(r.verifier()?),
                    _ => return Err(Fail::Garbage),
                };
                if self.replayed(&o, out) {
                    return Ok(());
                }
                let created = vfs.create(ctx, &o, new_name(name)?, &how)?;
                self.put_created(&created, out);
            }
            Proc::MkDir => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                let set = SetAttr::get(&mut r)?;
                if self.replayed(&o, out) {
                    return Ok(());
                }
                let created = vfs.mkdir(ctx, &o, new_name(name)?, &set)?;
                self.put_created(&created, out);
            }
            Proc::SymLink => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                let set = SetAttr::get(&mut r)?;
                let target = r.opaque(2 * MAX_NAME_ON_WIRE)?;
                if self.replayed(&o, out) {
                    return Ok(());
                }
                if target.len() > MAX_TARGET {
                    return Err(Status::NameTooLong.into());
                }
                if target.is_empty() || target.contains(&0) {
                    return Err(Status::Inval.into());
                }
                let created = vfs.symlink(ctx, &o, new_name(name)?, target, &set)?;
                self.put_created(&created, out);
            }
            Proc::MkNod => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                let kind = r.u32()?;
                let set = if (3..=4).contains(&kind) || (6..=7).contains(&kind) {
                    SetAttr::get(&mut r)?
                } else {
                    return Err(Status::BadType.into());
                };
                let special = match kind {
                    3 => Special::Block(r.u32()?, r.u32()?),
                    4 => Special::Char(r.u32()?, r.u32()?),
                    6 => Special::Socket,
                    _ => Special::Fifo,
                };
                if self.replayed(&o, out) {
                    return Ok(());
                }
                let created = vfs.mknod(ctx, &o, new_name(name)?, special, &set)?;
                self.put_created(&created, out);
            }
            Proc::Remove | Proc::RmDir => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                if self.replayed(&o, out) {
                    return Ok(());
                }
                let wcc = if self.proc == Proc::Remove {
                    vfs.remove(ctx, &o, old_name(name)?)?
                } else {
                    vfs.rmdir(ctx, &o, old_name(name)?)?
                };
                out.put_u32(0);
                wcc.put(out);
            }
            Proc::Rename => {
                let from = r.opaque(MAX_NAME_ON_WIRE)?;
                let to_handle = r.opaque(MAX_HANDLE_ON_WIRE)?;
                let to = r.opaque(MAX_NAME_ON_WIRE)?;
                let to_dir = self.open(to_handle)?;
                if self.replayed(&o, out) {
                    return Ok(());
                }
                same_export(&o, &to_dir)?;
                let (w1, w2) = vfs.rename(ctx, (&o, old_name(from)?), (&to_dir, new_name(to)?))?;
                out.put_u32(0);
                w1.put(out);
                w2.put(out);
            }
            Proc::Link => {
                let dir_handle = r.opaque(MAX_HANDLE_ON_WIRE)?;
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                let dir = self.open(dir_handle)?;
                if self.replayed(&o, out) {
                    return Ok(());
                }
                same_export(&o, &dir)?;
                let (attr, wcc) = vfs.link(ctx, &o, &dir, new_name(name)?)?;
                out.put_u32(0);
                put_attr(out, Some(&attr));
                wcc.put(out);
            }
            Proc::ReadDir => {
                let (cookie, _verifier, count) = (r.u64()?, r.verifier()?, r.u32()?);
                crate::readdir::plain(self.d, ctx, &o, cookie, count, out)?;
            }
            Proc::ReadDirPlus => {
                let (cookie, _verifier) = (r.u64()?, r.verifier()?);
                let (dircount, maxcount) = (r.u32()?, r.u32()?);
                crate::readdir::plus(self.d, ctx, &o, cookie, dircount, maxcount, out)?;
            }
            Proc::FsStat => {
                let stat = vfs.fsstat(ctx, &o)?;
                out.put_u32(0);
                put_attr(out, vfs.getattr(ctx, &o).ok().as_ref());
                for v in stat.bytes.into_iter().chain(stat.files) {
                    out.put_u64(v);
                }
                out.put_u32(stat.invariant);
            }
            Proc::FsInfo => {
                let attr = vfs.getattr(ctx, &o)?;
                out.put_u32(0);
                put_attr(out, Some(&attr));
                for v in [MAX_TRANSFER, MAX_TRANSFER, 4096, MAX_TRANSFER, MAX_TRANSFER, 4096] {
                    out.put_u32(v);
                }
                out.put_u32(PREFERRED_DIRECTORY);
                out.put_u64(i64::MAX as u64);
                Time { sec: 0, nsec: 1 }.put(out);
                out.put_u32(PROPERTIES);
            }
            Proc::PathConf => {
                let attr = vfs.getattr(ctx, &o)?;
                out.put_u32(0);
                put_attr(out, Some(&attr));
                out.put_u32(LINK_MAX);
                out.put_u32(MAX_NAME as u32);
                // no truncation, chown restricted, case sensitive, case preserved
                for v in [true, true, false, true] {
                    out.put_bool(v);
                }
            }
            Proc::Commit => {
                let _range = (r.u64()?, r.u32()?);
                let wcc = vfs.commit(ctx, &o)?;
                out.put_u32(0);
                wcc.put(out);
                out.extend_from_slice(&vfs.write_verifier());
            }
        }
        Ok(())
    }

    /// The result follows the attributes and counts, so their room is taken first and filled after.
    fn read(&self, o: &Object, offset: u64, count: u32, out: &mut Vec<u8>) -> Result<(), Fail> {
        const HEAD: usize = 4 + 4 + Attr::LEN + 4 + 4 + 4;
        let start = out.len();
        out.resize(start + HEAD, 0);
        let (end, attr) = self.d.vfs.read(self.ctx, o, offset, count, out)?;
        let len = out.len() - start - HEAD;
        debug_assert!(len <= count as usize);
        out.put_padding(len);
        let mut head = Vec::with_capacity(HEAD);
        head.put_u32(0);
        put_attr(&mut head, Some(&attr));
        head.put_u32(len as u32);
        head.put_bool(end);
        head.put_u32(len as u32);
        out[start..start + HEAD].copy_from_slice(&head);
        Ok(())
    }

    fn replayed(&mut self, o: &Object, out: &mut Vec<u8>) -> bool {
        if let Some(result) = self.d.vfs.replay(self.ctx, o) {
            out.extend_from_slice(&result);
            return true;
        }
        self.first = Some(*o);
        false
    }

    fn put_created(&self, c: &Created, out: &mut Vec<u8>) {
        out.put_u32(0);
        out.put_bool(true);
        out.put_opaque(self.d.key.seal(&c.object).as_slice());
        put_attr(out, Some(&c.attr));
        c.dir.put(out);
    }

    /// The body of a failed result: attributes where they are cheap and useful, else "none".
    fn put_failure(&self, status: Status, out: &mut Vec<u8>) {
        match self.proc {
            Proc::Null | Proc::GetAttr => {}
            // A client keeps "no such name" as long as the directory has not changed.
            Proc::Lookup => {
                let attr = self
                    .first
                    .filter(|_| status == Status::NoEnt)
                    .and_then(|o| self.d.vfs.getattr(self.ctx, &o).ok());
                put_attr(out, attr.as_ref());
            }
            Proc::Rename => {
                Wcc::default().put(out);
                Wcc::default().put(out);
            }
            Proc::Link => {
                put_attr(out, None);
                Wcc::default().put(out);
            }
            p if p.changes() || p == Proc::Commit => Wcc::default().put(out),
            _ => put_attr(out, None),
        }
    }
}

/// A name that may be looked up.
fn checked(name: &[u8]) -> Result<&[u8], Status> {
    if name.len() > MAX_NAME {
        return Err(Status::NameTooLong);
    }
    if name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(Status::Access); // as RFC 1813 says of the null name
    }
    Ok(name)
}

/// A name that may be given to a new file: `.` and `..` exist everywhere.
fn new_name(name: &[u8]) -> Result<&[u8], Status> {
    if matches!(name, b"." | b"..") { Err(Status::Exist) } else { checked(name) }
}

/// A name that may be taken away.
fn old_name(name: &[u8]) -> Result<&[u8], Status> {
    if matches!(name, b"." | b"..") { Err(Status::Inval) } else { checked(name) }
}

/// RENAME and LINK never leave an export.
fn same_export(a: &Object, b: &Object) -> Result<(), Status> {
    let same = match (a, b) {
        (Object::View { view: a, .. }, Object::View { view: b, .. }) => a == b,
        (Object::Persist { export: a, .. }, Object::Persist { export: b, .. }) => a == b,
        _ => false,
    };
    if same { Ok(()) } else { Err(Status::XDev) }
}
