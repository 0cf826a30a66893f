//! The 22 procedures of NFS version 3 (RFC 1813, section 3).

use crate::{
    Attr, Context, CreateHow, Created, Object, SetAttr, Special, Stable, Status, Time, Vfs, Wcc,
    dispatch::{Dispatcher, Peer},
    rpc::{Call, Refusal},
    types::put_attr,
    xdr::{Malformed, Reader, Write},
};

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

/// Most hard links of one file, for PATHCONF; file systems may stop earlier with `NFS3ERR_MLINK`.
const LINK_MAX: u32 = 32_000;
/// FSINFO's properties: hard links, symbolic links, one answer of PATHCONF for all, times can be set.
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08 | 0x10;
/// Longest name that is decoded at all, so that one that is too long gets `NFS3ERR_NAMETOOLONG`.
const MAX_NAME_ON_WIRE: usize = 4096;
/// Longest target of a symbolic link that is decoded at all, so that one that is too long gets the same.
const MAX_TARGET_ON_WIRE: usize = 2 * MAX_NAME_ON_WIRE;
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

/// The decoded arguments of a procedure that must not run twice.
enum Change<'a> {
    SetAttr(SetAttr, Option<Time>),
    Create(&'a [u8], CreateHow),
    MkDir(&'a [u8], SetAttr),
    /// A name, its attributes, what it leads to.
    SymLink(&'a [u8], SetAttr, &'a [u8]),
    MkNod(&'a [u8], Special, SetAttr),
    Remove(&'a [u8]),
    RmDir(&'a [u8]),
    /// A name, and the directory and name that it becomes.
    Rename(&'a [u8], Object, &'a [u8]),
    /// The directory and name of one more link.
    Link(Object, &'a [u8]),
}

impl<'a, V: Vfs> Procedure<'a, V> {
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
        // All arguments are decoded before anything is done.
        let o = self.object()?;
        if let Some(change) = self.change()? {
            return if self.replayed(&o, out) { Ok(()) } else { self.apply(&o, &change, out) };
        }
        match self.proc {
            Proc::GetAttr => self.getattr(&o, out),
            Proc::Lookup => self.lookup(&o, out),
            Proc::Access => self.access(&o, out),
            Proc::ReadLink => self.readlink(&o, out),
            Proc::Read => self.read(&o, out),
            Proc::Write => self.write(&o, out),
            Proc::ReadDir => self.readdir(&o, out),
            Proc::ReadDirPlus => self.readdirplus(&o, out),
            Proc::FsStat => self.fsstat(&o, out),
            Proc::FsInfo => self.fsinfo(&o, out),
            Proc::PathConf => self.pathconf(&o, out),
            Proc::Commit => self.commit(&o, out),
            // NULL is answered for every program alike; the others are changes.
            _ => Ok(()),
        }
    }

    /// The arguments of a procedure that must not run twice; `None` of any other, with nothing decoded.
    fn change(&mut self) -> Result<Option<Change<'a>>, Fail> {
        let mut r = self.r;
        Ok(Some(match self.proc {
            Proc::SetAttr => {
                let set = SetAttr::get(&mut r)?;
                Change::SetAttr(set, if r.bool()? { Some(Time::get(&mut r)?) } else { None })
            }
            Proc::Create => {
                let name = r.opaque(MAX_NAME_ON_WIRE)?;
                let how = match r.u32()? {
                    0 => CreateHow::Unchecked(SetAttr::get(&mut r)?),
                    1 => CreateHow::Guarded(SetAttr::get(&mut r)?),
                    2 => CreateHow::Exclusive(r.verifier()?),
                    _ => return Err(Fail::Garbage),
                };
                Change::Create(name, how)
            }
            Proc::MkDir => Change::MkDir(r.opaque(MAX_NAME_ON_WIRE)?, SetAttr::get(&mut r)?),
            Proc::SymLink => {
                let (name, set) = (r.opaque(MAX_NAME_ON_WIRE)?, SetAttr::get(&mut r)?);
                Change::SymLink(name, set, r.opaque(MAX_TARGET_ON_WIRE)?)
            }
            Proc::MkNod => {
                let (name, kind) = (r.opaque(MAX_NAME_ON_WIRE)?, r.u32()?);
                if !matches!(kind, 3 | 4 | 6 | 7) {
                    return Err(Status::BadType.into());
                }
                let set = SetAttr::get(&mut r)?;
                let special = match kind {
                    3 => Special::Block(r.u32()?, r.u32()?),
                    4 => Special::Char(r.u32()?, r.u32()?),
                    6 => Special::Socket,
                    _ => Special::Fifo,
                };
                Change::MkNod(name, special, set)
            }
            Proc::Remove => Change::Remove(r.opaque(MAX_NAME_ON_WIRE)?),
            Proc::RmDir => Change::RmDir(r.opaque(MAX_NAME_ON_WIRE)?),
            Proc::Rename => {
                let from = r.opaque(MAX_NAME_ON_WIRE)?;
                let (to_handle, to) = (r.opaque(MAX_HANDLE_ON_WIRE)?, r.opaque(MAX_NAME_ON_WIRE)?);
                Change::Rename(from, self.open(to_handle)?, to)
            }
            Proc::Link => {
                let (dir_handle, name) = (r.opaque(MAX_HANDLE_ON_WIRE)?, r.opaque(MAX_NAME_ON_WIRE)?);
                Change::Link(self.open(dir_handle)?, name)
            }
            _ => return Ok(None),
        }))
    }

    fn apply(&self, o: &Object, change: &Change<'_>, out: &mut Vec<u8>) -> Result<(), Fail> {
        let (vfs, ctx) = (&self.d.vfs, self.ctx);
        match *change {
            Change::SetAttr(set, guard) => put_changed(&vfs.setattr(ctx, o, &set, guard)?, out),
            Change::Create(name, how) => {
                self.put_created(&vfs.create(ctx, o, new_name(name)?, &how)?, out);
            }
            Change::MkDir(name, set) => self.put_created(&vfs.mkdir(ctx, o, new_name(name)?, &set)?, out),
            Change::SymLink(name, set, target) => {
                let target = checked_target(target)?;
                self.put_created(&vfs.symlink(ctx, o, new_name(name)?, target, &set)?, out);
            }
            Change::MkNod(name, special, set) => {
                self.put_created(&vfs.mknod(ctx, o, new_name(name)?, special, &set)?, out);
            }
            Change::Remove(name) => put_changed(&vfs.remove(ctx, o, old_name(name)?)?, out),
            Change::RmDir(name) => put_changed(&vfs.rmdir(ctx, o, old_name(name)?)?, out),
            Change::Rename(from, to_dir, to) => {
                same_export(o, &to_dir)?;
                let (w1, w2) = vfs.rename(ctx, (o, old_name(from)?), (&to_dir, new_name(to)?))?;
                put_changed(&w1, out);
                w2.put(out);
            }
            Change::Link(dir, name) => {
                same_export(o, &dir)?;
                let (attr, wcc) = vfs.link(ctx, o, &dir, new_name(name)?)?;
                put_ok(out, &attr);
                wcc.put(out);
            }
        }
        Ok(())
    }

    fn getattr(&self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let attr = self.d.vfs.getattr(self.ctx, o)?;
        out.put_u32(0);
        attr.put(out);
        Ok(())
    }

    fn lookup(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let name = self.r.opaque(MAX_NAME_ON_WIRE)?;
        self.first = Some(*o);
        let found = self.d.vfs.lookup(self.ctx, o, checked(name)?)?;
        out.put_u32(0);
        out.put_opaque(self.d.key.seal(&found.object).as_slice());
        put_attr(out, Some(&found.attr));
        put_attr(out, found.dir.as_ref());
        Ok(())
    }

    fn access(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let wanted = self.r.u32()?;
        let (granted, attr) = self.d.vfs.access(self.ctx, o, wanted)?;
        put_ok(out, &attr);
        out.put_u32(granted & wanted);
        Ok(())
    }

    fn readlink(&self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let (target, attr) = self.d.vfs.readlink(self.ctx, o)?;
        put_ok(out, &attr);
        out.put_opaque(&target);
        Ok(())
    }

    /// The result follows the attributes and counts, so their room is taken first and filled after.
    fn read(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        const HEAD: usize = 4 + 4 + Attr::LEN + 4 + 4 + 4;
        let (offset, count) = (self.r.u64()?, self.r.u32()?.min(MAX_TRANSFER));
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

    fn write(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let (offset, count) = (self.r.u64()?, self.r.u32()?);
        let stable = match self.r.u32()? {
            0 => Stable::Unstable,
            1 => Stable::DataSync,
            2 => Stable::FileSync,
            _ => return Err(Fail::Garbage),
        };
        let data = self.r.opaque(MAX_TRANSFER as usize)?;
        if data.len() != count as usize {
            return Err(Fail::Garbage);
        }
        // Linux refuses larger offsets with EINVAL; the RFC has a status for it.
        if offset.checked_add(count.into()).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Status::FBig.into());
        }
        let w = self.d.vfs.write(self.ctx, o, offset, data, stable)?;
        put_changed(&w.file, out);
        out.put_u32(w.count);
        out.put_u32(w.stable as u32);
        out.extend_from_slice(&self.d.vfs.write_verifier());
        Ok(())
    }

    fn readdir(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let (cookie, _verifier, count) = (self.r.u64()?, self.r.verifier()?, self.r.u32()?);
        Ok(crate::readdir::plain(self.d, self.ctx, o, cookie, count, out)?)
    }

    fn readdirplus(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let (cookie, _verifier) = (self.r.u64()?, self.r.verifier()?);
        let (dircount, maxcount) = (self.r.u32()?, self.r.u32()?);
        Ok(crate::readdir::plus(self.d, self.ctx, o, cookie, dircount, maxcount, out)?)
    }

    fn fsstat(&self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let stat = self.d.vfs.fsstat(self.ctx, o)?;
        out.put_u32(0);
        put_attr(out, self.d.vfs.getattr(self.ctx, o).ok().as_ref());
        for v in stat.bytes.into_iter().chain(stat.files) {
            out.put_u64(v);
        }
        out.put_u32(stat.invariant);
        Ok(())
    }

    fn fsinfo(&self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        put_ok(out, &self.d.vfs.getattr(self.ctx, o)?);
        for v in [MAX_TRANSFER, MAX_TRANSFER, 4096, MAX_TRANSFER, MAX_TRANSFER, 4096] {
            out.put_u32(v);
        }
        out.put_u32(PREFERRED_DIRECTORY);
        out.put_u64(i64::MAX as u64);
        Time { sec: 0, nsec: 1 }.put(out);
        out.put_u32(PROPERTIES);
        Ok(())
    }

    fn pathconf(&self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        put_ok(out, &self.d.vfs.getattr(self.ctx, o)?);
        out.put_u32(LINK_MAX);
        out.put_u32(MAX_NAME as u32);
        // no truncation, chown restricted, case sensitive, case preserved
        for v in [true, true, false, true] {
            out.put_bool(v);
        }
        Ok(())
    }

    fn commit(&mut self, o: &Object, out: &mut Vec<u8>) -> Result<(), Fail> {
        let _range = (self.r.u64()?, self.r.u32()?);
        put_changed(&self.d.vfs.commit(self.ctx, o)?, out);
        out.extend_from_slice(&self.d.vfs.write_verifier());
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

/// Begins a result with its status and the file's attributes.
fn put_ok(out: &mut Vec<u8>, attr: &Attr) {
    out.put_u32(0);
    put_attr(out, Some(attr));
}

/// Begins a result with its status and what was changed.
fn put_changed(wcc: &Wcc, out: &mut Vec<u8>) {
    out.put_u32(0);
    wcc.put(out);
}

/// What a symbolic link may lead to.
fn checked_target(target: &[u8]) -> Result<&[u8], Status> {
    if target.len() > MAX_TARGET {
        return Err(Status::NameTooLong);
    }
    if target.is_empty() || target.contains(&0) {
        return Err(Status::Inval);
    }
    Ok(target)
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
