//! The build cache: results of earlier steps per user, by the content that the step depends on. Also expires images
//! pulled for `FROM`.
//!
//! A key is a digest of the layers below, of the expanded instruction, and of the content to copy. A result is a
//! layer, or the fact that nothing changed. Caches of `RUN --mount=type=cache` are directories below
//! `<state-dir>/cache/build/`.

use crate::{
    base::{db::Db, files::remove_tree, time},
    services::images::{Images, writers::Writing},
};
use anyhow::{Context, Result};
use rusqlite::OptionalExtension;
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use walt_types::{DiffId, UserName};

/// How long an unused result is kept.
const KEEP: Duration = Duration::from_secs(14 * 86_400);
/// Limit of the bytes of results and of images for `FROM`, as tars; the least recently used are removed first.
const MAX_BYTES: u64 = 20 << 30;
/// How long an unused directory of a cache mount is kept.
const KEEP_MOUNT: Duration = Duration::from_secs(30 * 86_400);

/// The result of an earlier step: a layer, or none if it changed nothing. Pin the layer before you drop the
/// [`Writing`].
///
/// # Errors
/// The database failed.
pub fn find(images: &Images, key: &str, _writing: &Writing<'_>) -> Result<Option<Option<DiffId>>> {
    let now = time::now() as i64;
    let found: Option<Option<String>> = images.db().with(|c| {
        let found = c
            .query_row("SELECT layer FROM build_cache WHERE key = ?1", [key], |row| row.get(0))
            .optional()?;
        if found.is_some() {
            c.execute("UPDATE build_cache SET used = ?2 WHERE key = ?1", (key, now))?;
        }
        Ok(found)
    })?;
    match found {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(text)) => {
            let layer: DiffId = text.parse().context("a layer in the build cache")?;
            // A missing layer invalidates the result.
            Ok(images.store().has_layer(&layer).then_some(Some(layer)))
        }
    }
}

/// Records the result of a step.
pub fn put(images: &Images, key: &str, found: Option<&DiffId>) -> Result<()> {
    let size = match found {
        Some(layer) => images.store().layer_info(layer)?.size,
        None => 0,
    };
    let now = time::now() as i64;
    let layer = found.map(ToString::to_string);
    images.db().with(|c| {
        c.execute(
            "INSERT OR REPLACE INTO build_cache (key, layer, size, used) VALUES (?1, ?2, ?3, ?4)",
            (key, layer, size as i64, now),
        )?;
        Ok(())
    })
}

/// Layers that results refer to.
pub fn live_layers(db: &Db) -> Result<Vec<DiffId>> {
    let texts: Vec<String> = db.with(|c| {
        let mut statement = c.prepare("SELECT DISTINCT layer FROM build_cache WHERE layer IS NOT NULL")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    })?;
    texts.iter().map(|t| t.parse().context("a layer in the build cache")).collect()
}

/// Removes old results, and the least recently used beyond the limit. Called by housekeeping.
pub fn prune(images: &Images) -> Result<()> {
    forget(images.db(), time::now() as i64 - KEEP.as_secs() as i64, MAX_BYTES)?;
    prune_mounts(&mounts_dir(images))
}

/// Removes results not used since `oldest`, and the least recently used beyond `max` bytes.
fn forget(db: &Db, oldest: i64, max: u64) -> Result<()> {
    db.transaction(|tx| -> Result<()> {
        tx.execute("DELETE FROM build_cache WHERE used < ?1", [oldest])?;
        tx.execute("DELETE FROM build_bases WHERE used < ?1", [oldest])?;
        let mut total = 0u64;
        let mut surplus = Vec::new();
        {
            let mut statement = tx.prepare(
                "SELECT 'build_cache', rowid, size, used FROM build_cache
                 UNION ALL SELECT 'build_bases', rowid, size, used FROM build_bases ORDER BY used DESC, rowid",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })?;
            for row in rows {
                let (table, id, size) = row?;
                total = total.saturating_add(size.unsigned_abs());
                if total > max {
                    surplus.push((table, id));
                }
            }
        }
        for (table, id) in surplus {
            tx.execute(&format!("DELETE FROM {table} WHERE rowid = ?1"), [id])?;
        }
        Ok(())
    })
}

fn mounts_dir(images: &Images) -> PathBuf {
    images.config().state_dir.join("cache/build")
}

/// The directory of a user's cache mount, created if missing.
pub fn mount_dir(images: &Images, user: &UserName, id: &str) -> Result<PathBuf> {
    let name = blake3::hash(format!("{user}\0{id}").as_bytes()).to_hex();
    let dir = mounts_dir(images).join(&name.as_str()[..32]);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // The use is recorded even if nothing in the directory changes.
    let used = File::create(dir.with_extension("used")).and_then(|f| f.set_modified(SystemTime::now()));
    used.with_context(|| format!("cannot record the use of {}", dir.display()))?;
    Ok(dir)
}

fn prune_mounts(all: &Path) -> Result<()> {
    let Ok(list) = std::fs::read_dir(all) else { return Ok(()) };
    for entry in list.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "used") {
            continue;
        }
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > KEEP_MOUNT) {
            let lock = path.with_extension("lock");
            let held = File::open(&lock).is_ok_and(|f| {
                use rustix::fs::{FlockOperation, flock};
                flock(&f, FlockOperation::NonBlockingLockExclusive).is_err()
            });
            if !held {
                remove_tree(&path.with_extension(""))?;
                let _ = std::fs::remove_file(&lock);
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::BaseRow;
    use walt_types::{Hash256, ImageId};

    #[test]
    fn bases_are_kept_as_long_as_results() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        let ann: UserName = "ann".parse().unwrap();
        let put = |number: u8, used: i64| {
            let row = BaseRow {
                user: ann.clone(),
                name: format!("base{number}"),
                platforms: "linux/amd64".into(),
                image_id: ImageId(Hash256([number; 32])),
                place: "lab:base".into(),
                size: 100,
            };
            let result = (format!("key{number}"), None::<String>, 100, used);
            db.with(|c| {
                row.put(c)?;
                c.execute("UPDATE build_bases SET used = ?2 WHERE name = ?1", (&row.name, used))?;
                c.execute(
                    "INSERT INTO build_cache (key, layer, size, used) VALUES (?1, ?2, ?3, ?4)",
                    result,
                )?;
                Ok(())
            })
            .unwrap();
        };
        [(1, 10), (2, 20), (3, 30)].into_iter().for_each(|(number, used)| put(number, used));
        let count = |table: &str| -> i64 {
            let query = format!("SELECT count(*) FROM {table}");
            db.with(|c| Ok(c.query_row(&query, [], |r| r.get(0))?)).unwrap()
        };
        forget(&db, 15, 1000).unwrap();
        assert_eq!((count("build_bases"), count("build_cache")), (2, 2));
        // Both of the last use fit, and nothing that was used before.
        forget(&db, 15, 200).unwrap();
        assert_eq!((count("build_bases"), count("build_cache")), (1, 1));
        assert_eq!(db.with(BaseRow::images).unwrap(), [ImageId(Hash256([3; 32]))]);
        let take = |user: &str, platforms: &str| {
            db.with(|c| BaseRow::take(c, &user.parse().unwrap(), "base3", platforms)).unwrap()
        };
        assert!(take("ann", "linux/arm64").is_none() && take("bob", "linux/amd64").is_none());
        assert_eq!(take("ann", "linux/amd64").unwrap().place, "lab:base");
        // It was used just now.
        forget(&db, 40, 200).unwrap();
        assert_eq!((count("build_bases"), count("build_cache")), (1, 0));
    }
}
