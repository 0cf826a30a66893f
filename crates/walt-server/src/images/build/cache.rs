//! Results of earlier steps: by the content that a step depends on, per user.
//!
//! A key is a digest of the layers below, of the instruction with all that is expanded in it, and of the content that is
//! copied. What it found is a layer, or that nothing changed. Caches of `RUN --mount=type=cache` are directories
//! below `<state-dir>/cache/build/`.

use crate::{App, db::Db};
use anyhow::{Context, Result};
use rusqlite::OptionalExtension;
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use walt_types::{DiffId, UserName};

/// How long a result that no build has used is kept.
const KEEP: Duration = Duration::from_secs(14 * 86_400);
/// Most bytes of layers of results, as tars; the ones unused for longest go first.
const MAX_BYTES: u64 = 20 << 30;
/// How long a directory of a cache mount that no build has used is kept.
const KEEP_MOUNT: Duration = Duration::from_secs(30 * 86_400);

/// What an earlier step found: a layer, or none if it changed nothing. Call it with
/// [`writing`](super::housekeeping::writing) held, and pin the layer before letting go.
pub fn find(app: &App, key: &str) -> Result<Option<Option<DiffId>>> {
    let now = crate::now() as i64;
    let found: Option<Option<String>> = app.db.with(|c| {
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
            // One that is gone is no result.
            Ok(app.store.has_layer(&layer).then_some(Some(layer)))
        }
    }
}

/// Keeps what a step found.
pub fn put(app: &App, key: &str, found: Option<&DiffId>) -> Result<()> {
    let size = match found {
        Some(layer) => app.store.layer_info(layer)?.size,
        None => 0,
    };
    let now = crate::now() as i64;
    let layer = found.map(ToString::to_string);
    app.db.with(|c| {
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

/// Forgets results that are old, or too many. Called by housekeeping.
pub fn prune(app: &App) -> Result<()> {
    let oldest = crate::now() as i64 - KEEP.as_secs() as i64;
    app.db.transaction(|tx| -> Result<()> {
        tx.execute("DELETE FROM build_cache WHERE used < ?1", [oldest])?;
        let mut total = 0u64;
        let mut surplus = Vec::new();
        {
            let mut statement = tx.prepare("SELECT key, size FROM build_cache ORDER BY used DESC, key")?;
            let rows =
                statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            for row in rows {
                let (key, size) = row?;
                total = total.saturating_add(size.unsigned_abs());
                if total > MAX_BYTES {
                    surplus.push(key);
                }
            }
        }
        for key in surplus {
            tx.execute("DELETE FROM build_cache WHERE key = ?1", [key])?;
        }
        Ok(())
    })?;
    prune_mounts(&mounts_dir(app))
}

fn mounts_dir(app: &App) -> PathBuf {
    app.config.state_dir.join("cache/build")
}

/// The directory of a cache mount of a user; made if it is new.
pub fn mount_dir(app: &App, user: &UserName, id: &str) -> Result<PathBuf> {
    let name = blake3::hash(format!("{user}\0{id}").as_bytes()).to_hex();
    let dir = mounts_dir(app).join(&name.as_str()[..32]);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Its use counts, also if nothing in it changes.
    let used = File::create(dir.with_extension("used")).and_then(|f| f.set_modified(SystemTime::now()));
    used.with_context(|| format!("cannot note the use of {}", dir.display()))?;
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
                crate::remove_tree(&path.with_extension(""))?;
                let _ = std::fs::remove_file(&lock);
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}
