//! NFS for nodes: the two back ends of `walt-nfs` and the sockets in front of it.
//!
//! ```text
//!  serve    TCP and UDP sockets, threads ──► walt_nfs::Dispatcher ──► Backend (here)
//!                                                                     │ asks Exports on every call
//!                                              view: images ◄─────────┼─────────► persist: /persist
//!                                              index + pread          │           open by handle,
//!                                                                     │           as the caller
//!                                                                     └─────────── ring: intents and
//!                                                                                  replies on the disk
//! ```
//! Files, all below the directory [`Config::dir`]: `secret` (the key of file handles, 0600: whoever has
//! it can name any file of the server's file system), `epoch` (counts lost writes, see [`persist`]) and
//! `<export>.ring` (see [`ring`]).

mod fail_points;
mod kernel;
pub mod operations;
pub mod persist;
pub mod ring;
pub mod serve;
pub mod view;

use fail_points::Point;
use parking_lot::Mutex;
use persist::Persist;
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use view::{ReadView, Views};
use walt_nfs::vfs::Result;
use walt_nfs::{
    Attr, Context, CreateHow, Created, DirEntry, FileType, Found, FsStat, HandleKey, Listed, MountStatus,
    Object, SetAttr, Special, Stable, Status, Time, Vfs, Wcc, Written, access, handle::SECRET_LEN,
};
use walt_types::ViewId;

pub use persist::Durability;
pub use serve::Server;

/// Where the paths of exports start. Published images have it built in.
pub const NODES: &str = "/var/lib/walt/nodes/";
/// Most mounts remembered for DUMP: per node, and nodes.
const MAX_MOUNTS: (usize, usize) = (8, 4096);

/// What a MNT path names under a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// `…/fs`: the node's image.
    View,
    /// `…/persist`: the node's own directory.
    Persist,
}

/// What a node gets mounted.
pub enum Export {
    /// An image.
    View(Arc<dyn ReadView>),
    /// A directory of the server.
    Persist {
        /// Names the export in handles and files: never used again for another directory.
        export_id: u64,
        /// The directory, which exists.
        dir: PathBuf,
    },
}

/// Why a MNT call is refused.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No such node, or the node has no such export.
    #[error("no such export")]
    NotFound,
    /// The export belongs to another node.
    #[error("the export belongs to another node")]
    Denied,
    /// The server could not do it; the text goes to the log.
    #[error("{0}")]
    Failed(String),
}

/// What the server knows about nodes. Asked on every call, so answers come from memory.
pub trait Exports: Send + Sync {
    /// Resolves `/var/lib/walt/nodes/<node>/{fs,persist}` for the node at `peer`; `node` is a MAC address with
    /// colons or dashes, an IP address or a name. A view's grant is durable before this returns.
    ///
    /// # Errors
    /// See [`MountError`].
    fn mount(&self, peer: Ipv4Addr, node: &str, what: MountKind) -> std::result::Result<Export, MountError>;
    /// The view, if the node at `peer` may read it.
    ///
    /// # Errors
    /// [`Status::Stale`] if it may not; [`Status::Jukebox`] if that cannot be decided now: a node
    /// reboots when it learns that its root is gone.
    fn view(&self, peer: Ipv4Addr, view: &ViewId) -> Result<Arc<dyn ReadView>>;
    /// The directory of an export, if the node at `peer` may use it.
    ///
    /// # Errors
    /// As [`Self::view`].
    fn persist(&self, peer: Ipv4Addr, export_id: u64) -> Result<PathBuf>;
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for the secret, the epoch and the rings: made if absent, 0700. On the file system of the
    /// `/persist` directories.
    pub dir: PathBuf,
    /// What an answered metadata call of `/persist` has survived.
    pub durability: Durability,
    /// How COMMIT makes the data of a file durable: [`std::fs::File::sync_data`], or a test's disk that fails.
    pub sync_data: fn(&std::fs::File) -> io::Result<()>,
    /// Only callers with a port below 1024 may use NFS. A user of a node who is not root cannot take such
    /// a port, and so cannot claim to be another user. False is for tests.
    pub reserved_ports_only: bool,
    /// What the port mapper answers; see [`walt_nfs::portmap::one_port`].
    pub mappings: Vec<walt_nfs::portmap::Mapping>,
    /// [`serve::Limits::default`] but in tests.
    pub limits: serve::Limits,
}

