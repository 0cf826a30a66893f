//! A back end that writes down what it is asked for, and gives results that are known to the word.

use std::sync::Mutex;
use walt_nfs::vfs::Result;
use walt_nfs::*;
use walt_types::{Hash256, ViewId};

/// `fattr3` of [`attr`], but for the number of the file, which is 3 words from its end.
pub const ATTR: [u32; 21] = [5, 0o640, 3, 1000, 100, 1, 2, 0, 0x2000, 8, 1, 0, 7, 0, 40, 10, 1, 20, 2, 30, 3];
/// `wcc_data` of [`WCC`].
pub const WCC_WORDS: [u32; 29] = [
    1, 0, 99, 21, 1, 31, 2, 1, 5, 0o640, 3, 1000, 100, 1, 2, 0, 0x2000, 8, 1, 0, 7, 0, 40, 10, 1, 20, 2, 30,
    3,
];
const WCC: Wcc = Wcc {
    before: Some(Before { size: 99, mtime: Time { sec: 21, nsec: 1 }, ctime: Time { sec: 31, nsec: 2 } }),
    after: Some(attr(40)),
};

const fn attr(fileid: u64) -> Attr {
    Attr {
        kind: FileType::Symlink,
        mode: 0o640,
        nlink: 3,
        uid: 1000,
        gid: 100,
        size: 0x1_0000_0002,
        used: 0x2000,
        rdev: (8, 1),
        fsid: 7,
        fileid,
        atime: Time { sec: 10, nsec: 1 },
        mtime: Time { sec: 20, nsec: 2 },
        ctime: Time { sec: 30, nsec: 3 },
    }
}

/// An entry of a view.
pub fn view(id: u8, entry: u32) -> Object {
    Object::View { view: ViewId(Hash256([id; 32])), entry }
}

