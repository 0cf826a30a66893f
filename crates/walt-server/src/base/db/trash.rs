//! Forgotten physical nodes.

use crate::base::db::parsed;
use anyhow::{Context, Result};
use rusqlite::{Connection, OptionalExtension, Row};
use std::{collections::BTreeMap, net::Ipv4Addr};
use walt_types::{ImageRef, Mac, Model, NodeName};

/// A forgotten node: what it takes to restore it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashRow {
    /// Its number in the trash, never used again.
    pub id: i64,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its model.
    pub model: Model,
    /// Its image.
    pub image: ImageRef,
    /// Its identity.
    pub uuid: String,
    /// Its settings that were changed from their defaults.
    pub settings: BTreeMap<String, String>,
    /// Owners of its directories of `/persist`, by the number of the export.
    pub persists: BTreeMap<u64, String>,
    /// When it was forgotten, in seconds since the epoch.
    pub forgotten: i64,
    /// By whom.
    pub user: String,
    /// Whether its `/persist` is in the trash, and not where nodes have it.
    pub is_moved: bool,
}

const COLUMNS: &str = "id, mac, name, ip, model, image, uuid, settings, persists, forgotten, user, moved";

fn row(r: &Row<'_>) -> rusqlite::Result<TrashRow> {
    let json = |e: serde_json::Error, column| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
    };
    let (settings, persists): (String, String) = (r.get(7)?, r.get(8)?);
    Ok(TrashRow {
        id: r.get(0)?,
        mac: parsed(r.get(1)?, 1)?,
        name: parsed(r.get(2)?, 2)?,
        ip: parsed(r.get(3)?, 3)?,
        model: parsed(r.get(4)?, 4)?,
        image: parsed(r.get(5)?, 5)?,
        uuid: r.get(6)?,
        settings: serde_json::from_str(&settings).map_err(|e| json(e, 7))?,
        persists: serde_json::from_str(&persists).map_err(|e| json(e, 8))?,
        forgotten: r.get(9)?,
        user: r.get(10)?,
        is_moved: r.get(11)?,
    })
}

impl TrashRow {
    /// All of the trash, what was forgotten last first.
    pub fn all(c: &Connection) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(&format!("SELECT {COLUMNS} FROM trash ORDER BY id DESC"))?;
        Ok(query.query_map([], row)?.collect::<Result<_, _>>()?)
    }

    /// The node of this name that was forgotten last.
    pub fn by_name(c: &Connection, name: &str) -> Result<Option<Self>> {
        let text = format!("SELECT {COLUMNS} FROM trash WHERE name = ?1 ORDER BY id DESC LIMIT 1");
        Ok(c.prepare_cached(&text)?.query_row([name], row).optional()?)
    }

    /// Adds it with a new number, which is the result; `id` does not count.
    pub fn insert(&self, c: &Connection) -> Result<i64> {
        let settings = serde_json::to_string(&self.settings).context("settings are not JSON")?;
        let persists = serde_json::to_string(&self.persists).context("owners are not JSON")?;
        c.execute(
            "INSERT INTO trash (mac, name, ip, model, image, uuid, settings, persists, forgotten, user, moved)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            (
                self.mac.to_string(),
                self.name.as_str(),
                self.ip.to_string(),
                self.model.as_str(),
                self.image.full(),
                &self.uuid,
                settings,
                persists,
                self.forgotten,
                &self.user,
                self.is_moved,
            ),
        )?;
        Ok(c.last_insert_rowid())
    }

    /// Records where the `/persist` of a node is.
    pub fn set_moved(c: &Connection, id: i64, is_moved: bool) -> Result<()> {
        c.execute("UPDATE trash SET moved = ?2 WHERE id = ?1", (id, is_moved))?;
        Ok(())
    }

    /// Removes it.
    pub fn delete(c: &Connection, id: i64) -> Result<()> {
        c.execute("DELETE FROM trash WHERE id = ?1", [id])?;
        Ok(())
    }
}