/// Why NFS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file of [`Config::dir`] or on a socket failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A file has not the content that we gave it.
    #[error("{0} is damaged: restore it from a backup, or remove it and reboot all nodes")]
    Damaged(PathBuf),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The status for an error of the kernel.
fn status(error: &io::Error) -> Status {
    use rustix::io::Errno as E;
    let Some(errno) = error.raw_os_error().map(E::from_raw_os_error) else {
        return Status::Io;
    };
    match errno {
        E::PERM => Status::Perm,
        E::NOENT => Status::NoEnt,
        E::NXIO => Status::NxIo,
        E::ACCESS => Status::Access,
        E::EXIST => Status::Exist,
        E::XDEV => Status::XDev,
        E::NODEV => Status::NoDev,
        E::NOTDIR => Status::NotDir,
        E::ISDIR => Status::IsDir,
        E::INVAL => Status::Inval,
        E::FBIG => Status::FBig,
        E::NOSPC => Status::NoSpc,
        E::ROFS => Status::RoFs,
        E::MLINK => Status::MLink,
        E::NAMETOOLONG => Status::NameTooLong,
        // A symbolic link where O_NOFOLLOW met one: the client should have followed it itself.
        E::LOOP => Status::Inval,
        E::NOTEMPTY => Status::NotEmpty,
        E::DQUOT => Status::DQuot,
        E::STALE => Status::Stale,
        E::OPNOTSUPP | E::NOSYS => Status::NotSupp,
        // Passing shortages: the client tries again.
        E::MFILE | E::NFILE | E::NOMEM | E::AGAIN | E::BUSY => Status::Jukebox,
        _ => Status::Io,
    }
}

/// Whether a caller may read a file: by its mode; or as its owner, who may have opened it before the mode
/// was changed; or to execute it, for which a client has to read it.
fn may_read(ctx: &Context, attr: &Attr) -> Result<()> {
    let allowed = attr.allowed(ctx.uid, ctx.gid, ctx.groups.as_slice());
    if allowed & (access::READ | access::EXECUTE) != 0 || ctx.uid == attr.uid {
        Ok(())
    } else {
        Err(Status::Access)
    }
}

/// A MNT path, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct MountPath<'a> {
    node: &'a str,
    what: MountKind,
    /// Names below the export's root.
    below: Vec<&'a str>,
}

impl<'a> MountPath<'a> {
    fn parse(path: &'a [u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let mut parts = path.strip_prefix(NODES)?.split('/').filter(|p| !p.is_empty());
        let (node, what) = (parts.next()?, parts.next()?);
        let what = match what {
            "fs" => MountKind::View,
            "persist" => MountKind::Persist,
            _ => return None,
        };
        let below: Vec<_> = parts.collect();
        let dots = |p: &str| matches!(p, "." | "..");
        if dots(node) || below.iter().any(|p| dots(p)) { None } else { Some(Self { node, what, below }) }
    }
}

/// Reads the secret of file handles, or makes it. It has to live as long as any handle of any node.
fn secret(dir: &Path) -> std::result::Result<[u8; SECRET_LEN], Error> {
    let path = dir.join("secret");
    match std::fs::read(&path) {
        Ok(bytes) => return bytes.try_into().map_err(|_| Error::Damaged(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(format!("read {}", path.display()))(e)),
    }
    let mut bytes = [0; SECRET_LEN];
    getrandom::fill(&mut bytes).map_err(|e| {
        Error::io("get random bytes for the secret of file handles")(io::Error::other(e.to_string()))
    })?;
    replace(&path, &bytes).map_err(Error::io(format!("write {}", path.display())))?;
    Ok(bytes)
}

/// Replaces a file so that a crash leaves the old or the new content.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes [`Config::dir`].
fn make_dir(dir: &Path) -> std::result::Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io(format!("make {}", dir.display())))
}

/// Joins the two back ends by the kind of the object.
pub struct Backend {
    exports: Arc<dyn Exports>,
    views: Views,
    persist: Persist,
    mounted: Mutex<HashMap<Ipv4Addr, Vec<Vec<u8>>>>,
}

