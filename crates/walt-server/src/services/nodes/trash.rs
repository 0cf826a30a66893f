//! The trash: forgotten physical nodes, with their settings and `/persist`, until they are restored or expire.
//!
//! ```text
//! forget    row in the trash, no node (one transaction) ─▶ persist/<mac> becomes trash/<id> ─▶ `moved`
//! restore   not `moved` ─▶ trash/<id> becomes persist/<mac> ─▶ node, no row in the trash (one transaction)
//! expire    no row ─▶ trash/<id> is removed
//! ```
//! While a row is not `moved`, its node does not exist, and `persist/<mac>` is what it had. [`recover`] moves that to the
//! trash when the server starts, so a restore that was killed is as if it had not begun. A directory of the trash
//! without a row has expired.
//!
//! Limits: [`TRASH_MAX`] nodes; `limits.trash-keep` seconds.

use crate::{
    base::{
        db::{NodeRow, TrashRow, blocking},
        fail_points,
        files::{make_dir, remove_tree},
        state::Decision,
        time::now,
    },
    services::{
        network,
        nodes::{Nodes, insert},
    },
};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::ErrorKind::NotFound,
    path::{Path, PathBuf},
};
use walt_core::{NodeFacts, life::Life};
use walt_types::{Mac, Span, UserName};

/// Nodes in the trash; while it is full, no physical node can be forgotten.
pub const TRASH_MAX: usize = 1024;
/// The directory of the trash, in the state directory.
const DIRECTORY: &str = "trash";

fn root(nodes: &Nodes) -> PathBuf {
    nodes.config().state_dir.join(DIRECTORY)
}

fn place(nodes: &Nodes, id: i64) -> PathBuf {
    root(nodes).join(id.to_string())
}

/// Makes the entries of a directory durable.
fn sync(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("cannot write {} to the disk", dir.display()))
}

/// Renames a directory, if it exists, and makes that durable.
fn rename(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    clear(to)?;
    std::fs::rename(from, to)
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
    [from, to].iter().filter_map(|path| path.parent()).try_for_each(sync)
}

/// Removes a directory that has nothing but empty ones: a node that mounts its `/persist` while it is forgotten can leave
/// them behind.
fn clear(dir: &Path) -> Result<()> {
    let inner = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == NotFound => return Ok(()),
        inner => inner.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let emptied = inner.and_then(|entries| {
        entries.iter().try_for_each(|entry| std::fs::remove_dir(entry.path()))?;
        std::fs::remove_dir(dir)
    });
    emptied.with_context(|| format!("{} is in the way: move it elsewhere", dir.display()))
}

/// Moves what a forgotten node had to the trash, and records that.
fn finish(nodes: &Nodes, id: i64, mac: Mac) -> Result<()> {
    let root = root(nodes);
    if !root.exists() {
        make_dir(&root, 0o700)?;
        sync(&nodes.config().state_dir)?;
    }
    let (from, to) = (nodes.persist_root(mac), place(nodes, id));
    if to.exists() {
        // A restore that was killed before it moved anything.
        clear(&from)?;
    }
    rename(&from, &to)?;
    fail_points::point("trash-moved");
    nodes.db().with(|c| TrashRow::set_moved(c, id, true))
}

/// Forgets a physical node: what it takes to restore it goes to the trash.
///
/// # Errors
/// The trash is full, or the database, the kernel or the disk fails.
pub async fn forget(nodes: &Nodes, node: &NodeRow, by: &UserName, decision: &Decision<'_>) -> Result<()> {
    finish_of(nodes, node.mac, decision)?;
    let id = nodes.db().transaction(|tx| -> Result<i64> {
        if TrashRow::all(tx)?.len() >= TRASH_MAX {
            bail!("the trash is full ({TRASH_MAX} nodes): lower limits.trash-keep, and restart the server");
        }
        let row = TrashRow {
            id: 0,
            mac: node.mac,
            name: node.facts.name.clone(),
            ip: node.ip,
            model: node.facts.model.clone(),
            image: node.facts.image.clone(),
            uuid: node.uuid.clone(),
            settings: NodeRow::settings(tx, node.mac)?,
            persists: NodeRow::persists(tx, node.mac)?.into_iter().collect(),
            forgotten: now() as i64,
            user: by.to_string(),
            is_moved: false,
        };
        NodeRow::delete(tx, node.mac)?;
        row.insert(tx)
    })?;
    fail_points::point("trash-recorded");
    nodes.close(node)?;
    blocking(|| finish(nodes, id, node.mac))?;
    nodes.hub().signal();
    nodes.queue().signal();
    Ok(())
}

