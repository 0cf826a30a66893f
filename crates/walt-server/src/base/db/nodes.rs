//! Nodes, their settings and grants.

use crate::base::db::{
    node_leases::{LEASE_COLUMNS, lease},
    parsed,
};
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use std::{collections::BTreeMap, net::Ipv4Addr};
use walt_core::{
    NodeFacts,
    life::{BootMode, Life},
    node_leases::NodeLease,
};
use walt_types::{ImageRef, Mac, NodeName, ViewId};

/// One node.
#[derive(Debug, Clone)]
pub struct NodeRow {
    /// Ethernet address that it boots with; its identity.
    pub mac: Mac,
    /// Name, model, image, kind.
    pub facts: NodeFacts,
    /// Permanent address.
    pub ip: Ipv4Addr,
    /// Identity towards qemu (SMBIOS system UUID).
    pub uuid: String,
    /// Its life cycle.
    pub life: Life,
    /// The lease that its owner has; recorded by `NodeLeaseRow`.
    pub lease: Option<NodeLease>,
}

const COLUMNS: &str = "mac, name, ip, model, image, virtual, uuid, started, old_boot_id, boot_id, booted, link_lost, boot_mode, copied_at, \
     copied, clock_from, tries, needs_look";

/// The query of nodes, with a condition or an order.
fn select(rest: &str) -> String {
    format!("SELECT {COLUMNS}, {LEASE_COLUMNS} FROM nodes LEFT JOIN node_leases USING (mac) {rest}")
}

fn row(r: &Row<'_>) -> rusqlite::Result<NodeRow> {
    let facts = NodeFacts {
        name: parsed(r.get(1)?, 1)?,
        model: parsed(r.get(3)?, 3)?,
        image: parsed(r.get(4)?, 4)?,
        is_virtual: r.get(5)?,
    };
    Ok(NodeRow {
        mac: parsed(r.get(0)?, 0)?,
        // That of a former owner does not count.
        lease: lease(r)?.filter(|lease| lease.user.as_str() == facts.owner()),
        facts,
        ip: parsed(r.get(2)?, 2)?,
        uuid: r.get(6)?,
        life: Life {
            started: r.get(7)?,
            old_boot_id: r.get(8)?,
            boot_id: r.get(9)?,
            booted: r.get(10)?,
            link_lost: r.get(11)?,
            mode: r.get::<_, Option<String>>(12)?.and_then(|name| BootMode::from_name(&name)),
            copied_at: r.get(13)?,
            copied: r.get(14)?,
            clock_from: r.get(15)?,
            tries: r.get(16)?,
            needs_look: r.get(17)?,
        },
    })
}