impl Backend {
    fn new(exports: Arc<dyn Exports>, config: &Config) -> std::result::Result<Self, Error> {
        Ok(Self {
            exports,
            views: Views::default(),
            persist: Persist::new(&config.dir, config.durability, config.sync_data)?,
            mounted: Mutex::default(),
        })
    }

    /// See [`Persist::sweep`].
    fn sweep(&self, export_id: u64, dir: &Path, before: i64) -> Result<persist::Swept> {
        let x = self.persist.export(export_id, dir)?;
        self.persist.sweep(&x, before)
    }

    fn view(&self, ctx: &Context, view: &ViewId) -> Result<Arc<dyn ReadView>> {
        self.exports.view(ctx.peer, view)
    }

    fn export(&self, ctx: &Context, export: u64) -> Result<Arc<persist::Export>> {
        let dir = self.exports.persist(ctx.peer, export)?;
        self.persist.export(export, &dir)
    }

    /// The export and kernel handle of an object that a call wants to change.
    fn writable(&self, ctx: &Context, o: &Object) -> Result<(Arc<persist::Export>, walt_nfs::KernelHandle)> {
        match o {
            Object::View { view, .. } => self.view(ctx, view).and(Err(Status::RoFs)),
            Object::Persist { export, file } => Ok((self.export(ctx, *export)?, *file)),
        }
    }
}

impl Vfs for Backend {
    fn mount(&self, ctx: &Context, path: &[u8]) -> std::result::Result<Object, MountStatus> {
        let parsed = MountPath::parse(path).ok_or(MountStatus::NoEnt)?;
        let export = self.exports.mount(ctx.peer, parsed.node, parsed.what).map_err(|error| {
            tracing::info!(peer = %ctx.peer, path = %String::from_utf8_lossy(path), %error, "mount refused");
            match error {
                MountError::NotFound => MountStatus::NoEnt,
                MountError::Denied => MountStatus::Access,
                MountError::Failed(_) => MountStatus::ServerFault,
            }
        })?;
        let mut object = match export {
            Export::View(view) => Object::View { view: view.id(), entry: view.root() },
            Export::Persist { export_id, dir } => self.persist.root(export_id, &dir).map_err(|error| {
                tracing::error!(dir = %dir.display(), %error, "cannot open the directory of an export");
                MountStatus::ServerFault
            })?,
        };
        // A directory below may be mounted, as elsewhere. The caller of MNT is often nobody, and gets no more
        // than a handle: what it may do with it is checked then.
        let root_user = Context { uid: 0, gid: 0, ..*ctx };
        for name in parsed.below {
            let found = Vfs::lookup(self, &root_user, &object, name.as_bytes()).map_err(|e| match e {
                Status::NoEnt | Status::NotDir => MountStatus::NoEnt,
                _ => MountStatus::Io,
            })?;
            if found.attr.kind != FileType::Directory {
                return Err(MountStatus::NoEnt);
            }
            object = found.object;
        }
        let mut mounted = self.mounted.lock();
        if mounted.len() < MAX_MOUNTS.1 || mounted.contains_key(&ctx.peer) {
            let paths = mounted.entry(ctx.peer).or_default();
            paths.retain(|p| p != path);
            paths.truncate(MAX_MOUNTS.0 - 1);
            paths.push(path.to_vec());
        }
        Ok(object)
    }

    fn unmount(&self, ctx: &Context, path: Option<&[u8]>) {
        let mut mounted = self.mounted.lock();
        match (path, mounted.get_mut(&ctx.peer)) {
            (Some(path), Some(paths)) => paths.retain(|p| p != path),
            _ => drop(mounted.remove(&ctx.peer)),
        }
    }

    fn mounts(&self, ctx: &Context) -> Vec<Vec<u8>> {
        let mounted = self.mounted.lock();
        mounted.get(&ctx.peer).cloned().unwrap_or_default()
    }

    fn exports(&self, ctx: &Context) -> Vec<Vec<u8>> {
        ["fs", "persist"].map(|what| format!("{NODES}{}/{what}", ctx.peer).into_bytes()).to_vec()
    }

    fn getattr(&self, ctx: &Context, o: &Object) -> Result<Attr> {
        match o {
            Object::View { view, entry } => self.views.getattr(&*self.view(ctx, view)?, *entry),
            Object::Persist { export, file } => self.persist.getattr(&*self.export(ctx, *export)?, file),
        }
    }

