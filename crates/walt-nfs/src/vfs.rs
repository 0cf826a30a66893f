//! What a back end has to offer.

use crate::{
    Attr, CreateHow, FsStat, MountStatus, Object, SetAttr, Special, Stable, Status, Time, Wcc, rpc::Groups,
};
use std::net::Ipv4Addr;

/// Result of an NFS procedure.
pub type Result<T> = std::result::Result<T, Status>;

/// Names one call of one client, whatever connection it comes by. A retransmission has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// Transaction id.
    pub xid: u32,
    /// NFS procedure.
    pub procedure: u32,
    /// Checksum of the arguments: xids of a rebooted client may come again.
    pub checksum: u64,
}

/// The caller, and the identity of the call.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Address of the other end of the connection.
    pub peer: Ipv4Addr,
    /// User id.
    pub uid: u32,
    /// Main group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Groups,
    /// The call.
    pub key: CallKey,
}

/// LOOKUP's result.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The file.
    pub object: Object,
    /// Its attributes.
    pub attr: Attr,
    /// The directory's attributes.
    pub dir: Option<Attr>,
}

/// Result of CREATE, MKDIR, SYMLINK and MKNOD.
#[derive(Debug, Clone, Copy)]
pub struct Created {
    /// The new file.
    pub object: Object,
    /// Its attributes.
    pub attr: Attr,
    /// The directory before and after.
    pub dir: Wcc,
}

/// WRITE's result.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Bytes that were written.
    pub count: u32,
    /// What is promised about them: at least what was asked for.
    pub stable: Stable,
    /// The file before and after.
    pub file: Wcc,
}

/// One name of a directory.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Number of the file.
    pub fileid: u64,
    /// Where a next READDIR goes on, after this name. Never 0.
    pub cookie: u64,
    /// Object and attributes, if they were asked for and are at hand.
    pub plus: Option<(Object, Attr)>,
}

/// End of a directory listing.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// The directory's attributes.
    pub dir: Option<Attr>,
    /// There is no further name.
    pub end: bool,
}

/// The files behind the protocol. Methods may block; the caller decides on which thread they run.
///
/// Every method gets an [`Object`] whose handle had a right MAC, and has to check that the caller may
/// use its view or export: [`Status::Stale`] if not. Names have been checked: 1 to 255 bytes, no `/`,
/// no NUL; `.` and `..` reach only [`Vfs::lookup`].
pub trait Vfs: Send + Sync {
    /// Resolves the path of a MNT call and records that the caller has it.
    ///
    /// # Errors
    /// The status that the client gets.
    fn mount(&self, ctx: &Context, path: &[u8]) -> std::result::Result<Object, MountStatus>;
    /// The client says that it unmounted this path, or all of them. Informational.
    fn unmount(&self, ctx: &Context, path: Option<&[u8]>);
    /// Paths that the caller has mounted. Informational.
    fn mounts(&self, ctx: &Context) -> Vec<Vec<u8>>;
    /// Paths that the caller could mount. Informational.
    fn exports(&self, ctx: &Context) -> Vec<Vec<u8>>;

    /// GETATTR.
    fn getattr(&self, ctx: &Context, object: &Object) -> Result<Attr>;
    /// SETATTR; with a guard only if the file's ctime is still this.
    fn setattr(&self, ctx: &Context, object: &Object, set: &SetAttr, guard: Option<Time>) -> Result<Wcc>;
    /// LOOKUP.
    fn lookup(&self, ctx: &Context, dir: &Object, name: &[u8]) -> Result<Found>;
    /// ACCESS: which of the `wanted` bits the caller has.
    fn access(&self, ctx: &Context, object: &Object, wanted: u32) -> Result<(u32, Attr)>;
    /// READLINK.
    fn readlink(&self, ctx: &Context, object: &Object) -> Result<(Vec<u8>, Attr)>;
    /// READ: appends at most `count` bytes to `out`; true if the file ends there.
    fn read(
        &self,
        ctx: &Context,
        object: &Object,
        offset: u64,
        count: u32,
        out: &mut Vec<u8>,
    ) -> Result<(bool, Attr)>;
    /// WRITE.
    fn write(
        &self,
        ctx: &Context,
        object: &Object,
        offset: u64,
        data: &[u8],
        stable: Stable,
    ) -> Result<Written>;
    /// CREATE.
    fn create(&self, ctx: &Context, dir: &Object, name: &[u8], how: &CreateHow) -> Result<Created>;
    /// MKDIR.
    fn mkdir(&self, ctx: &Context, dir: &Object, name: &[u8], set: &SetAttr) -> Result<Created>;
    /// SYMLINK.
    fn symlink(
        &self,
        ctx: &Context,
        dir: &Object,
        name: &[u8],
        target: &[u8],
        set: &SetAttr,
    ) -> Result<Created>;
    /// MKNOD.
    fn mknod(
        &self,
        ctx: &Context,
        dir: &Object,
        name: &[u8],
        special: Special,
        set: &SetAttr,
    ) -> Result<Created>;
    /// REMOVE.
    fn remove(&self, ctx: &Context, dir: &Object, name: &[u8]) -> Result<Wcc>;
    /// RMDIR.
    fn rmdir(&self, ctx: &Context, dir: &Object, name: &[u8]) -> Result<Wcc>;
    /// RENAME: the directories before and after.
    fn rename(&self, ctx: &Context, from: (&Object, &[u8]), to: (&Object, &[u8])) -> Result<(Wcc, Wcc)>;
    /// LINK: the file's attributes and the directory before and after.
    fn link(&self, ctx: &Context, object: &Object, dir: &Object, name: &[u8]) -> Result<(Attr, Wcc)>;
    /// READDIR and READDIRPLUS: gives names from after `cookie` (0: the first) to `sink` until it answers
    /// false, which means that the last name did not fit and does not count.
    fn readdir(
        &self,
        ctx: &Context,
        dir: &Object,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<Listed>;
    /// FSSTAT.
    fn fsstat(&self, ctx: &Context, object: &Object) -> Result<FsStat>;
    /// COMMIT of the whole file.
    fn commit(&self, ctx: &Context, object: &Object) -> Result<Wcc>;
    /// The verifier of WRITE and COMMIT: differs from the last one if unstable data may have been lost.
    fn write_verifier(&self) -> [u8; 8];

    /// Before a call that must not run twice: the result it had when it ran already.
    fn replay(&self, ctx: &Context, object: &Object) -> Option<Vec<u8>>;
    /// After such a call, before it is answered: its encoded result.
    fn completed(&self, ctx: &Context, object: &Object, result: &[u8]);
    /// After such a call that was answered "try again later": it has no result.
    fn deferred(&self, ctx: &Context, object: &Object);
}
