//! After the boot of a node, removes the files in its `/persist` that it had deleted while they were open, and left
//! behind in a crash (see `walt-nfsd/src/persist/sweep.rs`).

use crate::{
    base::{db::NodeRow, time},
    services::nodes::Nodes,
};
use anyhow::{Result, anyhow};
use std::sync::Arc;
use walt_types::Mac;

/// Seconds by which the reported uptime may be late. A node renames nothing that early in its boot.
const MARGIN: f64 = 5.0;

/// Sweeps in the background, once per boot; this boot began `uptime` seconds ago.
pub fn after_boot(nodes: &Arc<Nodes>, mac: Mac, boot_id: &str, uptime: f64) {
    let before = (time::now() - uptime - MARGIN) as i64;
    let (nodes, boot_id) = (nodes.clone(), boot_id.to_owned());
    tokio::spawn(async move {
        let mut swept = nodes.sweeps().0.lock().await;
        if swept.get(&mac) == Some(&boot_id) {
            return;
        }
        let sweeping = nodes.clone();
        let outcome = tokio::task::spawn_blocking(move || sweep(&sweeping, mac, before)).await;
        match outcome.map_err(anyhow::Error::from).and_then(|r| r) {
            Ok(()) => drop(swept.insert(mac, boot_id)),
            Err(e) => tracing::warn!(%mac, "cannot sweep /persist: {e:#}"),
        }
    });
}

fn sweep(nodes: &Nodes, mac: Mac, before: i64) -> Result<()> {
    let exports = nodes.db().with(|c| NodeRow::persists(c, mac))?;
    let nfs = nodes.nfs().ok_or_else(|| anyhow!("the NFS server is not running yet"))?;
    for (id, owner) in exports {
        let dir = nodes.persist_root(mac).join(owner);
        if !dir.is_dir() {
            continue; // not mounted by the node yet
        }
        let swept = nfs.sweep(id, &dir, before).map_err(|e| anyhow!("{}: {e}", dir.display()))?;
        if swept.removed > 0 {
            tracing::info!(%mac, removed = swept.removed, "removed deleted files that the node had kept open until it ended");
        }
    }
    Ok(())
}
