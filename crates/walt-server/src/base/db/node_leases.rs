//! Leases of nodes, who waits for nodes, and by whom nodes were taken. (Leases of addresses are in `leases.rs`.)

use crate::base::db::parsed;
use anyhow::{Context, Result};
use rusqlite::{Connection, Row};
use std::collections::{BTreeMap, BTreeSet};
use walt_core::{
    node_leases::{Hold, NodeLease},
    node_queue::Wait,
};
use walt_types::{ClientTag, Mac, UserName};

/// Columns of [`lease`].
pub(super) const LEASE_COLUMNS: &str = "node_leases.user AS lease_user, node_leases.ends AS lease_ends, node_leases.hold AS lease_hold, \
     node_leases.silence AS lease_silence, node_leases.heard AS lease_heard";

/// The lease in a row of a query with [`LEASE_COLUMNS`], if the node has one.
pub(super) fn lease(r: &Row<'_>) -> rusqlite::Result<Option<NodeLease>> {
    let text = |name: &str| -> rusqlite::Result<Option<(String, usize)>> {
        let column = r.as_ref().column_index(name)?;
        Ok(r.get::<_, Option<String>>(column)?.map(|text| (text, column)))
    };
    let Some((user, column)) = text("lease_user")? else { return Ok(None) };
    let user = parsed(user, column)?;
    let hold = match text("lease_hold")? {
        Some((tag, column)) => Some(Hold {
            tag: parsed(tag, column)?,
            silence: r.get("lease_silence")?,
            heard: r.get("lease_heard")?,
        }),
        None => None,
    };
    Ok(Some(NodeLease { user, ends: r.get("lease_ends")?, hold }))
}

/// The table of leases of nodes.
pub struct NodeLeaseRow;

impl NodeLeaseRow {
    /// Gives a node this lease instead of the one it had.
    pub fn put(c: &Connection, mac: Mac, lease: &NodeLease) -> Result<()> {
        let hold = lease.hold.as_ref();
        c.execute(
            "INSERT OR REPLACE INTO node_leases (mac, user, ends, hold, silence, heard) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (
                mac.to_string(),
                lease.user.as_str(),
                lease.ends,
                hold.map(|h| h.tag.as_str()),
                hold.map(|h| h.silence),
                hold.map(|h| h.heard),
            ),
        )?;
        Ok(())
    }

    /// Who has a lease, by node.
    pub fn users(c: &Connection) -> Result<BTreeMap<Mac, String>> {
        let mut query = c.prepare_cached("SELECT mac, user FROM node_leases")?;
        Ok(query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, r.get(1)?)))?.collect::<Result<_, _>>()?)
    }

    /// Removes the lease of a node.
    pub fn delete(c: &Connection, mac: Mac) -> Result<()> {
        c.execute("DELETE FROM node_leases WHERE mac = ?1", [mac.to_string()])?;
        Ok(())
    }

    /// Records that all holders were heard now: at the start of the server, which has not listened before.
    pub fn hear_all(c: &Connection, now: f64) -> Result<()> {
        c.execute("UPDATE node_leases SET heard = ?1 WHERE hold IS NOT NULL", [now])?;
        Ok(())
    }
}

/// The table of those who wait for nodes.
pub struct NodeWaitRow;

/// Somebody who waits, and the name of the place in the queue.
pub type Waiting = (Wait, ClientTag);

