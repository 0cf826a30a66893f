//! What is known of the boots of nodes (see [`walt_core::boots`]): gathered in memory, and kept in the database.
//!
//! ```text
//!  DHCP, boot files, mounts, node link, qemu ──▶ the last record of the node, in memory ──▶ database, in batches
//! ```
//! Whoever reports something does not wait for the disk. Batches are written [`BATCH`] after the first change, so that a
//! crash of the server loses no more than what was reported in this time; the next server goes on with the record. The
//! beginning of a boot is written together with the life of the node.

use crate::{
    base::{
        db::{BootRow, NodeRow},
        time,
    },
    services::nodes::{Nodes, vnode},
};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::sync::Notify;
use walt_api::boots::{Boot, BootList, BootStage, SlowBoot};
use walt_core::{
    boots::{By, Cause, End, FileKind, Record, Stage, clean, slow},
    life::Life,
};
use walt_nfsd::serve::Counts;
use walt_types::Mac;

/// How long changes are gathered before they are written.
const BATCH: Duration = Duration::from_millis(500);
/// Pause after the database has failed.
const PAUSE: Duration = Duration::from_secs(10);

/// The last boot of each node.
#[derive(Default)]
pub struct Boots {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    last: HashMap<Mac, Last>,
    by_ip: HashMap<Ipv4Addr, Mac>,
    /// Records that have a successor, and are not written yet.
    finished: Vec<(Mac, BootRow)>,
}

struct Last {
    ip: Ipv4Addr,
    row: BootRow,
    is_changed: bool,
    /// NFS calls of the node when this server began to count those of this boot.
    nfs_before: Counts,
    /// Those that were counted by an earlier server.
    nfs_earlier: Counts,
}

impl Last {
    /// Takes over the number of NFS calls, as long as the boot goes on.
    fn count(&mut self, nodes: &Nodes) {
        let record = &mut self.row.record;
        if record.total().is_none() && record.end.is_none() {
            let now = counts(nodes, self.ip);
            record.nfs_calls = self.nfs_earlier.calls + now.calls.saturating_sub(self.nfs_before.calls);
            record.nfs_bytes = self.nfs_earlier.bytes + now.bytes.saturating_sub(self.nfs_before.bytes);
        }
    }
}

fn counts(nodes: &Nodes, ip: Ipv4Addr) -> Counts {
    nodes.nfs().map(|nfs| nfs.counts(ip)).unwrap_or_default()
}

impl Boots {
    /// Forgets a node that was removed.
    pub fn forget(&self, mac: Mac) {
        let mut inner = self.inner.lock();
        if let Some(last) = inner.last.remove(&mac) {
            inner.by_ip.remove(&last.ip);
        }
    }

    /// Number of the last boot of a node, and its record.
    fn last(&self, mac: Mac) -> Option<BootRow> {
        self.inner.lock().last.get(&mac).map(|last| last.row.clone())
    }
}

/// Reads the last boot of each node, at the start of the server; they go on.
///
/// # Errors
/// The database failed.
pub fn load(nodes: &Nodes) -> Result<()> {
    let (rows, known) = nodes.db().with(|c| Ok((BootRow::last(c)?, NodeRow::all(c)?)))?;
    let ips: HashMap<Mac, Ipv4Addr> = known.into_iter().map(|node| (node.mac, node.ip)).collect();
    let mut inner = nodes.boots().inner.lock();
    for (mac, row) in rows {
        let Some(&ip) = ips.get(&mac) else { continue };
        let nfs_earlier = Counts { calls: row.record.nfs_calls, bytes: row.record.nfs_bytes };
        inner.by_ip.insert(ip, mac);
        inner
            .last
            .insert(mac, Last { ip, row, is_changed: false, nfs_before: counts(nodes, ip), nfs_earlier });
    }
    Ok(())
}

/// A boot of a node begins. The one before has ended by this, unless it is known how.
fn begin(nodes: &Nodes, node: &NodeRow, started: f64, cause: &Cause) {
    let record = Record::new(started, cause.clone(), node.facts.image.full());
    let mut inner = nodes.boots().inner.lock();
    let mut number = 1;
    if let Some(mut old) = inner.last.remove(&node.mac) {
        if old.row.record.end.is_none() {
            old.count(nodes);
            let had_booted = old.row.record.total().is_some();
            old.row.record.close(End::Rebooted(cause.clone()), started);
            nodes.base().metrics().boot(had_booted, false, &old.row.record);
            old.is_changed = true;
        }
        // The next try to start a virtual machine belongs to the same record.
        let is_retry = matches!(old.row.record.end, Some(End::NotStarted(_))) && cause.by == By::Server;
        number = old.row.number + u64::from(!is_retry);
        if is_retry {
            let attempts = old.row.record.attempts + 1;
            let first = old.row.record.cause.clone();
            let record = Record { attempts, cause: first, ..record };
            put(nodes, &mut inner, node, BootRow { number, record });
            return;
        }
        if old.is_changed {
            inner.finished.push((node.mac, old.row));
        }
    }
    put(nodes, &mut inner, node, BootRow { number, record });
}

