//! Blobs of layers in registries.

use crate::base::{db::parsed, time};
use anyhow::Result;
use rusqlite::{Connection, Row};
use walt_registry::LayerBlob;
use walt_types::DiffId;

/// Most blobs of one layer that are looked up, newest first.
const MAX_BLOBS: u32 = 8;

/// A blob of a layer that was seen in a registry.
#[derive(Debug, Clone)]
pub struct BlobRow {
    /// The blob.
    pub blob: LayerBlob,
    /// Label of the registry.
    pub registry: String,
    /// Repository that had it.
    pub repository: String,
}

fn row(r: &Row<'_>) -> rusqlite::Result<BlobRow> {
    let size: i64 = r.get(2)?;
    Ok(BlobRow {
        blob: LayerBlob {
            diff_id: parsed(r.get(0)?, 0)?,
            digest: parsed(r.get(1)?, 1)?,
            size: size.unsigned_abs(),
            media_type: r.get(3)?,
        },
        registry: r.get(4)?,
        repository: r.get(5)?,
    })
}

impl BlobRow {
    /// Blobs of a layer, last seen first.
    pub fn of(c: &Connection, layer: &DiffId) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(
            "SELECT diff_id, digest, size, media_type, registry, repository FROM layer_blobs
             WHERE diff_id = ?1 ORDER BY seen DESC, digest LIMIT ?2",
        )?;
        Ok(query.query_map((layer.to_string(), MAX_BLOBS), row)?.collect::<Result<_, _>>()?)
    }

    /// Records that a repository has a blob.
    pub fn put(c: &Connection, blob: &LayerBlob, registry: &str, repository: &str) -> Result<()> {
        c.execute(
            "INSERT INTO layer_blobs (diff_id, digest, size, media_type, registry, repository, seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (diff_id, registry, repository) DO UPDATE SET digest = excluded.digest,
                size = excluded.size, media_type = excluded.media_type, seen = excluded.seen",
            (
                blob.diff_id.to_string(),
                blob.digest.to_string(),
                blob.size as i64,
                &blob.media_type,
                registry,
                repository,
                time::now() as i64,
            ),
        )?;
        Ok(())
    }

    /// Removes the blobs of removed layers.
    pub fn forget(c: &Connection, is_there: impl Fn(&DiffId) -> bool) -> Result<()> {
        let mut query = c.prepare("SELECT DISTINCT diff_id FROM layer_blobs")?;
        let layers: Vec<DiffId> = query.query_map([], |r| parsed(r.get(0)?, 0))?.collect::<Result<_, _>>()?;
        for layer in layers.iter().filter(|l| !is_there(l)) {
            c.execute("DELETE FROM layer_blobs WHERE diff_id = ?1", [layer.to_string()])?;
        }
        Ok(())
    }
}
