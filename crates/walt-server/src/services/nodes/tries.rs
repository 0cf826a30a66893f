//! Notices boots that are overdue.
//!
//! ```text
//!  overdue (here), panic, stop of qemu, failed start (vnode.rs) ──▶ hub::failed ──▶ next try, or "needs a look"
//! ```

use crate::{
    base::{db::NodeRow, time},
    services::nodes::{Nodes, boot_timeout, boots, hub::failed},
};
use anyhow::Result;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use walt_core::{
    boots::{Cause, End},
    life::Next,
};
use walt_types::Mac;

/// Cause of the boot after one that was overdue.
pub const TIMEOUT_CAUSE: &str = "bootup timeout";
/// Least time between two looks at all nodes: changes come in crowds.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest time between two looks: settings change too.
const IDLE: Duration = Duration::from_secs(10);

/// Prepares for boots that were under way when the last server ended.
///
/// # Errors
/// The database failed.
pub fn resume(nodes: &Nodes) -> Result<()> {
    nodes.db().transaction(|tx| {
        for mut node in NodeRow::all(tx)? {
            node.life.resume(time::now());
            nodes.announced().resume(&node);
            NodeRow::set_life(tx, node.mac, &node.life)?;
        }
        Ok(())
    })
}

/// Watches for overdue boots for ever.
pub async fn run(nodes: Arc<Nodes>) {
    let mut changed = nodes.hub().watch();
    loop {
        changed.mark_unchanged();
        let next = look(&nodes).unwrap_or_else(|e| {
            tracing::warn!("cannot look for overdue boots: {e:#}");
            None
        });
        let left = next.map_or(IDLE, |at| Duration::from_secs_f64((at - time::now()).max(0.0)).min(IDLE));
        tokio::time::sleep(PAUSE).await;
        let _passed = tokio::time::timeout(left.saturating_sub(PAUSE), changed.changed()).await;
    }
}

/// Handles boots that are overdue; when the next one will be, if nothing changes.
fn look(nodes: &Arc<Nodes>) -> Result<Option<f64>> {
    let (rows, stored) = nodes.db().with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
    let (none, now) = (BTreeMap::new(), time::now());
    let mut next: Option<f64> = None;
    for node in rows {
        if let Some(at) = nodes.announced().look(nodes.base().journal(), &node) {
            next = Some(next.map_or(at, |other| other.min(at)));
        }
        let timeout = boot_timeout(stored.get(&node.mac).unwrap_or(&none));
        let Some(at) = node.life.deadline(timeout, node.facts.is_virtual) else { continue };
        if at > now {
            next = Some(next.map_or(at, |other| other.min(at)));
            continue;
        }
        let Some(next) = failed(nodes, &node, &End::Timeout)? else { continue };
        boots::note(nodes, node.mac, |record| record.close(End::Timeout, now));
        if let Next::Retry { .. } = next {
            tokio::spawn(restart(nodes.clone(), node.mac));
        }
    }
    Ok(next)
}

async fn restart(nodes: Arc<Nodes>, mac: Mac) {
    if let Err(e) = nodes.restart_vnode(mac, true, Cause::server(TIMEOUT_CAUSE)).await {
        tracing::warn!(%mac, "cannot reboot the node: {e:#}");
    }
}
