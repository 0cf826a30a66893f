//! Rows of a WalT 10 server that are kept until a version has a place for them.

use anyhow::Result;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// The table of kept rows.
pub struct KeptRow;

impl KeptRow {
    /// All of them: table of the existing server, and row as JSON.
    pub fn all(c: &Connection) -> Result<BTreeSet<(String, String)>> {
        let mut query = c.prepare_cached("SELECT source, row FROM walt10")?;
        Ok(query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?)
    }

    /// Keeps one.
    pub fn put(c: &Connection, source: &str, row: &str) -> Result<()> {
        c.execute("INSERT OR IGNORE INTO walt10 (source, row) VALUES (?1, ?2)", (source, row))?;
        Ok(())
    }
}
