//! Pushed indexes, and the documents that references were pushed as.
//!
//! A reference points to one image, but an index has several: an index belongs to the reference that it was pushed
//! to, and to its image that the reference then pointed to. The index and its content are live while the reference
//! points or has pointed to that image.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension};
use walt_types::{Hash256, ImageId, ImageRef};

/// The reference of a push points or has pointed to its image.
const ALIVE: &str =
    "EXISTS (SELECT 1 FROM history h WHERE h.fullname = p.fullname AND h.image_id = p.image_id)";

/// A manifest or an index, byte for byte as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Digest of its bytes.
    pub digest: Hash256,
    /// Media type it was pushed as.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// An index, and its content.
#[derive(Debug, Clone)]
pub struct IndexRow {
    /// The index.
    pub document: Document,
    /// The images for nodes in it; their manifests are [`ManifestRow`](crate::base::db::ManifestRow)s.
    pub images: Vec<ImageId>,
    /// The other manifests in it.
    pub others: Vec<Document>,
    /// Blobs of these.
    pub blobs: Vec<Hash256>,
}

impl IndexRow {
    /// Records it. Call it in a transaction.
    pub fn put(&self, c: &Connection) -> Result<()> {
        let digest = self.document.digest.to_string();
        c.execute(
            "INSERT OR IGNORE INTO indexes (digest, media_type, bytes) VALUES (?1, ?2, ?3)",
            (&digest, &self.document.media_type, &self.document.bytes),
        )?;
        for image in &self.images {
            c.execute(
                "INSERT OR IGNORE INTO index_images (of_index, image_id) VALUES (?1, ?2)",
                (&digest, image.to_string()),
            )?;
        }
        for other in &self.others {
            c.execute(
                "INSERT OR IGNORE INTO index_others (of_index, digest, media_type, bytes) VALUES (?1, ?2, ?3, ?4)",
                (&digest, other.digest.to_string(), &other.media_type, &other.bytes),
            )?;
        }
        for blob in &self.blobs {
            c.execute(
                "INSERT OR IGNORE INTO index_blobs (of_index, blob) VALUES (?1, ?2)",
                (&digest, blob.to_string()),
            )?;
        }
        Ok(())
    }

    /// An index by its digest.
    pub fn get(c: &Connection, digest: &Hash256) -> Result<Option<Document>> {
        let mut query = c.prepare_cached("SELECT media_type, bytes FROM indexes WHERE digest = ?1")?;
        let found = query.query_row([digest.to_string()], |r| {
            Ok(Document { digest: *digest, media_type: r.get(0)?, bytes: r.get(1)? })
        });
        Ok(found.optional()?)
    }