    fn setattr(&self, ctx: &Context, o: &Object, set: &SetAttr, guard: Option<Time>) -> Result<Wcc> {
        let (x, file) = self.writable(ctx, o)?;
        self.persist.setattr(ctx, &x, &file, set, guard)
    }

    fn lookup(&self, ctx: &Context, dir: &Object, name: &[u8]) -> Result<Found> {
        match dir {
            Object::View { view, entry } => self.views.lookup(ctx, &*self.view(ctx, view)?, *entry, name),
            Object::Persist { export, file } => {
                self.persist.lookup(ctx, &*self.export(ctx, *export)?, file, name)
            }
        }
    }

    fn access(&self, ctx: &Context, o: &Object, _wanted: u32) -> Result<(u32, Attr)> {
        match o {
            Object::View { view, entry } => self.views.access(ctx, &*self.view(ctx, view)?, *entry),
            Object::Persist { export, file } => {
                let attr = self.persist.getattr(&*self.export(ctx, *export)?, file)?;
                Ok((attr.allowed(ctx.uid, ctx.gid, ctx.groups.as_slice()), attr))
            }
        }
    }

    fn readlink(&self, ctx: &Context, o: &Object) -> Result<(Vec<u8>, Attr)> {
        match o {
            Object::View { view, entry } => self.views.readlink(&*self.view(ctx, view)?, *entry),
            Object::Persist { export, file } => self.persist.readlink(&*self.export(ctx, *export)?, file),
        }
    }

    fn read(
        &self,
        ctx: &Context,
        o: &Object,
        offset: u64,
        count: u32,
        out: &mut Vec<u8>,
    ) -> Result<(bool, Attr)> {
        match o {
            Object::View { view, entry } => {
                self.views.read(ctx, &*self.view(ctx, view)?, *entry, offset, count, out)
            }
            Object::Persist { export, file } => {
                self.persist.read(ctx, &*self.export(ctx, *export)?, file, offset, count, out)
            }
        }
    }

    fn write(&self, ctx: &Context, o: &Object, offset: u64, data: &[u8], stable: Stable) -> Result<Written> {
        let (x, file) = self.writable(ctx, o)?;
        self.persist.write(ctx, &x, &file, offset, data, stable)
    }

    fn create(&self, ctx: &Context, dir: &Object, name: &[u8], how: &CreateHow) -> Result<Created> {
        let (x, dir) = self.writable(ctx, dir)?;
        self.persist.create(ctx, &x, &dir, name, how)
    }

    fn mkdir(&self, ctx: &Context, dir: &Object, name: &[u8], set: &SetAttr) -> Result<Created> {
        let (x, dir) = self.writable(ctx, dir)?;
        self.persist.mkdir(ctx, &x, &dir, name, set)
    }

    fn symlink(
        &self,
        ctx: &Context,
        dir: &Object,
        name: &[u8],
        target: &[u8],
        set: &SetAttr,
    ) -> Result<Created> {
        let (x, dir) = self.writable(ctx, dir)?;
        self.persist.symlink(ctx, &x, &dir, name, target, set)
    }

    fn mknod(&self, ctx: &Context, dir: &Object, name: &[u8], sp: Special, set: &SetAttr) -> Result<Created> {
        let (x, dir) = self.writable(ctx, dir)?;
        self.persist.mknod(ctx, &x, &dir, name, sp, set)
    }

    fn remove(&self, ctx: &Context, dir: &Object, name: &[u8]) -> Result<Wcc> {
        let (x, dir) = self.writable(ctx, dir)?;
        self.persist.remove(ctx, &x, &dir, name, false)
    }

    fn rmdir(&self, ctx: &Context, dir: &Object, name: &[u8]) -> Result<Wcc> {
        let (x, dir) = self.writable(ctx, dir)?;
        self.persist.remove(ctx, &x, &dir, name, true)
    }

    fn rename(&self, ctx: &Context, from: (&Object, &[u8]), to: (&Object, &[u8])) -> Result<(Wcc, Wcc)> {
        // The dispatcher has checked that both directories are of one export.
        let (x, from_dir) = self.writable(ctx, from.0)?;
        let (_, to_dir) = self.writable(ctx, to.0)?;
        self.persist.rename(ctx, &x, (&from_dir, from.1), (&to_dir, to.1))
    }

