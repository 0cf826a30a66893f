//! What nodes may mount and read: the server's answers to [`nfs`].
//!
//! A node may read the views granted to it, and its own `/persist`. Grants are in the database; answers
//! come from a cache by address, which is emptied when something about the node changes.

use crate::{
    App,
    db::{NodeRow, blocking},
    failure::Failure,
    images::{self, platform},
    run::NFS_PORT,
};
use anyhow::{Context, Result};
use std::{
    collections::HashMap,
    fs::File,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};
use walt_core::settings;
use walt_images::{Kind, View};
use walt_nfs::{FileType, Status};
use walt_nfsd::{
    Durability, Exports, MountError, MountKind,
    view::{ReadView, ViewEntry},
};
use walt_types::ViewId;

/// A view as NFS reads it.
struct Served(Arc<View>);

impl ReadView for Served {
    fn id(&self) -> ViewId {
        *self.0.id()
    }
    fn root(&self) -> u32 {
        self.0.root()
    }
    fn len(&self) -> u32 {
        self.0.len()
    }
    fn entry(&self, number: u32) -> ViewEntry<'_> {
        // Invariant: numbers come from lookups in this view, by the handle's MAC; those that the platform
        // layer hides cannot be looked up.
        let e = self.0.entry(number).expect("a visible entry of this view");
        ViewEntry {
            kind: match e.kind {
                Kind::Dir => FileType::Directory,
                Kind::Symlink => FileType::Symlink,
                Kind::Char => FileType::Char,
                Kind::Block => FileType::Block,
                Kind::Fifo => FileType::Fifo,
                _ => FileType::Regular,
            },
            mode: e.mode,
            uid: e.uid,
            gid: e.gid,
            size: e.size,
            mtime: e.mtime.sec,
            mtime_nsec: e.mtime.nsec,
            rdev: e.rdev,
            nlink: e.nlink,
            target: e.target,
            first: e.fileid,
        }
    }
    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.0.lookup(dir, name)
    }
    fn child(&self, dir: u32, position: usize) -> Option<(&[u8], u32)> {
        self.0.children(dir).get(position).map(|&number| (self.0.name(number), number))
    }
    fn parent(&self, number: u32) -> u32 {
        self.0.parent(number)
    }
    fn open(&self, number: u32) -> std::io::Result<File> {
        self.0.open(number)
    }
}

struct Granted {
    views: Vec<(ViewId, Arc<dyn ReadView>)>,
    persists: Vec<(u64, PathBuf)>,
}

/// Grants in memory, by the address of the node.
#[derive(Default)]
pub struct GrantCache(RwLock<Cached>);

#[derive(Default)]
struct Cached {
    /// Rises with each change: what was read from the database before one is not kept after it.
    changes: u64,
    by_ip: HashMap<Ipv4Addr, Arc<Granted>>,
}

impl GrantCache {
    /// Something about a node has changed: the next call asks the database.
    pub fn forget(&self, ip: Ipv4Addr) {
        let mut cached = self.0.write().unwrap_or_else(PoisonError::into_inner);
        cached.changes += 1;
        cached.by_ip.remove(&ip);
    }

    /// What the node at `ip` may use, as `load` tells if it is not known.
    fn get(
        &self,
        ip: Ipv4Addr,
        load: impl FnOnce() -> Result<Option<Granted>>,
    ) -> walt_nfs::vfs::Result<Arc<Granted>> {
        let changes = {
            let cached = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = cached.by_ip.get(&ip) {
                return Ok(found.clone());
            }
            cached.changes
        };
        let granted = load().map_err(|e| {
            tracing::error!(%ip, "cannot read the grants of a node: {e:#}");
            Status::Jukebox
        })?;
        let granted = Arc::new(granted.ok_or(Status::Stale)?);
        let mut cached = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cached.changes == changes {
            cached.by_ip.insert(ip, granted.clone());
        }
        Ok(granted)
    }
}

fn load(app: &App, ip: Ipv4Addr) -> Result<Option<Granted>> {
    let Some(node) = app.db.with(|c| NodeRow::by_ip(c, ip))? else { return Ok(None) };
    let (ids, persists) =
        app.db.with(|c| Ok((NodeRow::grants(c, node.mac)?, NodeRow::persists(c, node.mac)?)))?;
    let mut views: Vec<(ViewId, Arc<dyn ReadView>)> = Vec::new();
    for id in ids {
        match app.store.view_by_id(&id) {
            Ok(view) => views.push((id, Arc::new(Served(view)))),
            Err(e @ walt_images::Error::Missing { .. }) => {
                tracing::warn!(node = %node.facts.name, %id, "a granted view is gone: {e}");
            }
            Err(e) => return Err(e).context("a granted view cannot be read"),
        }
    }
    let root = app.persist_root(node.mac);
    let persists = persists.into_iter().map(|(id, owner)| (id, root.join(owner))).collect();
    Ok(Some(Granted { views, persists }))
}

/// The server's side of the exports.
struct Answers(Arc<App>);

impl Answers {
    fn granted(&self, peer: Ipv4Addr) -> walt_nfs::vfs::Result<Arc<Granted>> {
        self.0.grants.get(peer, || load(&self.0, peer))
    }

