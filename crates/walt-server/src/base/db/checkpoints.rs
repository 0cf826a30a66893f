//! Checkpoints: moments to which users have given names.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::Connection;
use walt_types::{CheckpointName, UserName};

/// A checkpoint of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Its name.
    pub name: CheckpointName,
    /// Microseconds since 1970.
    pub at: i64,
}

impl CheckpointRow {
    /// Those of a user, by time.
    pub fn of(c: &Connection, user: &UserName) -> Result<Vec<Self>> {
        let mut query =
            c.prepare_cached("SELECT name, at FROM checkpoints WHERE user = ?1 ORDER BY at, name")?;
        let rows =
            query.query_map([user.as_str()], |r| Ok(Self { name: parsed(r.get(0)?, 0)?, at: r.get(1)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds it to those of a user.
    pub fn put(&self, c: &Connection, user: &UserName) -> Result<()> {
        let values = (user.as_str(), self.name.as_str(), self.at);
        c.execute("INSERT INTO checkpoints (user, name, at) VALUES (?1, ?2, ?3)", values)?;
        Ok(())
    }

    /// Removes one; false if there is not one of this name.
    pub fn delete(c: &Connection, user: &UserName, name: &CheckpointName) -> Result<bool> {
        let values = (user.as_str(), name.as_str());
        Ok(c.execute("DELETE FROM checkpoints WHERE user = ?1 AND name = ?2", values)? > 0)
    }
}
