//! What is in a database, without what it contains: for support.

use crate::base::db::Db;
use anyhow::Result;
use std::{fmt::Write as _, path::Path};

/// Version, check, tables with their definitions and numbers of rows.
///
/// # Errors
/// It cannot be opened or read.
pub fn describe(state_dir: &Path) -> Result<String> {
    Db::open_to_read(state_dir)?.with(|c| {
        let pragma = |name: &str| -> Result<String> {
            let value: rusqlite::types::Value =
                c.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
            Ok(match value {
                rusqlite::types::Value::Integer(n) => n.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            })
        };
        let mut text = format!("SQLite {}\n", rusqlite::version());
        // Writing to a string cannot fail.
        for name in
            ["user_version", "journal_mode", "page_size", "page_count", "freelist_count", "quick_check(10)"]
        {
            let _ = writeln!(text, "{name}: {}", pragma(name)?);
        }
        let mut query =
            c.prepare("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")?;
        let objects = query
            .query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (_, name, _) in objects.iter().filter(|(kind, ..)| kind == "table") {
            // The name is that of a table of ours.
            let rows: i64 = c.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0))?;
            let _ = writeln!(text, "{name}: {rows} rows");
        }
        for (_, _, sql) in &objects {
            let _ = writeln!(text, "\n{sql};");
        }
        Ok(text)
    })
}
