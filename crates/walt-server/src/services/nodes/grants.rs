//! Grants: what nodes may read, from the database, cached by the address of the node.

use crate::{base::db::NodeRow, services::nodes::Nodes};
use anyhow::{Context, Result};
use parking_lot::RwLock;
use std::{collections::HashMap, fs::File, net::Ipv4Addr, path::PathBuf, sync::Arc};
use walt_images::{Kind, View};
use walt_nfs::{FileType, Status};
use walt_nfsd::view::{ReadView, ViewEntry};
use walt_types::ViewId;

/// A view, as the NFS server reads it.
pub struct ServedView(pub Arc<View>);

impl ReadView for ServedView {
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

/// What one node may read.
pub struct Granted {
    /// Views, by their id.
    pub views: Vec<(ViewId, Arc<dyn ReadView>)>,
    /// Directories of `/persist`, by their export number.
    pub persists: Vec<(u64, PathBuf)>,
}

/// Grants in memory, by the address of the node.
#[derive(Default)]
pub struct GrantCache(RwLock<Cached>);

#[derive(Default)]
struct Cached {
    /// Incremented by each change: grants that were read before a change are not cached after it.
    changes: u64,
    by_ip: HashMap<Ipv4Addr, Arc<Granted>>,
}

impl GrantCache {
    /// Drops the grants of a node from the cache, after a change.
    pub fn forget(&self, ip: Ipv4Addr) {
        let mut cached = self.0.write();
        cached.changes += 1;
        cached.by_ip.remove(&ip);
    }

    /// What the node at `ip` may read; `load` reads it from the database if it is not cached.
    ///
    /// # Errors
    /// `NFS3ERR_JUKEBOX`: the database cannot be read now. `NFS3ERR_STALE`: no node has this address.
    pub fn get(
        &self,
        ip: Ipv4Addr,
        load: impl FnOnce() -> Result<Option<Granted>>,
    ) -> walt_nfs::vfs::Result<Arc<Granted>> {
        let changes = {
            let cached = self.0.read();
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
        let mut cached = self.0.write();
        if cached.changes == changes {
            cached.by_ip.insert(ip, granted.clone());
        }
        Ok(granted)
    }
}

/// Reads the grants of the node at an address; none if there is no such node.
///
/// # Errors
/// The database or the store cannot be read.
pub fn load(nodes: &Nodes, ip: Ipv4Addr) -> Result<Option<Granted>> {
    let Some(node) = nodes.db().with(|c| NodeRow::by_ip(c, ip))? else { return Ok(None) };
    let (ids, persists) =
        nodes.db().with(|c| Ok((NodeRow::grants(c, node.mac)?, NodeRow::persists(c, node.mac)?)))?;
    let mut views: Vec<(ViewId, Arc<dyn ReadView>)> = Vec::new();
    for id in ids {
        match nodes.images().store().view_by_id(&id) {
            Ok(view) => views.push((id, Arc::new(ServedView(view)))),
            Err(e @ walt_images::Error::Missing { .. }) => {
                tracing::warn!(node = %node.facts.name, %id, "a granted view is missing: {e}");
            }
            Err(e) => return Err(e).context("cannot read a granted view"),
        }
    }
    let root = nodes.persist_root(node.mac);
    let persists = persists.into_iter().map(|(id, owner)| (id, root.join(owner))).collect();
    Ok(Some(Granted { views, persists }))
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
