//! Images over NFS: the entries of a view, read-only.
//!
//! Everything but the bytes of files comes from the view's index in memory; a READ is one `pread` of a
//! file that is usually open already. The number of an entry is its handle, its number plus one is its
//! fileid (below 2^32, so that 32-bit programs without large-file support can list directories), and
//! the cookie of a name is its position in the directory: all are the same after a restart.
//!
//! [`VIEW_LINK`] in the root is not in the image: a symbolic link whose target is the view's id, found by
//! LOOKUP and not listed. A node reads there which view it has booted.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use walt_nfs::vfs::Result;
use walt_nfs::{Attr, Context, DirEntry, FileType, Found, FsStat, Listed, Object, Status, Time, access};
use walt_types::ViewId;

/// Name of the symbolic link whose target is the view's id.
pub const VIEW_LINK: &[u8] = b".walt-view";
/// Its entry number and its fileid: no view has that many entries.
const VIEW_LINK_ENTRY: u32 = u32::MAX;

/// Most files of all views that are kept open. Each costs a descriptor; the least recently read half is
/// closed when it is passed.
pub const MAX_OPEN_FILES: usize = 512;

/// Bytes of a file-system block, for the attribute `used`.
const BLOCK: u64 = 4096;

/// What one entry of a view is.
#[derive(Debug, Clone, Copy)]
pub struct ViewEntry<'a> {
    /// Kind of file.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; of a symbolic link the length of its target.
    pub size: u64,
    /// Last change: seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the last change.
    pub mtime_nsec: u32,
    /// Device numbers: major, minor.
    pub rdev: (u32, u32),
    /// Hard links.
    pub nlink: u32,
    /// Target of a symbolic link.
    pub target: &'a [u8],
    /// Entry number of the first of its names: the entry itself unless it is a further hard link.
    pub first: u32,
}

/// An immutable tree of numbered entries. All methods but [`ReadView::open`] answer from memory.
pub trait ReadView: Send + Sync {
    /// The view's id.
    fn id(&self) -> ViewId;
    /// Number of the root directory.
    fn root(&self) -> u32;
    /// Number of entries.
    fn len(&self) -> u32;
    /// Whether the view has no entries.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The entry `number`, which is below [`ReadView::len`].
    fn entry(&self, number: u32) -> ViewEntry<'_>;
    /// The entry called `name` in a directory.
    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32>;
    /// Name and number of the entry at a position of a directory, from 0, in an order that never changes.
    fn child(&self, dir: u32, position: usize) -> Option<(&[u8], u32)>;
    /// The directory that holds an entry; the root holds itself.
    fn parent(&self, number: u32) -> u32;
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// The store has lost it, or there are too many open files.
    fn open(&self, number: u32) -> io::Result<File>;
}

/// The operations of NFS on views, and the files they keep open.
#[derive(Default)]
pub struct Views {
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    clock: u64,
    files: HashMap<(ViewId, u32), (Arc<File>, u64)>,
}

/// One view and one of its entries, checked.
struct At<'a> {
    view: &'a dyn ReadView,
    number: u32,
}

impl<'a> At<'a> {
    fn new(view: &'a dyn ReadView, number: u32) -> Result<Self> {
        // A good MAC and a number that is out of range: an index of another version.
        if number < view.len() || number == VIEW_LINK_ENTRY {
            Ok(Self { view, number })
        } else {
            Err(Status::Stale)
        }
    }

    fn is_link(&self) -> bool {
        self.number == VIEW_LINK_ENTRY
    }

    fn attr(&self) -> Attr {
        if self.is_link() {
            return Attr { fileid: VIEW_LINK_ENTRY.into(), ..self.view_link() };
        }
        attr(self.view, self.number)
    }

    fn view_link(&self) -> Attr {
        let root = attr(self.view, self.view.root());
        Attr { kind: FileType::Symlink, mode: 0o777, nlink: 1, uid: 0, gid: 0, size: 64, used: 0, ..root }
    }

    fn dir(&self) -> Result<()> {
        let is_dir = !self.is_link() && self.view.entry(self.number).kind == FileType::Directory;
        if is_dir { Ok(()) } else { Err(Status::NotDir) }
    }
}