/// Restores a node from the trash as `node`, which is it with the name, address and image that it can have now. No
/// other node has its Ethernet address.
///
/// # Errors
/// The database, the kernel or the disk fails; then it is in the trash still.
pub fn restore(nodes: &Nodes, row: &TrashRow, node: &NodeRow, decision: &Decision<'_>) -> Result<()> {
    finish_of(nodes, row.mac, decision)?;
    blocking(|| -> Result<()> {
        nodes.db().with(|c| TrashRow::set_moved(c, row.id, false))?;
        fail_points::point("restore-begun");
        rename(&place(nodes, row.id), &nodes.persist_root(row.mac))?;
        fail_points::point("restore-moved");
        nodes.db().transaction(|tx| -> Result<()> {
            insert(tx, node)?;
            for (key, value) in &row.settings {
                NodeRow::set_setting(tx, node.mac, key, value)?;
            }
            for (id, owner) in &row.persists {
                NodeRow::put_persist(tx, node.mac, *id, owner)?;
            }
            TrashRow::delete(tx, row.id)
        })?;
        // The station may have had another address as a device.
        network::neighbours(nodes.base())
    })?;
    nodes.hub().signal();
    Ok(())
}

/// The node that a row was, without its life.
pub fn node_of(row: &TrashRow) -> NodeRow {
    let facts = NodeFacts {
        name: row.name.clone(),
        model: row.model.clone(),
        image: row.image.clone(),
        is_virtual: false,
    };
    NodeRow { mac: row.mac, facts, ip: row.ip, uuid: row.uuid.clone(), life: Life::default(), lease: None }
}

/// Finishes what a failed disk has left, before the Ethernet address is a node's again.
///
/// # Errors
/// The database or the disk fails still.
pub fn finish_of(nodes: &Nodes, mac: Mac, _decision: &Decision<'_>) -> Result<()> {
    let rows = nodes.db().with(TrashRow::all)?;
    let open = rows.iter().filter(|row| row.mac == mac && !row.is_moved);
    open.into_iter().try_for_each(|row| blocking(|| finish(nodes, row.id, mac)))
}

/// Finishes what a killed server has left. Called at the start, before any machine can become a node. What cannot be
/// finished is logged: its machine cannot be a node until it can.
///
/// # Errors
/// The database fails.
pub fn recover(nodes: &Nodes) -> Result<()> {
    for row in nodes.db().with(TrashRow::all)?.iter().filter(|row| !row.is_moved) {
        if let Err(e) = finish(nodes, row.id, row.mac) {
            tracing::error!(name = %row.name, mac = %row.mac, "cannot move a forgotten node to the trash: {e:#}");
        }
    }
    Ok(())
}

/// Removes rows of nodes that were forgotten longer than `keep` ago. The result is the directories of the trash that
/// belong to no row; they are never used again, so no lock is needed to [`remove`] them.
///
/// # Errors
/// The database or the disk fails.
pub fn expire(nodes: &Nodes, keep: Span, _decision: &Decision<'_>) -> Result<Vec<PathBuf>> {
    let rows = nodes.db().with(TrashRow::all)?;
    let end = (now() as i64).saturating_sub_unsigned(keep.0);
    let (expired, kept): (Vec<&TrashRow>, Vec<&TrashRow>) = rows.iter().partition(|row| row.forgotten <= end);
    for row in expired {
        if !row.is_moved {
            blocking(|| finish(nodes, row.id, row.mac))?;
        }
        nodes.db().with(|c| TrashRow::delete(c, row.id))?;
        fail_points::point("trash-expired");
        tracing::info!(name = %row.name, mac = %row.mac, "the trash of a node has expired");
    }
    let kept: Vec<PathBuf> = kept.into_iter().map(|row| place(nodes, row.id)).collect();
    let entries = match std::fs::read_dir(root(nodes)) {
        Err(e) if e.kind() == NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let paths = entries.context("cannot read the trash")?.into_iter().map(|entry| entry.path());
    Ok(paths.filter(|path| !kept.contains(path)).collect())
}

/// Removes directories that have expired.
///
/// # Errors
/// The disk fails.
pub fn remove(expired: &[PathBuf]) -> Result<()> {
    blocking(|| expired.iter().try_for_each(|dir| remove_tree(dir)))
}
