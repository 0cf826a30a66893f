//! After a node's boot: files in its `/persist` that it had removed while they were open, and that it left
//! behind when it crashed, are removed (see `nfs/persist/sweep.rs`).

use crate::{base::db::NodeRow, services::nodes::Nodes};
use anyhow::{Result, anyhow};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Mutex;
use walt_types::Mac;

/// Seconds by which a node's word on its uptime may be late. Nothing is renamed that early in a boot.
const MARGIN: f64 = 5.0;

/// Which boot of a node was swept for last. Held while a sweep runs: one at a time spares the disk.
#[derive(Default)]
pub struct Sweeps(Mutex<HashMap<Mac, String>>);

/// Sweeps for a boot that is `uptime` seconds old, once, without keeping the caller.
pub fn after_boot(nodes: &Arc<Nodes>, mac: Mac, boot_id: &str, uptime: f64) {
    let before = (crate::base::time::now() - uptime - MARGIN) as i64;
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
            Err(e) => tracing::warn!(%mac, "/persist cannot be swept: {e:#}"),
        }
    });
}

fn sweep(nodes: &Nodes, mac: Mac, before: i64) -> Result<()> {
    let exports = nodes.db().with(|c| NodeRow::persists(c, mac))?;
    let nfs = nodes.nfs().ok_or_else(|| anyhow!("NFS is not served yet"))?;
    for (id, owner) in exports {
        let dir = nodes.persist_root(mac).join(owner);
        if !dir.is_dir() {
            continue; // a node that has not mounted it yet
        }
        let swept = nfs.sweep(id, &dir, before).map_err(|e| anyhow!("{}: {e}", dir.display()))?;
        if swept.removed > 0 {
            tracing::info!(%mac, removed = swept.removed, "files that the node left open when it ended are removed");
        }
    }
    Ok(())
}
