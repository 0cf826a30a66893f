//! What nodes may mount and read, for the NFS server ([`walt_nfsd`]).
//!
//! A node may read the views granted to it, and its own `/persist`. Grants are in the database, and cached by address
//! until the node changes.

use crate::{
    actions::app::App,
    base::{
        db::{NodeRow, RefRow, blocking},
        failure::Failure,
        ports::NFS_PORT,
        time,
    },
    services::nodes::{
        boots,
        grants::{Granted, ServedView, load},
    },
};
use anyhow::{Context, Result};
use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
};
use walt_core::settings;
use walt_images::View;
use walt_nfs::Status;
use walt_nfsd::{Durability, Exports, MountError, MountKind, view::ReadView};
use walt_types::ViewId;

/// The exports of this server.
struct NodeExports(Arc<App>);

impl NodeExports {
    fn granted(&self, peer: Ipv4Addr) -> walt_nfs::vfs::Result<Arc<Granted>> {
        self.0.nodes().grants().get(peer, || load(self.0.nodes(), peer))
    }

    fn node(&self, peer: Ipv4Addr, name: &str) -> std::result::Result<NodeRow, MountError> {
        let failed = |e: anyhow::Error| MountError::Failed(format!("{e:#}"));
        let node =
            self.0.db().with(|c| NodeRow::by_ip(c, peer)).map_err(failed)?.ok_or(MountError::NotFound)?;
        if node.is_called(name) { Ok(node) } else { Err(MountError::Denied) }
    }

    fn view_of(&self, node: &NodeRow) -> std::result::Result<Arc<View>, Failure> {
        let writing = self.0.images().writing_now_blocking();
        let view = self.0.images().view_for(node, &writing)?;
        // Recorded before the answer: from now on the view is kept, even if the image is removed.
        self.0.db().with(|c| NodeRow::grant(c, node.mac, view.id(), time::now() as i64))?;
        let image = self.0.db().with(|c| RefRow::get(c, &node.facts.image))?.map(|row| row.image_id.oci());
        boots::note(self.0.nodes(), node.mac, |record| {
            record.mounts(view.id().to_string(), image, time::now())
        });
        Ok(view)
    }

    fn persist_of(&self, node: &NodeRow) -> Result<Option<(u64, PathBuf)>> {
        let stored = self.0.db().with(|c| NodeRow::settings(c, node.mac))?;
        let wanted = settings::effective(&stored, node.facts.is_virtual);
        if wanted.get("mount.persist").is_some_and(|v| v == "false") {
            return Ok(None);
        }
        let owner = node.facts.owner();
        let root = self.0.nodes().persist_root(node.mac);
        // 0700 for the parent, so that accounts of this machine cannot read it; 0755 below, for the users of the
        // node.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        let dir = root.join(owner);
        if !dir.exists() {
            std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
        }
        let id = self.0.db().with(|c| NodeRow::persist_id(c, node.mac, owner))?;
        Ok(Some((id, dir)))
    }
}

impl Exports for NodeExports {
    fn mount(
        &self,
        peer: Ipv4Addr,
        node: &str,
        what: MountKind,
    ) -> std::result::Result<walt_nfsd::Export, MountError> {
        let node = self.node(peer, node)?;
        let part = if matches!(what, MountKind::View) { "its image" } else { "its /persist" };
        tracing::debug!(node = %node.facts.name, %peer, "the node mounts {part}");
        let export = match what {
            MountKind::View => {
                let view = self.view_of(&node).map_err(|e| MountError::Failed(format!("{e:?}")))?;
                walt_nfsd::Export::View(Arc::new(ServedView(view)))
            }
            MountKind::Persist => {
                let found = self.persist_of(&node).map_err(|e| MountError::Failed(format!("{e:#}")))?;
                let (export_id, dir) = found.ok_or(MountError::NotFound)?;
                walt_nfsd::Export::Persist { export_id, dir }
            }
        };
        self.0.nodes().grants().forget(peer);
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

/// Serves NFS, MOUNT and the port mapper on these sockets, in threads of their own.
///
/// # Errors
/// The key of file handles or the sockets cannot be used.
pub fn serve(
    app: &Arc<App>,
    listener: TcpListener,
    portmap: Option<TcpListener>,
    udp: Option<UdpSocket>,
) -> Result<()> {
    let config = walt_nfsd::Config {
        dir: app.config().state_dir.join("nfs"),
        durability: Durability::Full,
        sync_data: File::sync_data,
        reserved_ports_only: true,
        mappings: walt_nfs::portmap::one_port(NFS_PORT),
        limits: walt_nfsd::serve::Limits::default(),
    };
    let server = blocking(|| walt_nfsd::Server::new(Arc::new(NodeExports(app.clone())), &config))?;
    for listener in std::iter::once(listener).chain(portmap) {
        server.serve_tcp(listener).context("cannot serve NFS")?;
    }
    if let Some(udp) = udp {
        server.serve_udp(udp).context("cannot serve the port mapper")?;
    }
    // Invariant: this is the only place that sets it, and it is called once, at the start.
    app.nodes().set_nfs(server);
    Ok(())
}