    fn node(&self, peer: Ipv4Addr, name: &str) -> std::result::Result<NodeRow, MountError> {
        let failed = |e: anyhow::Error| MountError::Failed(format!("{e:#}"));
        let node =
            self.0.db.with(|c| NodeRow::by_ip(c, peer)).map_err(failed)?.ok_or(MountError::NotFound)?;
        if node.is_called(name) { Ok(node) } else { Err(MountError::Denied) }
    }

    fn view_of(&self, node: &NodeRow) -> std::result::Result<Arc<View>, Failure> {
        let image = images::find(&self.0, &node.facts.image)?;
        let _changes = self.0.store_changes.blocking_read();
        let platform = platform::make(&self.0, &image.image_id)?;
        // On record before the answer: from now on the view stays, whatever happens to the image.
        self.0.db.with(|c| NodeRow::grant(c, node.mac, platform.view.id(), crate::now() as i64))?;
        Ok(platform.view)
    }

    fn persist_of(&self, node: &NodeRow) -> Result<Option<(u64, PathBuf)>> {
        let stored = self.0.db.with(|c| NodeRow::settings(c, node.mac))?;
        let wanted = settings::effective(&stored, node.facts.is_virtual);
        if wanted.get("mount.persist").is_some_and(|v| v == "false") {
            return Ok(None);
        }
        let owner = node.facts.owner();
        let root = self.0.persist_root(node.mac);
        // 0700 above: accounts of this machine do not see what nodes keep. 0755: a node's own users do.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        let dir = root.join(owner);
        if !dir.exists() {
            std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
        }
        let id = self.0.db.with(|c| NodeRow::persist_id(c, node.mac, owner))?;
        Ok(Some((id, dir)))
    }
}

impl Exports for Answers {
    fn mount(
        &self,
        peer: Ipv4Addr,
        node: &str,
        what: MountKind,
    ) -> std::result::Result<walt_nfsd::Export, MountError> {
        let node = self.node(peer, node)?;
        let export = match what {
            MountKind::View => {
                let view = self.view_of(&node).map_err(|e| MountError::Failed(format!("{e:?}")))?;
                walt_nfsd::Export::View(Arc::new(Served(view)))
            }
            MountKind::Persist => {
                let found = self.persist_of(&node).map_err(|e| MountError::Failed(format!("{e:#}")))?;
                let (export_id, dir) = found.ok_or(MountError::NotFound)?;
                walt_nfsd::Export::Persist { export_id, dir }
            }
        };
        self.0.grants.forget(peer);
        Ok(export)
    }

    fn view(&self, peer: Ipv4Addr, view: &ViewId) -> walt_nfs::vfs::Result<Arc<dyn ReadView>> {
        let granted = self.granted(peer)?;
        let found = granted.views.iter().find(|(id, _)| id == view);
        found.map(|(_, view)| view.clone()).ok_or(Status::Stale)
    }

    fn persist(&self, peer: Ipv4Addr, export_id: u64) -> walt_nfs::vfs::Result<PathBuf> {
        let granted = self.granted(peer)?;
        let found = granted.persists.iter().find(|(id, _)| *id == export_id);
        found.map(|(_, dir)| dir.clone()).ok_or(Status::Stale)
    }
}

/// Serves NFS, MOUNT and the port mapper on these sockets, on threads of their own.
///
/// # Errors
/// The secret of file handles or the sockets cannot be used.
pub fn serve(
    app: &Arc<App>,
    listener: TcpListener,
    portmap: Option<TcpListener>,
    udp: Option<UdpSocket>,
) -> Result<()> {
    let config = walt_nfsd::Config {
        dir: app.config.state_dir.join("nfs"),
        durability: Durability::Full,
        sync_data: File::sync_data,
        reserved_ports_only: true,
        mappings: walt_nfs::portmap::one_port(NFS_PORT),
        limits: walt_nfsd::serve::Limits::default(),
    };
    let server = blocking(|| walt_nfsd::Server::new(Arc::new(Answers(app.clone())), &config))?;
    for listener in std::iter::once(listener).chain(portmap) {
        server.serve_tcp(listener).context("cannot serve NFS")?;
    }
    if let Some(udp) = udp {
        server.serve_udp(udp).context("cannot serve the port mapper")?;
    }
    // Invariant: this is the only place that sets it, and it is called once, at the start.
    let _set_once = app.nfs.set(server);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn granted(number: u64) -> Result<Option<Granted>> {
        Ok(Some(Granted { views: Vec::new(), persists: vec![(number, PathBuf::new())] }))
    }

    fn number(found: walt_nfs::vfs::Result<Arc<Granted>>) -> u64 {
        found.unwrap().persists[0].0
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_kept() {
        let cache = GrantCache::default();
        let old = cache.get(NODE, || {
            // A MNT on another thread has just added an export.
            cache.forget(NODE);
            granted(1)
        });
        assert_eq!(number(old), 1);
        assert_eq!(number(cache.get(NODE, || granted(2))), 2);
        assert_eq!(number(cache.get(NODE, || granted(3))), 2, "known");
        cache.forget(NODE);
        assert_eq!(number(cache.get(NODE, || granted(4))), 4);
    }

    #[test]
    fn what_cannot_be_read_is_not_gone() {
        let cache = GrantCache::default();
        let failed = cache.get(NODE, || Err(anyhow::anyhow!("the disk is full")));
        assert_eq!(failed.err(), Some(Status::Jukebox));
        assert_eq!(cache.get(NODE, || Ok(None)).err(), Some(Status::Stale));
        assert_eq!(number(cache.get(NODE, || granted(1))), 1);
    }
}
