//! Images that builds have got from registries.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use walt_types::{ImageId, UserName};

/// What a name after `FROM` meant at the registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRow {
    /// Whose build it was: others may not read all that he may.
    pub user: UserName,
    /// The name.
    pub name: String,
    /// What it was wanted for, most wanted first.
    pub platforms: String,
    /// The image.
    pub image_id: ImageId,
    /// Where it was found: label, repository, tag, digest.
    pub place: String,
    /// Bytes of its layers, as tars.
    pub size: u64,
}

fn row(r: &Row<'_>) -> rusqlite::Result<BaseRow> {
    let size: i64 = r.get(5)?;
    Ok(BaseRow {
        user: parsed(r.get(0)?, 0)?,
        name: r.get(1)?,
        platforms: r.get(2)?,
        image_id: parsed(r.get(3)?, 3)?,
        place: r.get(4)?,
        size: size.unsigned_abs(),
    })
}

impl BaseRow {
    /// What a name meant; `used` from now on.
    pub fn take(c: &Connection, user: &UserName, name: &str, platforms: &str) -> Result<Option<Self>> {
        let found = c
            .prepare_cached(
                "UPDATE build_bases SET used = ?4 WHERE user = ?1 AND name = ?2 AND platforms = ?3
                 RETURNING user, name, platforms, image_id, place, size",
            )?
            .query_row((user.as_str(), name, platforms, crate::base::time::now() as i64), row)
            .optional()?;
        Ok(found)
    }

    /// Records it, in place of what was known.
    pub fn put(&self, c: &Connection) -> Result<()> {
        c.execute(
            "INSERT OR REPLACE INTO build_bases (user, name, platforms, image_id, place, size, used)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                self.user.as_str(),
                &self.name,
                &self.platforms,
                self.image_id.to_string(),
                &self.place,
                self.size as i64,
                crate::base::time::now() as i64,
            ),
        )?;
        Ok(())
    }

    /// The images of all of them.
    pub fn images(c: &Connection) -> Result<Vec<ImageId>> {
        let mut query = c.prepare_cached("SELECT DISTINCT image_id FROM build_bases")?;
        Ok(query.query_map([], |r| parsed(r.get(0)?, 0))?.collect::<Result<_, _>>()?)
    }
}