impl NodeWaitRow {
    /// All who wait, in order.
    pub fn all(c: &Connection) -> Result<Vec<Waiting>> {
        let mut query = c.prepare_cached(
            "SELECT id, user, since, macs, tag FROM node_waits WHERE granted IS NULL ORDER BY id",
        )?;
        let json = |e: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(e))
        };
        let rows = query.query_map([], |r| {
            let nodes: BTreeSet<Mac> = serde_json::from_str(&r.get::<_, String>(3)?).map_err(json)?;
            let wait = Wait { id: r.get(0)?, user: parsed(r.get(1)?, 1)?, since: r.get(2)?, nodes };
            Ok((wait, parsed(r.get(4)?, 4)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds one, in place of an earlier one of this name; its number.
    pub fn insert(
        c: &Connection,
        user: &UserName,
        tag: &ClientTag,
        since: i64,
        nodes: &BTreeSet<Mac>,
    ) -> Result<i64> {
        let macs = serde_json::to_string(nodes).context("addresses are not JSON")?;
        c.execute("DELETE FROM node_waits WHERE user = ?1 AND tag = ?2", (user.as_str(), tag.as_str()))?;
        c.execute(
            "INSERT INTO node_waits (user, tag, since, macs) VALUES (?1, ?2, ?3, ?4)",
            (user.as_str(), tag.as_str(), since, macs),
        )?;
        Ok(c.last_insert_rowid())
    }

    /// Records that one has got the nodes.
    pub fn grant(c: &Connection, id: i64, now: i64) -> Result<()> {
        c.execute("UPDATE node_waits SET granted = ?2 WHERE id = ?1", (id, now))?;
        Ok(())
    }

    /// The nodes that a user got by waiting under this name, if that was not long ago.
    pub fn granted(c: &Connection, user: &UserName, tag: &ClientTag) -> Result<Option<BTreeSet<Mac>>> {
        let mut query = c.prepare_cached(
            "SELECT macs FROM node_waits WHERE user = ?1 AND tag = ?2 AND granted IS NOT NULL",
        )?;
        let mut rows = query.query((user.as_str(), tag.as_str()))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let macs: String = row.get(0)?;
        Ok(Some(serde_json::from_str(&macs).context("the database is damaged: node_waits")?))
    }

    /// Removes all that are not in `keep`, and those who got their nodes before `granted_before`.
    pub fn sweep(c: &Connection, keep: &BTreeSet<i64>, granted_before: i64) -> Result<()> {
        c.execute("DELETE FROM node_waits WHERE granted < ?1", [granted_before])?;
        let ids: Vec<i64> = c
            .prepare_cached("SELECT id FROM node_waits WHERE granted IS NULL")?
            .query_map([], |r| r.get(0))?
            .collect::<Result<_, _>>()?;
        for id in ids.iter().filter(|id| !keep.contains(id)) {
            c.execute("DELETE FROM node_waits WHERE id = ?1", [id])?;
        }
        Ok(())
    }
}

/// How a node was last taken from its owner by another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakingRow {
    /// The node.
    pub mac: Mac,
    /// Its owner before.
    pub owner: String,
    /// Who took it.
    pub user: String,
    /// When, in seconds since the epoch.
    pub at: i64,
}

impl TakingRow {
    /// Records it, in place of an earlier one.
    pub fn put(&self, c: &Connection) -> Result<()> {
        c.execute(
            "INSERT OR REPLACE INTO node_takings (mac, owner, user, at) VALUES (?1, ?2, ?3, ?4)",
            (self.mac.to_string(), &self.owner, &self.user, self.at),
        )?;
        Ok(())
    }

    /// Removes that of a node, since its former owner has it again.
    pub fn delete_of(c: &Connection, mac: Mac, owner: &str) -> Result<()> {
        c.execute("DELETE FROM node_takings WHERE mac = ?1 AND owner = ?2", (mac.to_string(), owner))?;
        Ok(())
    }

    /// All since a time, by node.
    pub fn since(c: &Connection, time: i64) -> Result<BTreeMap<Mac, Self>> {
        let mut query = c.prepare_cached("SELECT mac, owner, user, at FROM node_takings WHERE at >= ?1")?;
        let rows = query.query_map([time], |r| {
            Ok(Self { mac: parsed(r.get(0)?, 0)?, owner: r.get(1)?, user: r.get(2)?, at: r.get(3)? })
        })?;
        let all: Vec<Self> = rows.collect::<Result<_, _>>()?;
        Ok(all.into_iter().map(|row| (row.mac, row)).collect())
    }
}
