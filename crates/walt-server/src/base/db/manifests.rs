//! Manifests of pushed images, and the blobs kept for them.

use crate::base::{
    db::{Document, parsed},
    time,
};
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use std::collections::HashSet;
use walt_types::{Hash256, ImageId};

/// A manifest, byte for byte as it was pushed.
#[derive(Debug, Clone)]
pub struct ManifestRow {
    /// Digest of its bytes.
    pub digest: Hash256,
    /// Media type it was pushed as.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The image it describes.
    pub image_id: ImageId,
}

fn row(r: &Row<'_>) -> rusqlite::Result<ManifestRow> {
    let (digest, image_id) = (parsed(r.get(0)?, 0)?, parsed(r.get(3)?, 3)?);
    Ok(ManifestRow { digest, media_type: r.get(1)?, bytes: r.get(2)?, image_id })
}

impl ManifestRow {
    /// The manifest alone.
    pub fn into_document(self) -> Document {
        Document { digest: self.digest, media_type: self.media_type, bytes: self.bytes }
    }

    /// Manifests of an image, last pushed first.
    pub fn of(c: &Connection, image: &ImageId) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(
            "SELECT digest, media_type, bytes, image_id FROM manifests WHERE image_id = ?1 ORDER BY pushed DESC, digest",
        )?;
        Ok(query.query_map([image.to_string()], row)?.collect::<Result<_, _>>()?)
    }

    /// Records a manifest and the blobs to keep for it.
    pub fn put(&self, c: &Connection, blobs: &[Hash256]) -> Result<()> {
        let digest = self.digest.to_string();
        c.execute(
            "INSERT INTO manifests (digest, media_type, bytes, image_id, pushed) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (digest) DO UPDATE SET pushed = excluded.pushed",
            (&digest, &self.media_type, &self.bytes, self.image_id.to_string(), time::now() as i64),
        )?;
        for blob in blobs {
            c.execute(
                "INSERT OR IGNORE INTO manifest_blobs (manifest, blob) VALUES (?1, ?2)",
                (&digest, blob.to_string()),
            )?;
        }
        Ok(())
    }

    /// Whether a blob is kept for a manifest of this image.
    pub fn has_blob(c: &Connection, image: &ImageId, blob: &Hash256) -> Result<bool> {
        let mut query = c.prepare_cached(
            "SELECT 1 FROM manifests JOIN manifest_blobs ON manifest = digest WHERE image_id = ?1 AND blob = ?2",
        )?;
        Ok(query.query_row((image.to_string(), blob.to_string()), |_| Ok(())).optional()?.is_some())
    }

    /// All kept blobs, with their images.
    pub fn blobs(c: &Connection) -> Result<Vec<(ImageId, Hash256)>> {
        let mut query = c.prepare_cached(
            "SELECT image_id, blob FROM manifests JOIN manifest_blobs ON manifest = digest",
        )?;
        let rows = query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, parsed(r.get(1)?, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes the manifests of removed images.
    pub fn forget(c: &Connection, live: &HashSet<ImageId>) -> Result<()> {
        let mut query = c.prepare("SELECT DISTINCT image_id FROM manifests")?;
        let images: Vec<ImageId> =
            query.query_map([], |r| parsed(r.get(0)?, 0))?.collect::<Result<_, _>>()?;
        for image in images.iter().filter(|i| !live.contains(i)) {
            c.execute("DELETE FROM manifests WHERE image_id = ?1", [image.to_string()])?;
        }
        Ok(())
    }
}
