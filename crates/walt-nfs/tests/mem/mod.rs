//! A small tree in memory, for tests of the protocol and for the fuzzer: no disk, no clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use walt_nfs::vfs::Result;
use walt_nfs::*;
use walt_types::{Hash256, ViewId};

/// Its only view.
pub const VIEW: ViewId = ViewId(Hash256([9; 32]));
/// Key of its handles.
pub const SECRET: [u8; 16] = [5; 16];

/// A directory (entry 0) of `names` files (entries 1..), each with its own number as content.
pub struct Mem {
    /// Number of files.
    pub names: u32,
    /// How often the tree was asked for an object.
    pub asked: AtomicUsize,
    stored: Mutex<Option<(CallKey, Vec<u8>)>>,
}

/// Attributes of an entry.
pub fn attr(n: u32) -> Attr {
    Attr {
        kind: if n == 0 { FileType::Directory } else { FileType::Regular },
        mode: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 4,
        used: 4,
        rdev: (0, 0),
        fsid: 1,
        fileid: u64::from(n) + 1,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
    }
}
/// An entry as an object.
pub fn object(entry: u32) -> Object {
    Object::View { view: VIEW, entry }
}
impl Mem {
    fn entry(&self, o: &Object) -> Result<u32> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match o {
            Object::View { entry, .. } if *entry <= self.names => Ok(*entry),
            _ => Err(Status::Stale),
        }
    }
}

impl Vfs for Mem {
    fn mount(&self, _: &Context, path: &[u8]) -> std::result::Result<Object, MountStatus> {
        if path == b"/x" { Ok(object(0)) } else { Err(MountStatus::NoEnt) }
    }
    fn unmount(&self, _: &Context, _: Option<&[u8]>) {}
    fn mounts(&self, _: &Context) -> Vec<Vec<u8>> {
        vec![b"/x".to_vec()]
    }
    fn exports(&self, _: &Context) -> Vec<Vec<u8>> {
        vec![b"/x".to_vec()]
    }
    fn getattr(&self, _: &Context, o: &Object) -> Result<Attr> {
        self.entry(o).map(attr)
    }
    fn setattr(&self, _: &Context, o: &Object, _: &SetAttr, _: Option<Time>) -> Result<Wcc> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn lookup(&self, _: &Context, dir: &Object, name: &[u8]) -> Result<Found> {
        let dir = self.entry(dir)?;
        let n = std::str::from_utf8(name).ok().and_then(|s| s.strip_prefix("file")?.parse().ok());
        match n {
            Some(n) if n <= self.names && n > 0 => {
                Ok(Found { object: object(n), attr: attr(n), dir: Some(attr(dir)) })
            }
            _ => Err(Status::NoEnt),
        }
    }
    fn access(&self, c: &Context, o: &Object, _: u32) -> Result<(u32, Attr)> {
        let a = attr(self.entry(o)?);
        Ok((a.allowed(c.uid, c.gid, c.groups.as_slice()), a))
    }
    fn readlink(&self, _: &Context, o: &Object) -> Result<(Vec<u8>, Attr)> {
        self.entry(o).and(Err(Status::Inval))
    }
    fn read(&self, _: &Context, o: &Object, off: u64, n: u32, out: &mut Vec<u8>) -> Result<(bool, Attr)> {
        let e = self.entry(o)?;
        let data = e.to_be_bytes();
        let from = data.len().min(off as usize);
        let to = data.len().min(from + n as usize);
        out.extend_from_slice(&data[from..to]);
        Ok((to == data.len(), attr(e)))
    }
    fn write(&self, _: &Context, o: &Object, _: u64, _: &[u8], _: Stable) -> Result<Written> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn create(&self, _: &Context, o: &Object, _: &[u8], _: &CreateHow) -> Result<Created> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn mkdir(&self, _: &Context, o: &Object, _: &[u8], _: &SetAttr) -> Result<Created> {
        self.entry(o)?;
        Ok(Created { object: object(1), attr: attr(1), dir: Wcc::default() })
    }
    fn symlink(&self, _: &Context, o: &Object, _: &[u8], _: &[u8], _: &SetAttr) -> Result<Created> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn mknod(&self, _: &Context, o: &Object, _: &[u8], _: Special, _: &SetAttr) -> Result<Created> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn remove(&self, _: &Context, o: &Object, _: &[u8]) -> Result<Wcc> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn rmdir(&self, _: &Context, o: &Object, _: &[u8]) -> Result<Wcc> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn rename(&self, _: &Context, o: (&Object, &[u8]), _: (&Object, &[u8])) -> Result<(Wcc, Wcc)> {
        self.entry(o.0).and(Err(Status::RoFs))
    }
    fn link(&self, _: &Context, o: &Object, _: &Object, _: &[u8]) -> Result<(Attr, Wcc)> {
        self.entry(o).and(Err(Status::RoFs))
    }
    fn readdir(
        &self,
        _: &Context,
        dir: &Object,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<Listed> {
        if self.entry(dir)? != 0 {
            return Err(Status::NotDir);
        }
        let first = u32::try_from(cookie).map_or(self.names, |c| c.min(self.names)) + 1;
        for n in first..=self.names {
            let name = format!("file{n}");
            let plus = plus.then(|| (object(n), attr(n)));
            let (fileid, cookie) = (u64::from(n) + 1, n.into());
            if !sink(&DirEntry { name: name.as_bytes(), fileid, cookie, plus }) {
                return Ok(Listed { dir: Some(attr(0)), end: false });
            }
        }
        Ok(Listed { dir: Some(attr(0)), end: true })
    }
    fn fsstat(&self, _: &Context, o: &Object) -> Result<FsStat> {
        self.entry(o).map(|_| FsStat::default())
    }
    fn commit(&self, _: &Context, o: &Object) -> Result<Wcc> {
        self.entry(o).map(|_| Wcc::default())
    }
    fn write_verifier(&self) -> [u8; 8] {
        *b"verifier"
    }
    fn replay(&self, ctx: &Context, _: &Object) -> Option<Vec<u8>> {
        let stored = self.stored.lock().unwrap();
        stored.as_ref().filter(|(k, _)| *k == ctx.key).map(|(_, r)| r.clone())
    }
    fn completed(&self, ctx: &Context, _: &Object, result: &[u8]) {
        *self.stored.lock().unwrap() = Some((ctx.key, result.to_vec()));
    }
    fn deferred(&self, _: &Context, _: &Object) {}
}

/// Serves a tree of so many files.
pub fn dispatcher(names: u32) -> Dispatcher<Mem> {
    let mem = Mem { names, asked: AtomicUsize::new(0), stored: Mutex::new(None) };
    Dispatcher::new(mem, HandleKey::new(&SECRET), portmap::one_port(2049))
}