    /// Live indexes that a reference was pushed as.
    pub fn of(c: &Connection, reference: &ImageRef) -> Result<Vec<Hash256>> {
        let mut query = c.prepare_cached(&format!(
            "SELECT DISTINCT digest FROM indexes JOIN pushes p ON p.document = digest
             WHERE p.fullname = ?1 AND {ALIVE}"
        ))?;
        let rows = query.query_map([reference.full()], |r| parsed(r.get(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The images for nodes in an index.
    pub fn images_in(c: &Connection, index: &Hash256) -> Result<Vec<ImageId>> {
        let mut query = c.prepare_cached("SELECT image_id FROM index_images WHERE of_index = ?1")?;
        let rows = query.query_map([index.to_string()], |r| parsed(r.get(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A manifest in an index that is not an image for nodes.
    pub fn other(c: &Connection, index: &Hash256, digest: &Hash256) -> Result<Option<Document>> {
        let mut query = c.prepare_cached(
            "SELECT media_type, bytes FROM index_others WHERE of_index = ?1 AND digest = ?2",
        )?;
        let found = query.query_row((index.to_string(), digest.to_string()), |r| {
            Ok(Document { digest: *digest, media_type: r.get(0)?, bytes: r.get(1)? })
        });
        Ok(found.optional()?)
    }

    /// Whether a blob is kept for the index itself, not for an image in it.
    pub fn has_blob(c: &Connection, index: &Hash256, blob: &Hash256) -> Result<bool> {
        let mut query = c.prepare_cached("SELECT 1 FROM index_blobs WHERE of_index = ?1 AND blob = ?2")?;
        Ok(query.query_row((index.to_string(), blob.to_string()), |_| Ok(())).optional()?.is_some())
    }

    /// Images in live indexes.
    pub fn live_images(c: &Connection) -> Result<Vec<ImageId>> {
        let mut query = c.prepare_cached(&format!(
            "SELECT DISTINCT i.image_id FROM index_images i JOIN pushes p ON p.document = of_index WHERE {ALIVE}"
        ))?;
        let rows = query.query_map([], |r| parsed(r.get(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Blobs that are kept for live indexes themselves.
    pub fn live_blobs(c: &Connection) -> Result<Vec<Hash256>> {
        let mut query = c.prepare_cached(&format!(
            "SELECT DISTINCT blob FROM index_blobs JOIN pushes p ON p.document = of_index WHERE {ALIVE}"
        ))?;
        let rows = query.query_map([], |r| parsed(r.get(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The push of a manifest or an index to a reference.
#[derive(Debug, Clone, Copy)]
pub struct PushRow;

impl PushRow {
    /// Records a push: while the reference points to this image, its tag serves this document. Call it in a
    /// transaction.
    pub fn put(c: &Connection, reference: &ImageRef, image: &ImageId, document: &Hash256) -> Result<()> {
        // A replaced row gets a new, highest id.
        c.execute(
            "INSERT OR REPLACE INTO pushes (fullname, image_id, document) VALUES (?1, ?2, ?3)",
            (reference.full(), image.to_string(), document.to_string()),
        )?;
        Ok(())
    }

    /// The document of the last push of this image to a reference.
    pub fn last(c: &Connection, reference: &ImageRef, image: &ImageId) -> Result<Option<Hash256>> {
        let mut query = c.prepare_cached(
            "SELECT document FROM pushes WHERE fullname = ?1 AND image_id = ?2 ORDER BY id DESC LIMIT 1",
        )?;
        let found = query.query_row((reference.full(), image.to_string()), |r| parsed(r.get(0)?, 0));
        Ok(found.optional()?)
    }

    pub(super) fn rename(c: &Connection, reference: &ImageRef, new: &ImageRef) -> Result<()> {
        c.execute("UPDATE pushes SET fullname = ?2 WHERE fullname = ?1", (reference.full(), new.full()))?;
        Ok(())
    }

    pub(super) fn delete(c: &Connection, reference: &ImageRef) -> Result<()> {
        c.execute("DELETE FROM pushes WHERE fullname = ?1", [reference.full()])?;
        Ok(())
    }

    /// Removes pushes whose reference neither points nor has pointed to their image, and indexes without pushes. Call
    /// it in a transaction.
    pub fn forget(c: &Connection) -> Result<()> {
        c.execute(&format!("DELETE FROM pushes AS p WHERE NOT {ALIVE}"), [])?;
        c.execute("DELETE FROM indexes WHERE digest NOT IN (SELECT document FROM pushes)", [])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::{By, Db, HistoryRow, RefRow};

    fn hash(byte: u8) -> Hash256 {
        Hash256([byte; 32])
    }

    fn index(byte: u8, images: &[u8]) -> IndexRow {
        let document = |byte| Document { digest: hash(byte), media_type: "x".into(), bytes: vec![byte] };
        IndexRow {
            document: document(byte),
            images: images.iter().map(|i| ImageId(hash(*i))).collect(),
            others: vec![document(byte + 1)],
            blobs: vec![hash(byte + 2)],
        }
    }

    #[test]
    fn an_index_lives_while_its_name_means_or_has_meant_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        let [name, other]: [ImageRef; 2] = ["ann/x", "ann/y"].map(|n| n.parse().unwrap());
        let land = |reference: &ImageRef, image: u8| {
            let row = RefRow { reference: reference.clone(), image_id: ImageId(hash(image)), created: 0 };
            db.transaction(|tx| row.put(tx, &By::new("ann", "push"))).unwrap();
        };
        let push = |reference: &ImageRef, image: u8, document: u8| {
            db.transaction(|tx| PushRow::put(tx, reference, &ImageId(hash(image)), &hash(document))).unwrap();
        };
        let last = |reference: &ImageRef, image: u8| {
            db.with(|c| PushRow::last(c, reference, &ImageId(hash(image)))).unwrap()
        };
        let alive = || db.with(|c| Ok((IndexRow::live_images(c)?, IndexRow::live_blobs(c)?))).unwrap();
        let forget = || db.transaction(|tx| PushRow::forget(tx)).unwrap();

        land(&name, 1);
        land(&other, 1);
        for row in [index(10, &[1, 2]), index(20, &[1])] {
            db.transaction(|tx| row.put(tx)).unwrap();
        }
        push(&name, 1, 10);
        assert_eq!((last(&name, 1), last(&other, 1)), (Some(hash(10)), None), "it is of one name");
        assert_eq!(db.with(|c| IndexRow::of(c, &name)).unwrap(), [hash(10)]);
        assert_eq!(alive(), (vec![ImageId(hash(1)), ImageId(hash(2))], vec![hash(12)]));
        assert!(db.with(|c| IndexRow::other(c, &hash(10), &hash(11))).unwrap().is_some());
        assert!(db.with(|c| IndexRow::has_blob(c, &hash(10), &hash(12))).unwrap());

        // The last push counts, also one that was there before; the others are kept.
        for document in [20, 5, 10, 20] {
            push(&name, 1, document);
            assert_eq!(last(&name, 1), Some(hash(document)));
        }
        assert_eq!(db.with(|c| IndexRow::of(c, &name)).unwrap().len(), 2);
        forget();
        assert_eq!(alive().1, [hash(12), hash(22)]);

        // With another image it ends; going back, it is there again.
        land(&name, 3);
        assert_eq!(last(&name, 3), None);
        forget();
        land(&name, 1);
        assert_eq!(last(&name, 1), Some(hash(20)));
        // It goes with its name, and ends with it.
        let new: ImageRef = "ann/z".parse().unwrap();
        db.transaction(|tx| RefRow::rename(tx, &name, &new)).unwrap();
        assert_eq!((last(&name, 1), last(&new, 1)), (None, Some(hash(20))));
        land(&new, 3);
        db.with(|c| HistoryRow::prune(c, &new)).unwrap();
        assert_eq!(alive(), (vec![], vec![]));
        assert!(db.with(|c| IndexRow::get(c, &hash(10))).unwrap().is_some());
        forget();
        assert_eq!(last(&new, 1), None);
        for digest in [10, 20] {
            assert!(db.with(|c| IndexRow::get(c, &hash(digest))).unwrap().is_none());
        }
        assert!(db.with(|c| IndexRow::other(c, &hash(10), &hash(11))).unwrap().is_none());
        push(&new, 3, 10);
        db.with(|c| RefRow::delete(c, &new)).unwrap();
        assert_eq!(last(&new, 3), None);
    }
}
