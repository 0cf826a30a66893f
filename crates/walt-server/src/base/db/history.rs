//! The history of references.

use crate::base::{db::parsed, time};
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use walt_types::{ImageId, ImageRef};

/// Who made a reference point to another image, and by which command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// A user, or `waltplatform` for the server itself.
    pub user: String,
    /// The command as the user would type it.
    pub command: String,
}

impl By {
    /// A user's command.
    pub fn new(user: impl ToString, command: impl Into<String>) -> Self {
        Self { user: user.to_string(), command: command.into() }
    }
}

/// One version of a reference.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    /// 1, 2, … of this reference; the highest is the current one.
    pub version: u32,
    /// The image.
    pub image_id: ImageId,
    /// When it became current, in seconds since the epoch.
    pub since: i64,
    /// By whom.
    pub by: By,
}

fn row(r: &Row<'_>) -> rusqlite::Result<HistoryRow> {
    let by = By { user: r.get(3)?, command: r.get(4)? };
    Ok(HistoryRow { version: r.get(0)?, image_id: parsed(r.get(1)?, 1)?, since: r.get(2)?, by })
}

impl HistoryRow {
    /// All versions of a reference, newest first.
    pub fn of(c: &Connection, reference: &ImageRef) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(
            "SELECT version, image_id, since, user, command FROM history WHERE fullname = ?1
             ORDER BY version DESC",
        )?;
        Ok(query.query_map([reference.full()], row)?.collect::<Result<_, _>>()?)
    }

    /// Every image that some reference points to or has pointed to.
    pub fn images(c: &Connection) -> Result<Vec<ImageId>> {
        let mut query = c.prepare_cached("SELECT DISTINCT image_id FROM history")?;
        let rows = query.query_map([], |r| parsed(r.get(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a version, unless the reference already points to the image.
    pub(super) fn add(c: &Connection, reference: &ImageRef, image: &ImageId, by: &By) -> Result<()> {
        let name = reference.full();
        let last: Option<(u32, String)> = c
            .prepare_cached(
                "SELECT version, image_id FROM history WHERE fullname = ?1 ORDER BY version DESC LIMIT 1",
            )?
            .query_row([&name], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let image = image.to_string();
        if last.as_ref().is_some_and(|(_, now)| *now == image) {
            return Ok(());
        }
        c.execute(
            "INSERT INTO history (fullname, version, image_id, since, user, command)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (name, last.map_or(1, |(n, _)| n + 1), image, time::now() as i64, &by.user, &by.command),
        )?;
        Ok(())
    }

    /// Removes all versions of a reference but the current one; their number.
    pub fn prune(c: &Connection, reference: &ImageRef) -> Result<usize> {
        Ok(c.execute(
            "DELETE FROM history WHERE fullname = ?1
             AND version < (SELECT max(version) FROM history WHERE fullname = ?1)",
            [reference.full()],
        )?)
    }

    /// Removes the versions, of all references, that were replaced before `time` (seconds since the epoch); their
    /// number.
    pub fn forget_overwritten_before(c: &Connection, time: i64) -> Result<usize> {
        Ok(c.execute(
            "DELETE FROM history AS old WHERE EXISTS (
                SELECT 1 FROM history AS new
                WHERE new.fullname = old.fullname AND new.version > old.version AND new.since < ?1)",
            [time],
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Db, RefRow};
    use super::*;
    use walt_types::Hash256;

    #[test]
    fn versions_are_added_renamed_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        let name: ImageRef = "ann/x".parse().unwrap();
        let put = |n: u8| {
            let image_id = ImageId(Hash256([n; 32]));
            let row = RefRow { reference: name.clone(), image_id, created: 1 };
            db.with(|c| row.put(c, &By::new("ann", format!("command {n}")))).unwrap();
        };
        [1, 1, 2, 3].into_iter().for_each(put);
        let versions = |name: &ImageRef| {
            let rows = db.with(|c| HistoryRow::of(c, name)).unwrap();
            rows.iter().map(|r| (r.version, r.image_id.0.0[0])).collect::<Vec<_>>()
        };
        assert_eq!(versions(&name), [(3, 3), (2, 2), (1, 1)]);
        let new: ImageRef = "ann/y".parse().unwrap();
        db.transaction(|tx| RefRow::rename(tx, &name, &new)).unwrap();
        assert!(versions(&name).is_empty());
        assert_eq!(db.with(HistoryRow::images).unwrap().len(), 3);
        // Overwritten just now: not before the year 2000, but before tomorrow.
        assert_eq!(db.with(|c| HistoryRow::forget_overwritten_before(c, 946_684_800)).unwrap(), 0);
        db.with(|c| c.execute("UPDATE history SET since = 5 WHERE version = 2", []).map_err(Into::into))
            .unwrap();
        assert_eq!(db.with(|c| HistoryRow::forget_overwritten_before(c, 10)).unwrap(), 1);
        assert_eq!(versions(&new), [(3, 3), (2, 2)]);
        assert_eq!(db.with(|c| HistoryRow::prune(c, &new)).unwrap(), 1);
        assert_eq!(versions(&new), [(3, 3)]);
        db.with(|c| RefRow::delete(c, &new)).unwrap();
        assert!(versions(&new).is_empty());
    }
}