/// A file of an export.
pub fn persist(export: u64) -> Object {
    Object::Persist { export, file: KernelHandle::new(1, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap() }
}

/// The directory that most calls are about.
pub fn dir() -> Object {
    view(9, 1)
}

/// A back end that writes down what it is asked for.
#[derive(Default)]
pub struct Recorder {
    /// What it was asked for, in order.
    pub asked: Mutex<Vec<String>>,
    /// What every call is answered, if it fails; GETATTR works after "no such name".
    pub failure: Option<Status>,
    /// A result that is kept for every call that must not run twice.
    pub kept: Option<Vec<u8>>,
    /// Whether a directory is said to end behind its second name.
    pub end: bool,
    /// Whether it does not say what a directory's attributes are.
    pub bare: bool,
}

impl Recorder {
    fn ask<T>(&self, call: String, result: T) -> Result<T> {
        self.asked.lock().unwrap().push(call);
        self.failure.map_or(Ok(result), Err)
    }
    fn created(&self, call: String) -> Result<Created> {
        self.ask(call, Created { object: view(9, 7), attr: attr(40), dir: WCC })
    }
}

/// An object as the record has it.
fn name(o: &Object) -> String {
    match o {
        Object::View { view, entry } => format!("view{}/{entry}", view.0.0[0]),
        Object::Persist { export, .. } => format!("persist{export}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Vfs for Recorder {
    fn mount(&self, _: &Context, path: &[u8]) -> std::result::Result<Object, MountStatus> {
        self.asked.lock().unwrap().push(format!("mount {}", text(path)));
        Ok(dir())
    }
    fn unmount(&self, _: &Context, path: Option<&[u8]>) {
        self.asked.lock().unwrap().push(format!("unmount {:?}", path.map(text)));
    }
    fn mounts(&self, _: &Context) -> Vec<Vec<u8>> {
        vec![b"/a".to_vec(), b"/mount".to_vec()]
    }
    fn exports(&self, _: &Context) -> Vec<Vec<u8>> {
        vec![b"/b".to_vec()]
    }
    fn getattr(&self, c: &Context, o: &Object) -> Result<Attr> {
        let call = format!("getattr {} {} {} {:?}", name(o), c.uid, c.gid, c.groups.as_slice());
        match self.ask(call, attr(40)) {
            Err(status) if status != Status::NoEnt => Err(status),
            _ => Ok(attr(40)),
        }
    }
    fn setattr(&self, _: &Context, o: &Object, set: &SetAttr, guard: Option<Time>) -> Result<Wcc> {
        self.ask(format!("setattr {} {set:?} {guard:?}", name(o)), WCC)
    }
    fn lookup(&self, _: &Context, dir: &Object, n: &[u8]) -> Result<Found> {
        let found = Found { object: view(9, 7), attr: attr(40), dir: Some(attr(41)) };
        self.ask(format!("lookup {} {}", name(dir), text(n)), found)
    }
    fn access(&self, _: &Context, o: &Object, wanted: u32) -> Result<(u32, Attr)> {
        self.ask(format!("access {} {wanted:#x}", name(o)), (0x3b, attr(40)))
    }
    fn readlink(&self, _: &Context, o: &Object) -> Result<(Vec<u8>, Attr)> {
        self.ask(format!("readlink {}", name(o)), (b"/etc/x".to_vec(), attr(40)))
    }
    fn read(&self, _: &Context, o: &Object, at: u64, count: u32, out: &mut Vec<u8>) -> Result<(bool, Attr)> {
        out.extend_from_slice(b"hello");
        self.ask(format!("read {} {at} {count}", name(o)), (self.end, attr(40)))
    }
    fn write(&self, _: &Context, o: &Object, at: u64, data: &[u8], stable: Stable) -> Result<Written> {
        let written = Written { count: 3, stable: Stable::FileSync, file: WCC };
        self.ask(format!("write {} {at} {} {stable:?}", name(o), text(data)), written)
    }
    fn create(&self, _: &Context, o: &Object, n: &[u8], how: &CreateHow) -> Result<Created> {
        self.created(format!("create {} {} {how:?}", name(o), text(n)))
    }
    fn mkdir(&self, _: &Context, o: &Object, n: &[u8], set: &SetAttr) -> Result<Created> {
        self.created(format!("mkdir {} {} {set:?}", name(o), text(n)))
    }
    fn symlink(&self, _: &Context, o: &Object, n: &[u8], target: &[u8], set: &SetAttr) -> Result<Created> {
        self.created(format!("symlink {} {} {} {set:?}", name(o), text(n), text(target)))
    }
    fn mknod(&self, _: &Context, o: &Object, n: &[u8], special: Special, set: &SetAttr) -> Result<Created> {
        self.created(format!("mknod {} {} {special:?} {set:?}", name(o), text(n)))
    }
    fn remove(&self, _: &Context, o: &Object, n: &[u8]) -> Result<Wcc> {
        self.ask(format!("remove {} {}", name(o), text(n)), WCC)
    }
    fn rmdir(&self, _: &Context, o: &Object, n: &[u8]) -> Result<Wcc> {
        self.ask(format!("rmdir {} {}", name(o), text(n)), WCC)
    }
    fn rename(&self, _: &Context, from: (&Object, &[u8]), to: (&Object, &[u8])) -> Result<(Wcc, Wcc)> {
        let call = format!("rename {} {} {} {}", name(from.0), text(from.1), name(to.0), text(to.1));
        self.ask(call, (WCC, Wcc::default()))
    }
    fn link(&self, _: &Context, o: &Object, dir: &Object, n: &[u8]) -> Result<(Attr, Wcc)> {
        self.ask(format!("link {} {} {}", name(o), name(dir), text(n)), (attr(40), WCC))
    }
    fn readdir(
        &self,
        _: &Context,
        dir: &Object,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<Listed> {
        let first = plus.then_some((view(9, 7), attr(40)));
        let _all = sink(&DirEntry { name: b"a", fileid: 40, cookie: 5, plus: first })
            && sink(&DirEntry { name: b"bcdef", fileid: 1 << 32, cookie: 6, plus: None });
        let listed = Listed { dir: (!self.bare).then_some(attr(41)), end: self.end };
        self.ask(format!("readdir {} {cookie} {plus}", name(dir)), listed)
    }
    fn fsstat(&self, _: &Context, o: &Object) -> Result<FsStat> {
        let stat = FsStat { bytes: [1 << 32, 2, 3], files: [4, 5, 6], invariant: 7 };
        self.ask(format!("fsstat {}", name(o)), stat)
    }
    fn commit(&self, _: &Context, o: &Object) -> Result<Wcc> {
        self.ask(format!("commit {}", name(o)), WCC)
    }
    fn write_verifier(&self) -> [u8; 8] {
        [0, 0, 0, 8, 0, 0, 0, 9]
    }
    fn replay(&self, _: &Context, o: &Object) -> Option<Vec<u8>> {
        self.asked.lock().unwrap().push(format!("replay {}", name(o)));
        self.kept.clone()
    }
    fn completed(&self, _: &Context, o: &Object, result: &[u8]) {
        let status = u32::from_be_bytes(*result.first_chunk().unwrap());
        self.asked.lock().unwrap().push(format!("completed {} {status}", name(o)));
    }
    fn deferred(&self, _: &Context, o: &Object) {
        self.asked.lock().unwrap().push(format!("deferred {}", name(o)));
    }
}