fn attr(view: &dyn ReadView, number: u32) -> Attr {
    let e = view.entry(number);
    let time = Time::new(e.mtime, e.mtime_nsec);
    let id = view.id().0.0;
    Attr {
        kind: e.kind,
        mode: e.mode & 0o7777,
        nlink: e.nlink,
        uid: e.uid,
        gid: e.gid,
        size: e.size,
        used: e.size.next_multiple_of(BLOCK),
        rdev: e.rdev,
        fsid: u64::from_be_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]),
        fileid: u64::from(e.first) + 1,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

fn object(view: &dyn ReadView, number: u32) -> Object {
    Object::View { view: view.id(), entry: number }
}

/// The attributes and, where two names are one file, the number of the file.
fn found(view: &dyn ReadView, number: u32) -> (Object, Attr) {
    let attr = attr(view, number);
    // fileid is number + 1 by construction, so this is below 2^32.
    (object(view, (attr.fileid - 1) as u32), attr)
}

fn allowed(ctx: &Context, attr: &Attr) -> u32 {
    attr.allowed(ctx.uid, ctx.gid, ctx.groups.as_slice())
}

impl Views {
    /// GETATTR.
    pub fn getattr(&self, view: &dyn ReadView, number: u32) -> Result<Attr> {
        Ok(At::new(view, number)?.attr())
    }

    /// ACCESS: nobody may change a view, whatever the mode says.
    pub fn access(&self, ctx: &Context, view: &dyn ReadView, number: u32) -> Result<(u32, Attr)> {
        let attr = At::new(view, number)?.attr();
        Ok((allowed(ctx, &attr) & (access::READ | access::LOOKUP | access::EXECUTE), attr))
    }

    /// LOOKUP. `..` of the root is the root.
    pub fn lookup(&self, ctx: &Context, view: &dyn ReadView, number: u32, name: &[u8]) -> Result<Found> {
        let at = At::new(view, number)?;
        at.dir()?;
        let dir = at.attr();
        if allowed(ctx, &dir) & access::LOOKUP == 0 {
            return Err(Status::Access);
        }
        let (object, attr) = match name {
            b"." => found(view, number),
            b".." => found(view, view.parent(number)),
            VIEW_LINK if number == view.root() => {
                let link = At::new(view, VIEW_LINK_ENTRY)?;
                (object(view, VIEW_LINK_ENTRY), link.attr())
            }
            _ => found(view, view.lookup(number, name).ok_or(Status::NoEnt)?),
        };
        Ok(Found { object, attr, dir: Some(dir) })
    }

    /// READLINK.
    pub fn readlink(&self, view: &dyn ReadView, number: u32) -> Result<(Vec<u8>, Attr)> {
        let at = At::new(view, number)?;
        let attr = at.attr();
        if attr.kind != FileType::Symlink {
            return Err(Status::Inval);
        }
        let target = if at.is_link() {
            view.id().to_string().into_bytes()
        } else {
            view.entry(number).target.to_vec()
        };
        Ok((target, attr))
    }

    /// READ: one `pread`.
    pub fn read(
        &self,
        ctx: &Context,
        view: &dyn ReadView,
        number: u32,
        offset: u64,
        count: u32,
        out: &mut Vec<u8>,
    ) -> Result<(bool, Attr)> {
        let attr = At::new(view, number)?.attr();
        match attr.kind {
            FileType::Regular => {}
            FileType::Directory => return Err(Status::IsDir),
            _ => return Err(Status::Inval),
        }
        super::may_read(ctx, &attr)?;
        let count = u64::from(count).min(attr.size.saturating_sub(offset));
        if count > 0 {
            let file = self.file(view, number).map_err(|error| {
                tracing::error!(view = %view.id(), entry = number, %error, "cannot open a file of a view");
                super::status(&error)
            })?;
            read_exactly(&file, offset, count as usize, out).map_err(|error| {
                tracing::error!(view = %view.id(), entry = number, %error, "cannot read a file of a view");
                super::status(&error)
            })?;
        }
        Ok((offset.saturating_add(count) >= attr.size, attr))
    }