    fn link(&self, ctx: &Context, o: &Object, dir: &Object, name: &[u8]) -> Result<(Attr, Wcc)> {
        let (x, file) = self.writable(ctx, o)?;
        let (_, dir) = self.writable(ctx, dir)?;
        self.persist.link(ctx, &x, &file, &dir, name)
    }

    fn readdir(
        &self,
        ctx: &Context,
        dir: &Object,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<Listed> {
        match dir {
            Object::View { view, entry } => {
                self.views.readdir(ctx, &*self.view(ctx, view)?, *entry, cookie, plus, sink)
            }
            Object::Persist { export, file } => {
                self.persist.readdir(ctx, &*self.export(ctx, *export)?, file, cookie, plus, sink)
            }
        }
    }

    fn fsstat(&self, ctx: &Context, o: &Object) -> Result<FsStat> {
        match o {
            Object::View { view, .. } => Ok(self.views.fsstat(&*self.view(ctx, view)?)),
            Object::Persist { export, .. } => self.persist.fsstat(&*self.export(ctx, *export)?),
        }
    }

    fn commit(&self, ctx: &Context, o: &Object) -> Result<Wcc> {
        let (x, file) = self.writable(ctx, o)?;
        self.persist.commit(&x, &file)
    }

    fn write_verifier(&self) -> [u8; 8] {
        self.persist.verifier()
    }

    fn replay(&self, ctx: &Context, o: &Object) -> Option<Vec<u8>> {
        let Object::Persist { export, .. } = o else { return None };
        self.export(ctx, *export).ok()?.ring.reply(&ctx.key)
    }

    fn deferred(&self, ctx: &Context, o: &Object) {
        if let Object::Persist { export, .. } = o
            && let Ok(x) = self.export(ctx, *export)
        {
            x.ring.release(&ctx.key);
        }
    }

    fn completed(&self, ctx: &Context, o: &Object, result: &[u8]) {
        if let Object::Persist { export, .. } = o
            && let Ok(x) = self.export(ctx, *export)
        {
            fail_points::point(Point::Executed, ctx.key.procedure);
            x.ring.finish(&ctx.key, result);
            fail_points::point(Point::Recorded, ctx.key.procedure);
        }
    }
}

/// The key of file handles of a server.
fn handle_key(dir: &Path) -> std::result::Result<HandleKey, Error> {
    secret(dir).map(|s| HandleKey::new(&s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        use MountKind::{Persist, View};
        for (path, want) in [
            ("/var/lib/walt/nodes/02:00:00:00:00:01/fs", Some(("02:00:00:00:00:01", View, vec![]))),
            ("/var/lib/walt/nodes/n1/persist/", Some(("n1", Persist, vec![]))),
            ("/var/lib/walt/nodes//n1//fs", Some(("n1", View, vec![]))),
            ("/var/lib/walt/nodes/n1/fs/etc/ssh", Some(("n1", View, vec!["etc", "ssh"]))),
            ("/var/lib/walt/nodes/n1/fs/../../n2/fs", None),
            ("/var/lib/walt/nodes/../fs", None),
            ("/var/lib/walt/nodes/n1", None),
            ("/var/lib/walt/nodes/n1/tftp", None),
            ("/etc", None),
        ] {
            let want = want.map(|(node, what, below)| MountPath { node, what, below });
            assert_eq!(MountPath::parse(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn errors_of_the_kernel_keep_their_meaning() {
        use rustix::io::Errno as E;
        for (errno, want) in [
            (E::NOSPC, Status::NoSpc),
            (E::DQUOT, Status::DQuot),
            (E::FBIG, Status::FBig),
            (E::STALE, Status::Stale),
            (E::MFILE, Status::Jukebox),
            (E::IO, Status::Io),
            (E::NOTCONN, Status::Io),
        ] {
            assert_eq!(status(&errno.into()), want, "{errno}");
        }
        assert_eq!(status(&io::Error::other("not of the kernel")), Status::Io);
    }

    #[test]
    fn the_secret_is_made_once() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let first = secret(dir.path()).unwrap();
        assert_eq!(secret(dir.path()).unwrap(), first);
        std::fs::write(dir.path().join("secret"), "short").unwrap();
        assert!(matches!(secret(dir.path()), Err(Error::Damaged(_))));
    }
}