fn put(nodes: &Nodes, inner: &mut Inner, node: &NodeRow, row: BootRow) {
    inner.by_ip.insert(node.ip, node.mac);
    let nfs_before = counts(nodes, node.ip);
    let last = Last { ip: node.ip, row, is_changed: true, nfs_before, nfs_earlier: Counts::default() };
    inner.last.insert(node.mac, last);
    nodes.boots().changed.notify_one();
}

/// Changes the last record of a node, if there is one; `change` returns whether it did.
pub fn note(nodes: &Nodes, mac: Mac, change: impl FnOnce(&mut Record) -> bool) {
    let mut inner = nodes.boots().inner.lock();
    if let Some(last) = inner.last.get_mut(&mac) {
        last.count(nodes);
        let record = &mut last.row.record;
        let (had_booted, had_ended) = (record.total().is_some(), record.end.is_some());
        if change(record) {
            nodes.base().metrics().boot(had_booted, had_ended, record);
            last.is_changed = true;
            nodes.boots().changed.notify_one();
        }
    }
}

/// As [`note`], by the address of the node.
pub fn note_at(nodes: &Nodes, ip: Ipv4Addr, change: impl FnOnce(&mut Record) -> bool) {
    let mac = nodes.boots().inner.lock().by_ip.get(&ip).copied();
    if let Some(mac) = mac {
        note(nodes, mac, change);
    }
}

/// What the life of a node says about its boots.
pub(super) fn follow(nodes: &Nodes, node: &NodeRow, before: &Life, cause: &Cause) {
    let (life, mac, now) = (&node.life, node.mac, time::now());
    if life.started != before.started {
        match life.started {
            Some(started) => begin(nodes, node, started, cause),
            None => note(nodes, mac, |record| record.close(End::PoweredOff, now)),
        }
    }
    if life.mode.is_some() && life.mode != before.mode {
        note(nodes, mac, |record| {
            record.mode = life.mode.map(|mode| mode.name().to_owned());
            true
        });
    }
    if life.boot_id.is_some() && life.boot_id != before.boot_id {
        note(nodes, mac, |record| record.reach_once(Stage::Init, now));
    }
    if let Some(booted) = life.booted.filter(|_| life.booted != before.booted) {
        note(nodes, mac, |record| {
            record.reach(Stage::Ssh, booted, 0);
            true
        });
    }
}

/// The server could not start a virtual machine.
pub(super) fn not_started(nodes: &Nodes, node: &NodeRow, started: f64, cause: &Cause, reason: &str) {
    let is_known = nodes.boots().last(node.mac).is_some_and(|last| last.record.started == started);
    if !is_known {
        begin(nodes, node, started, cause);
    }
    note(nodes, node.mac, |record| record.close(End::NotStarted(clean(reason)), time::now()));
}

/// Length of the console's log when the last boot of a node began.
pub(super) fn console_from(nodes: &Nodes, mac: Mac) -> u64 {
    nodes.boots().last(mac).map_or(0, |last| last.record.console_from)
}

/// How a boot has failed, in words, with where it was.
pub(super) fn failure(nodes: &Nodes, mac: Mac, end: &End) -> String {
    nodes.boots().last(mac).map_or_else(|| end.text(), |last| last.record.failure(end))
}

/// A boot file that is being sent; how much of it has been, is recorded when this is dropped.
pub struct Sending {
    nodes: Arc<Nodes>,
    ip: Ipv4Addr,
    kind: FileKind,
    bytes: u64,
}

impl Sending {
    /// The machine at this address asks for a file. None if it is not one that counts.
    pub fn begin(nodes: &Arc<Nodes>, ip: Ipv4Addr, path: &[u8]) -> Option<Self> {
        let kind = walt_core::boots::file_kind(path)?;
        note_at(nodes, ip, |record| record.asks_for_file(kind, time::now()));
        Some(Self { nodes: nodes.clone(), ip, kind, bytes: 0 })
    }

    /// So many bytes more have been sent.
    pub fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let (kind, bytes) = (self.kind, self.bytes);
        note_at(&self.nodes, self.ip, |record| record.has_file(kind, bytes, time::now()));
    }
}