    /// READDIR. Cookies: 1 after `.`, 2 after `..`, position + 3 after a name.
    pub fn readdir(
        &self,
        ctx: &Context,
        view: &dyn ReadView,
        number: u32,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<Listed> {
        let at = At::new(view, number)?;
        at.dir()?;
        let dir = at.attr();
        if allowed(ctx, &dir) & access::READ == 0 {
            return Err(Status::Access);
        }
        let mut emit = |name: &[u8], number: u32, cookie: u64| {
            let (object, attr) = found(view, number);
            sink(&DirEntry { name, fileid: attr.fileid, cookie, plus: plus.then_some((object, attr)) })
        };
        let more = Listed { dir: Some(dir), end: false };
        if cookie == 0 && !emit(b".", number, 1) {
            return Ok(more);
        }
        if cookie <= 1 && !emit(b"..", view.parent(number), 2) {
            return Ok(more);
        }
        let Ok(mut position) = usize::try_from(cookie.saturating_sub(2)) else {
            return Err(Status::BadCookie);
        };
        while let Some((name, child)) = view.child(number, position) {
            if !emit(name, child, position as u64 + 3) {
                return Ok(more);
            }
            position += 1;
        }
        Ok(Listed { dir: Some(dir), end: true })
    }

    /// FSSTAT: a full file system that never changes.
    pub fn fsstat(&self, view: &dyn ReadView) -> FsStat {
        FsStat { bytes: [0; 3], files: [view.len().into(), 0, 0], invariant: u32::MAX }
    }

    fn file(&self, view: &dyn ReadView, number: u32) -> io::Result<Arc<File>> {
        let key = (view.id(), number);
        {
            let mut open = self.open.lock();
            open.clock += 1;
            let now = open.clock;
            if let Some((file, used)) = open.files.get_mut(&key) {
                *used = now;
                return Ok(file.clone());
            }
        }
        // Opened without the lock: the disk may be slow. Two at a time give two files, one is dropped.
        let file = Arc::new(view.open(number)?);
        let mut open = self.open.lock();
        if open.files.len() >= MAX_OPEN_FILES {
            let mut times: Vec<u64> = open.files.values().map(|(_, used)| *used).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            open.files.retain(|_, (_, used)| *used > median);
        }
        let now = open.clock;
        open.files.insert(key, (file.clone(), now));
        Ok(file)
    }
}

/// Appends `count` bytes that the index says are there.
fn read_exactly(file: &File, offset: u64, count: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.resize(start + count, 0);
    file.read_exact_at(&mut out[start..], offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view of files only, each the same.
    struct Files;

    impl ReadView for Files {
        fn id(&self) -> ViewId {
            ViewId(walt_types::Hash256([0; 32]))
        }
        fn root(&self) -> u32 {
            unreachable!("only files are opened")
        }
        fn len(&self) -> u32 {
            u32::MAX
        }
        fn entry(&self, _: u32) -> ViewEntry<'_> {
            unreachable!("only files are opened")
        }
        fn lookup(&self, _: u32, _: &[u8]) -> Option<u32> {
            unreachable!("only files are opened")
        }
        fn child(&self, _: u32, _: usize) -> Option<(&[u8], u32)> {
            unreachable!("only files are opened")
        }
        fn parent(&self, _: u32) -> u32 {
            unreachable!("only files are opened")
        }
        fn open(&self, _: u32) -> io::Result<File> {
            File::open("/dev/null")
        }
    }

    #[test]
    fn open_files_are_bounded_and_those_in_use_stay() {
        let views = Views::default();
        let first = views.file(&Files, 0).unwrap();
        for n in 1..=MAX_OPEN_FILES as u32 {
            views.file(&Files, n).unwrap();
            assert!(Arc::ptr_eq(&first, &views.file(&Files, 0).unwrap()), "closed after {n}");
            assert!(views.open.lock().files.len() <= MAX_OPEN_FILES);
        }
        let open = views.open.lock().files.len();
        assert!(open <= MAX_OPEN_FILES / 2 + 1, "the older half is closed: {open}");
    }
}
