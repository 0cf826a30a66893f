//! Sessions of image shells.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};
use walt_types::{DiffId, ImageId, ImageRef, UserName};

/// One session.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Its id, also the name of its directory.
    pub id: String,
    /// Its user.
    pub user: UserName,
    /// The reference it was opened on.
    pub image: ImageRef,
    /// The image that it pointed to at the time.
    pub image_id: ImageId,
    /// Its platform layer.
    pub platform: DiffId,
    /// Selects its address and its interface.
    pub slot: u32,
    /// When it was opened, in seconds since the epoch.
    pub opened: i64,
    /// When a client was last attached.
    pub used: i64,
    /// The commit under way.
    pub committing: Option<Committing>,
}

/// A commit under way: everything needed to complete it after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committing {
    /// The new layer.
    pub diff_id: DiffId,
    /// The new image, whose configuration is in the store already.
    pub image_id: ImageId,
    /// The reference that will point to it.
    pub target: ImageRef,
    /// What the reference pointed to when the user confirmed; none if it did not exist.
    pub expected: Option<ImageId>,
    /// When the new image was made.
    pub created: i64,
}

const COLUMNS: &str = "id, user, image, image_id, platform, slot, opened, used, committing";

fn row(r: &Row<'_>) -> rusqlite::Result<SessionRow> {
    let committing: Option<String> = r.get(8)?;
    let committing = committing.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(8, rusqlite::types::Type::Text, Box::new(e))
    })?;
    Ok(SessionRow {
        id: r.get(0)?,
        user: parsed(r.get(1)?, 1)?,
        image: parsed(r.get(2)?, 2)?,
        image_id: parsed(r.get(3)?, 3)?,
        platform: parsed(r.get(4)?, 4)?,
        slot: r.get(5)?,
        opened: r.get(6)?,
        used: r.get(7)?,
        committing,
    })
}

impl SessionRow {
    /// All sessions.
    pub fn all(c: &Connection) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions ORDER BY opened"))?;
        Ok(query.query_map([], row)?.collect::<Result<_, _>>()?)
    }

    /// The session with this id.
    pub fn get(c: &Connection, id: &str) -> Result<Option<Self>> {
        let mut query = c.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1"))?;
        Ok(query.query_row([id], row).optional()?)
    }

    /// The open session of an image.
    pub fn of_image(c: &Connection, image: &ImageRef) -> Result<Option<Self>> {
        let mut query = c.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE image = ?1"))?;
        Ok(query.query_row([image.full()], row).optional()?)
    }

    /// Adds it.
    pub fn insert(&self, c: &Connection) -> Result<()> {
        c.execute(
            "INSERT INTO sessions (id, user, image, image_id, platform, slot, opened, used)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                &self.id,
                self.user.as_str(),
                self.image.full(),
                self.image_id.to_string(),
                self.platform.to_string(),
                self.slot,
                self.opened,
                self.used,
            ),
        )?;
        Ok(())
    }

    /// Records that a client is or was just attached.
    pub fn touch(c: &Connection, id: &str, now: i64) -> Result<()> {
        c.execute("UPDATE sessions SET used = ?2 WHERE id = ?1", (id, now))?;
        Ok(())
    }

    /// Records the commit that is about to be made.
    pub fn set_committing(c: &Connection, id: &str, commit: Option<&Committing>) -> Result<()> {
        let text = commit.map(serde_json::to_string).transpose()?;
        c.execute("UPDATE sessions SET committing = ?2 WHERE id = ?1", (id, text))?;
        Ok(())
    }

    /// Removes a session.
    pub fn delete(c: &Connection, id: &str) -> Result<()> {
        c.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
        Ok(())
    }
}
