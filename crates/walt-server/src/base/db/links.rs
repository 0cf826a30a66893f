//! Shapes that links have for a while.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::Connection;
use walt_types::{Mac, NetworkName, Shape};

/// The shape that the link between a node and a network has for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkRow {
    /// The node.
    pub mac: Mac,
    /// The network.
    pub network: NetworkName,
    /// The shape.
    pub shape: Shape,
    /// When the link gets its configured shape again, in seconds since the epoch.
    pub until: f64,
}

impl LinkRow {
    /// All of them.
    pub fn all(c: &Connection) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached("SELECT mac, network, shape, until FROM passing_shapes")?;
        let rows = query.query_map([], |r| {
            Ok(Self {
                mac: parsed(r.get(0)?, 0)?,
                network: parsed(r.get(1)?, 1)?,
                shape: parsed(r.get(2)?, 2)?,
                until: r.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds it, in the place of another one of this link.
    pub fn put(&self, c: &Connection) -> Result<()> {
        c.execute(
            "INSERT OR REPLACE INTO passing_shapes (mac, network, shape, until) VALUES (?1, ?2, ?3, ?4)",
            (self.mac.to_string(), self.network.as_str(), self.shape.to_string(), self.until),
        )?;
        Ok(())
    }

    /// Removes that of a link, if it has one.
    pub fn delete(c: &Connection, mac: Mac, network: &str) -> Result<()> {
        c.execute("DELETE FROM passing_shapes WHERE mac = ?1 AND network = ?2", (mac.to_string(), network))?;
        Ok(())
    }

    /// Removes those of a node.
    pub fn delete_of(c: &Connection, mac: Mac) -> Result<()> {
        c.execute("DELETE FROM passing_shapes WHERE mac = ?1", [mac.to_string()])?;
        Ok(())
    }
}
