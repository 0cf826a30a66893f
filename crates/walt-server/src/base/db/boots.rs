//! The last boots of nodes.

use crate::base::db::parsed;
use anyhow::{Context, Result};
use rusqlite::Connection;
use walt_core::boots::{BOOTS_KEPT, Record};
use walt_types::Mac;

/// One boot of a node.
#[derive(Debug, Clone)]
pub struct BootRow {
    /// Its number, from 1, on this node.
    pub number: u64,
    /// What is known of it.
    pub record: Record,
}

fn row(number: i64, json: &str) -> Result<BootRow> {
    let record = serde_json::from_str(json).context("a record of a boot is damaged")?;
    Ok(BootRow { number: u64::try_from(number)?, record })
}

impl BootRow {
    /// The boots of a node that are kept, the first one first.
    pub fn all(c: &Connection, mac: Mac) -> Result<Vec<Self>> {
        let mut query =
            c.prepare_cached("SELECT number, record FROM boots WHERE mac = ?1 ORDER BY number")?;
        let rows = query.query_map([mac.to_string()], |r| Ok((r.get(0)?, r.get::<_, String>(1)?)))?;
        rows.map(|found| found.map_err(Into::into).and_then(|(number, json)| row(number, &json))).collect()
    }

    /// The last boot of each node.
    pub fn last(c: &Connection) -> Result<Vec<(Mac, Self)>> {
        // SQLite takes the other columns from the row that has the maximum.
        let mut query = c.prepare_cached("SELECT mac, max(number), record FROM boots GROUP BY mac")?;
        let rows =
            query.query_map([], |r| Ok((parsed::<Mac>(r.get(0)?, 0)?, r.get(1)?, r.get::<_, String>(2)?)))?;
        rows.map(|found| {
            let (mac, number, json) = found?;
            Ok((mac, row(number, &json)?))
        })
        .collect()
    }

    /// Keeps what is known of a boot, and drops the oldest one where there are too many. A node that is gone meanwhile
    /// is ignored.
    pub fn put(&self, c: &Connection, mac: Mac) -> Result<()> {
        let json = serde_json::to_string(&self.record).context("cannot write a record of a boot")?;
        let (mac, number) = (mac.to_string(), i64::try_from(self.number)?);
        c.execute(
            "INSERT INTO boots (mac, number, record) SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM nodes WHERE mac = ?1)
             ON CONFLICT (mac, number) DO UPDATE SET record = excluded.record",
            (&mac, number, json),
        )?;
        let oldest = number - BOOTS_KEPT as i64;
        c.execute("DELETE FROM boots WHERE mac = ?1 AND number <= ?2", (&mac, oldest))?;
        Ok(())
    }
}
