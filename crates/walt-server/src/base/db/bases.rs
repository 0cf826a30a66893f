//! Images that builds pulled from registries.

use crate::base::{db::parsed, time};
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use walt_types::{ImageId, UserName};

/// The image of a name after `FROM`, from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRow {
    /// The user of the build: other users may have no access to the image.
    pub user: UserName,
    /// The name.
    pub name: String,
    /// The wanted platforms, most wanted first.
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
    /// The image of a name; marks it as used.
    pub fn take(c: &Connection, user: &UserName, name: &str, platforms: &str) -> Result<Option<Self>> {
        let found = c
            .prepare_cached(
                "UPDATE build_bases SET used = ?4 WHERE user = ?1 AND name = ?2 AND platforms = ?3
                 RETURNING user, name, platforms, image_id, place, size",
            )?
            .query_row((user.as_str(), name, platforms, time::now() as i64), row)
            .optional()?;
        Ok(found)
    }

    /// Records it; replaces an older record.
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
                time::now() as i64,
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
