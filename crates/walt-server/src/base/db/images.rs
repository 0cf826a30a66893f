//! References to images, platform layers, users.

use crate::base::db::{By, HistoryRow, PushRow, parsed};
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use walt_types::{DiffId, ImageId, ImageRef, ViewId};

/// One reference.
#[derive(Debug, Clone)]
pub struct RefRow {
    /// `<user>/<name>:<tag>`.
    pub reference: ImageRef,
    /// The image it points to.
    pub image_id: ImageId,
    /// When the image was made, in seconds since the epoch.
    pub created: i64,
}

fn row(r: &Row<'_>) -> rusqlite::Result<RefRow> {
    Ok(RefRow { reference: parsed(r.get(0)?, 0)?, image_id: parsed(r.get(1)?, 1)?, created: r.get(2)? })
}

impl RefRow {
    /// All references by full name.
    pub fn all(c: &Connection) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached("SELECT fullname, image_id, created FROM refs ORDER BY fullname")?;
        Ok(query.query_map([], row)?.collect::<Result<_, _>>()?)
    }

    /// A reference by its name.
    pub fn get(c: &Connection, reference: &ImageRef) -> Result<Option<Self>> {
        let mut query =
            c.prepare_cached("SELECT fullname, image_id, created FROM refs WHERE fullname = ?1")?;
        Ok(query.query_row([reference.full()], row).optional()?)
    }

    /// Creates or changes the reference, and records that in its history. Call it in a transaction.
    pub fn put(&self, c: &Connection, by: &By) -> Result<()> {
        c.execute(
            "INSERT INTO refs (fullname, image_id, created) VALUES (?1, ?2, ?3)
             ON CONFLICT (fullname) DO UPDATE SET image_id = excluded.image_id, created = excluded.created",
            (self.reference.full(), self.image_id.to_string(), self.created),
        )?;
        HistoryRow::add(c, &self.reference, &self.image_id, by)
    }

    /// Renames a reference to a free name, with its history and its pushes.
    pub fn rename(c: &Connection, reference: &ImageRef, new: &ImageRef) -> Result<()> {
        let names = (reference.full(), new.full());
        c.execute("UPDATE refs SET fullname = ?2 WHERE fullname = ?1", (&names.0, &names.1))?;
        c.execute("UPDATE history SET fullname = ?2 WHERE fullname = ?1", (&names.0, &names.1))?;
        PushRow::rename(c, reference, new)
    }

    /// Removes a reference and its history; housekeeping removes unused images.
    pub fn delete(c: &Connection, reference: &ImageRef) -> Result<()> {
        c.execute("DELETE FROM refs WHERE fullname = ?1", [reference.full()])?;
        c.execute("DELETE FROM history WHERE fullname = ?1", [reference.full()])?;
        PushRow::delete(c, reference)
    }
}

/// The platform layer of an image for these inputs, if there is one.
pub fn platform(c: &Connection, image: &ImageId, inputs: &str) -> Result<Option<(DiffId, ViewId)>> {
    let mut query =
        c.prepare_cached("SELECT diff_id, view FROM platforms WHERE image_id = ?1 AND inputs = ?2")?;
    let found = query
        .query_row((image.to_string(), inputs), |r| Ok((parsed(r.get(0)?, 0)?, parsed(r.get(1)?, 1)?)))
        .optional()?;
    Ok(found)
}

/// Records a platform layer, and removes records for other inputs (grants keep views in use).
pub fn put_platform(
    c: &Connection,
    image: &ImageId,
    inputs: &str,
    diff_id: &DiffId,
    view: &ViewId,
) -> Result<()> {
    c.execute("DELETE FROM platforms WHERE image_id = ?1", [image.to_string()])?;
    c.execute(
        "INSERT INTO platforms (image_id, inputs, diff_id, view) VALUES (?1, ?2, ?3, ?4)",
        (image.to_string(), inputs, diff_id.to_string(), view.to_string()),
    )?;
    Ok(())
}

/// All platform layers: image, layer, view.
pub fn platforms(c: &Connection) -> Result<Vec<(ImageId, DiffId, ViewId)>> {
    let mut query = c.prepare_cached("SELECT image_id, diff_id, view FROM platforms")?;
    let rows =
        query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, parsed(r.get(1)?, 1)?, parsed(r.get(2)?, 2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes the records of an image's platform layers.
pub fn forget_platform(c: &Connection, image: &ImageId) -> Result<()> {
    c.execute("DELETE FROM platforms WHERE image_id = ?1", [image.to_string()])?;
    Ok(())
}