/// Writes what has changed, in one transaction.
///
/// # Errors
/// The database failed; it is tried again with the next change.
pub fn flush(nodes: &Nodes) -> Result<()> {
    let changed: Vec<(Mac, BootRow)> = {
        let mut inner = nodes.boots().inner.lock();
        let mut changed = std::mem::take(&mut inner.finished);
        for (mac, last) in &mut inner.last {
            if std::mem::take(&mut last.is_changed) {
                last.count(nodes);
                changed.push((*mac, last.row.clone()));
            }
        }
        changed
    };
    if changed.is_empty() {
        return Ok(());
    }
    let written = nodes.db().transaction(|tx| changed.iter().try_for_each(|(mac, row)| row.put(tx, *mac)));
    if written.is_err() {
        let mut inner = nodes.boots().inner.lock();
        for (mac, row) in changed {
            match inner.last.get_mut(&mac) {
                Some(last) if last.row.number == row.number => last.is_changed = true,
                _ => inner.finished.push((mac, row)),
            }
        }
    }
    written.context("cannot keep the records of boots")
}

/// Writes the last records of one node as a part of a transaction. They are written again with the next batch, since the
/// transaction may fail.
pub(super) fn put_now(nodes: &Nodes, c: &Connection, mac: Mac) -> Result<()> {
    let inner = nodes.boots().inner.lock();
    for (_, row) in inner.finished.iter().filter(|(of, _)| *of == mac) {
        row.put(c, mac)?;
    }
    inner.last.get(&mac).map_or(Ok(()), |last| last.row.put(c, mac))
}

/// Writes changes for ever.
pub async fn run(nodes: Arc<Nodes>) {
    loop {
        nodes.boots().changed.notified().await;
        tokio::time::sleep(BATCH).await;
        if let Err(e) = flush(&nodes) {
            tracing::warn!("{e:#}");
            tokio::time::sleep(PAUSE).await;
            nodes.boots().changed.notify_one();
        }
    }
}

/// The boots of a node, for `GET /api/v1/nodes/boots`; the first one first.
///
/// # Errors
/// The database failed.
pub fn list(nodes: &Nodes, node: &NodeRow) -> Result<BootList> {
    note(nodes, node.mac, |_| true);
    flush(nodes)?;
    let rows = nodes.db().with(|c| BootRow::all(c, node.mac))?;
    let (numbers, records): (Vec<u64>, Vec<Record>) =
        rows.into_iter().map(|row| (row.number, row.record)).unzip();
    let boots = numbers.iter().enumerate().map(|(at, number)| describe(*number, &records, at)).collect();
    Ok(BootList { node: node.facts.name.to_string(), boots })
}

fn describe(number: u64, records: &[Record], at: usize) -> Boot {
    let record = &records[at];
    let stage = |(reached, took): (walt_core::boots::Reached, f64)| BootStage {
        stage: reached.stage.name().to_owned(),
        at: reached.at,
        seconds: took,
        bytes: (reached.bytes > 0).then_some(reached.bytes),
    };
    let slow = slow(records, at).map(|slow| SlowBoot {
        factor: slow.factor,
        median: slow.median,
        stage: slow.stage.name().to_owned(),
        grew: slow.grew,
    });
    Boot {
        number,
        started: time::local_time(record.started as i64),
        started_at: record.started,
        cause: record.cause.text(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        view: record.view.clone(),
        kernel_line: record.kernel_line.clone(),
        mode: record.mode.clone(),
        seconds: record.total(),
        stages: record.durations().into_iter().map(stage).collect(),
        attempts: record.attempts,
        restarts: record.restarts,
        nfs_calls: record.nfs_calls,
        nfs_bytes: record.nfs_bytes,
        outcome: record.outcome(),
        panic: record.panic.clone().or_else(|| match &record.end {
            Some(End::Panic(line)) => Some(line.clone()),
            _ => None,
        }),
        end: record.end.as_ref().map(End::text),
        ended: record.ended.map(|at| time::local_time(at as i64)),
        slow,
    }
}

/// Records what a virtual machine will boot, as soon as it is known.
pub(super) fn planned(nodes: &Nodes, mac: Mac, boot: &super::boot::Planned, started: f64, is_direct: bool) {
    let console_from = vnode::log_of(nodes, mac).length();
    note(nodes, mac, |record| {
        record.console_from = console_from;
        record.image_id.clone_from(&boot.image_id);
        record.view.clone_from(&boot.view);
        record.kernel_line.clone_from(&boot.command_line);
        if is_direct {
            record.reach(Stage::Script, started + boot.scripts, 0);
            record.reach(Stage::Kernel, started + boot.files, boot.kernel_bytes);
            if boot.initrd_bytes > 0 {
                record.reach(Stage::Initrd, started + boot.files, boot.initrd_bytes);
            }
        }
        true
    });
}