impl NodeRow {
    /// Whether `<name>` in the paths `/var/lib/walt/nodes/<name>/…`, which are built into images, is this node: its
    /// Ethernet address (pairs joined by `:` or `-`), its IP address or its name.
    pub fn is_called(&self, name: &str) -> bool {
        name.parse::<Mac>().is_ok_and(|mac| mac == self.mac)
            || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip == self.ip)
            || self.facts.name.as_str().eq_ignore_ascii_case(name)
    }

    /// All nodes by name.
    pub fn all(c: &Connection) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(&select("ORDER BY name"))?;
        Ok(query.query_map([], row)?.collect::<Result<_, _>>()?)
    }

    /// The node with this Ethernet address.
    pub fn by_mac(c: &Connection, mac: Mac) -> Result<Option<Self>> {
        let mut query = c.prepare_cached(&select("WHERE mac = ?1"))?;
        Ok(query.query_row([mac.to_string()], row).optional()?)
    }

    /// The node with this IP address.
    pub fn by_ip(c: &Connection, ip: Ipv4Addr) -> Result<Option<Self>> {
        let mut query = c.prepare_cached(&select("WHERE ip = ?1"))?;
        Ok(query.query_row([ip.to_string()], row).optional()?)
    }

    /// The node with this name, regardless of case.
    pub fn by_name(c: &Connection, name: &str) -> Result<Option<Self>> {
        let mut query = c.prepare_cached(&select("WHERE name = ?1"))?;
        Ok(query.query_row([name], row).optional()?)
    }

    /// Adds it.
    pub fn insert(&self, c: &Connection) -> Result<()> {
        c.execute(
            "INSERT INTO nodes (mac, name, ip, model, image, virtual, uuid) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                self.mac.to_string(),
                self.facts.name.as_str(),
                self.ip.to_string(),
                self.facts.model.as_str(),
                self.facts.image.full(),
                self.facts.is_virtual,
                &self.uuid,
            ),
        )?;
        Ok(())
    }

    /// Removes it with its settings and grants.
    pub fn delete(c: &Connection, mac: Mac) -> Result<()> {
        c.execute("DELETE FROM nodes WHERE mac = ?1", [mac.to_string()])?;
        Ok(())
    }

    /// Renames it.
    pub fn set_name(c: &Connection, mac: Mac, name: &NodeName) -> Result<()> {
        c.execute("UPDATE nodes SET name = ?2 WHERE mac = ?1", (mac.to_string(), name.as_str()))?;
        Ok(())
    }

    /// Associates it with an image.
    pub fn set_image(c: &Connection, mac: Mac, image: &ImageRef) -> Result<()> {
        c.execute("UPDATE nodes SET image = ?2 WHERE mac = ?1", (mac.to_string(), image.full()))?;
        Ok(())
    }

    /// Records its life cycle.
    pub fn set_life(c: &Connection, mac: Mac, life: &Life) -> Result<()> {
        c.execute(
            "UPDATE nodes SET started = ?2, old_boot_id = ?3, boot_id = ?4, booted = ?5, link_lost = ?6, boot_mode = ?7,
             copied_at = ?8, copied = ?9, clock_from = ?10, tries = ?11, needs_look = ?12 WHERE mac = ?1",
            (
                mac.to_string(),
                life.started,
                &life.old_boot_id,
                &life.boot_id,
                life.booted,
                life.link_lost,
                life.mode.map(BootMode::name),
                life.copied_at,
                life.copied,
                life.clock_from,
                life.tries,
                &life.needs_look,
            ),
        )?;
        Ok(())
    }

    /// Settings that were changed from their defaults.
    pub fn settings(c: &Connection, mac: Mac) -> Result<BTreeMap<String, String>> {
        let mut query = c.prepare_cached("SELECT key, value FROM settings WHERE mac = ?1")?;
        Ok(query.query_map([mac.to_string()], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?)
    }

    /// Settings of all nodes that were changed from their defaults.
    pub fn all_settings(c: &Connection) -> Result<BTreeMap<Mac, BTreeMap<String, String>>> {
        let mut query = c.prepare_cached("SELECT mac, key, value FROM settings")?;
        let mut all: BTreeMap<Mac, BTreeMap<String, String>> = BTreeMap::new();
        let rows = query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, r.get(1)?, r.get(2)?)))?;
        for found in rows {
            let (mac, key, value) = found?;
            all.entry(mac).or_default().insert(key, value);
        }
        Ok(all)
    }

    /// Sets one setting.
    pub fn set_setting(c: &Connection, mac: Mac, key: &str, value: &str) -> Result<()> {
        c.execute(
            "INSERT INTO settings (mac, key, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (mac, key) DO UPDATE SET value = excluded.value",
            (mac.to_string(), key, value),
        )?;
        Ok(())
    }

    /// Sets one setting, or takes it back to its default.
    pub fn put_setting(c: &Connection, mac: Mac, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => Self::set_setting(c, mac, key, value),
            None => {
                c.execute("DELETE FROM settings WHERE mac = ?1 AND key = ?2", (mac.to_string(), key))?;
                Ok(())
            }
        }
    }

    /// Grants access to a view.
    pub fn grant(c: &Connection, mac: Mac, view: &ViewId, now: i64) -> Result<()> {
        c.execute(
            "INSERT INTO grants (mac, view, since) VALUES (?1, ?2, ?3)
             ON CONFLICT (mac, view) DO UPDATE SET since = excluded.since",
            (mac.to_string(), view.to_string(), now),
        )?;
        Ok(())
    }

    /// Revokes all grants but one, once the node has reported which view it booted.
    pub fn keep_grant(c: &Connection, mac: Mac, view: &ViewId) -> Result<()> {
        c.execute("DELETE FROM grants WHERE mac = ?1 AND view <> ?2", (mac.to_string(), view.to_string()))?;
        Ok(())
    }

    /// Views that a node may read.
    pub fn grants(c: &Connection, mac: Mac) -> Result<Vec<ViewId>> {
        let mut query = c.prepare_cached("SELECT view FROM grants WHERE mac = ?1")?;
        Ok(query.query_map([mac.to_string()], |r| parsed(r.get(0)?, 0))?.collect::<Result<_, _>>()?)
    }

    /// Id of the `/persist` directory of a node and an owner, created if missing.
    pub fn persist_id(c: &Connection, mac: Mac, owner: &str) -> Result<u64> {
        let key = (mac.to_string(), owner);
        c.execute("INSERT OR IGNORE INTO persists (mac, owner) VALUES (?1, ?2)", (&key.0, key.1))?;
        Ok(c.query_row("SELECT id FROM persists WHERE mac = ?1 AND owner = ?2", key, |r| {
            Ok(r.get::<_, i64>(0)? as u64)
        })?)
    }

    /// Directories of `/persist` of a node: id and owner.
    pub fn persists(c: &Connection, mac: Mac) -> Result<Vec<(u64, String)>> {
        let mut query = c.prepare_cached("SELECT id, owner FROM persists WHERE mac = ?1")?;
        Ok(query
            .query_map([mac.to_string()], |r| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?)))?
            .collect::<Result<_, _>>()?)
    }

    /// Restores a directory of `/persist` with the number that it had: file handles that nodes keep stay valid.
    pub fn put_persist(c: &Connection, mac: Mac, id: u64, owner: &str) -> Result<()> {
        let id = i64::try_from(id)?;
        c.execute("INSERT INTO persists (id, mac, owner) VALUES (?1, ?2, ?3)", (id, mac.to_string(), owner))?;
        Ok(())
    }

    /// All grants: which node may read which view.
    pub fn all_grants(c: &Connection) -> Result<Vec<(Mac, ViewId)>> {
        let mut query = c.prepare_cached("SELECT mac, view FROM grants")?;
        let rows = query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, parsed(r.get(1)?, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
