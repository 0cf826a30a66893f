//! Settings of devices that are not nodes, and what running nodes have booted with. The settings of nodes are in
//! [`NodeRow`](crate::base::db::NodeRow).

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::Connection;
use std::collections::BTreeMap;
use walt_types::Mac;

/// Values by key.
pub type Settings = BTreeMap<String, String>;

fn all(c: &Connection, table: &str) -> Result<BTreeMap<Mac, Settings>> {
    let mut query = c.prepare_cached(&format!("SELECT mac, key, value FROM {table}"))?;
    let mut all: BTreeMap<Mac, Settings> = BTreeMap::new();
    for found in query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, r.get(1)?, r.get(2)?)))? {
        let (mac, key, value) = found?;
        all.entry(mac).or_default().insert(key, value);
    }
    Ok(all)
}

/// Settings of all devices that are not nodes, as far as they were changed from their defaults.
pub fn of_devices(c: &Connection) -> Result<BTreeMap<Mac, Settings>> {
    all(c, "device_settings")
}

/// Sets one setting of a device that is not a node, or takes it back to its default.
pub fn set_of_device(c: &Connection, mac: Mac, key: &str, value: Option<&str>) -> Result<()> {
    match value {
        Some(value) => c.execute(
            "INSERT INTO device_settings (mac, key, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (mac, key) DO UPDATE SET value = excluded.value",
            (mac.to_string(), key, value),
        )?,
        None => {
            c.execute("DELETE FROM device_settings WHERE mac = ?1 AND key = ?2", (mac.to_string(), key))?
        }
    };
    Ok(())
}

/// What running nodes have booted with, of the settings that were changed since.
pub fn booted_with(c: &Connection) -> Result<BTreeMap<Mac, Settings>> {
    all(c, "booted_with")
}

/// Records what a running node has booted with, before the setting is changed. The first value since the boot counts.
pub fn keep_booted_with(c: &Connection, mac: Mac, key: &str, value: &str) -> Result<()> {
    c.execute(
        "INSERT OR IGNORE INTO booted_with (mac, key, value) VALUES (?1, ?2, ?3)",
        (mac.to_string(), key, value),
    )?;
    Ok(())
}

/// Records that a node boots with these settings as they are now.
pub fn booted<'a>(c: &Connection, mac: Mac, keys: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut query = c.prepare_cached("DELETE FROM booted_with WHERE mac = ?1 AND key = ?2")?;
    for key in keys {
        query.execute((mac.to_string(), key))?;
    }
    Ok(())
}
