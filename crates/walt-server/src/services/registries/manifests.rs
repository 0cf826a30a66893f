//! Manifests and indexes of this server's images, for its registry and for builds.

use crate::{
    base::db::{Document, HistoryRow, IndexRow, ManifestRow, PushRow, RefRow, blocking},
    services::images::Images,
};
use anyhow::Result;
use std::collections::BTreeSet;
use walt_registry::{LayerBlob, manifest};
use walt_types::{DiffId, Hash256, ImageId};

/// Media type of a layer as a plain tar.
pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// The references of a repository: one for each tag.
pub fn repository(images: &Images, user: &str, name: &str) -> Result<Vec<RefRow>> {
    let mut all = images.db().with(RefRow::all)?;
    all.retain(|r| r.reference.user() == user && r.reference.image().name() == name);
    Ok(all)
}

/// Live indexes that these references were pushed as.
pub fn indexes(images: &Images, names: &[RefRow]) -> Result<BTreeSet<Hash256>> {
    images.db().with(|c| {
        let mut all = BTreeSet::new();
        for row in names {
            all.extend(IndexRow::of(c, &row.reference)?);
        }
        Ok(all)
    })
}

/// The images that references point to and have pointed to, and those in their `indexes`.
pub fn images_of(
    images: &Images,
    names: &[RefRow],
    indexes: &BTreeSet<Hash256>,
) -> Result<BTreeSet<ImageId>> {
    images.db().with(|c| {
        let mut all = BTreeSet::new();
        for row in names {
            all.extend(HistoryRow::of(c, &row.reference)?.into_iter().map(|h| h.image_id));
        }
        for index in indexes {
            all.extend(IndexRow::images_in(c, index)?);
        }
        Ok(all)
    })
}

fn manifest_bytes(images: &Images, image: &ImageId) -> Result<Vec<u8>> {
    let size = images.store().config_bytes(image)?.len() as u64;
    let blob = |diff_id: &DiffId| -> Result<LayerBlob> {
        let size = images.store().layer_info(diff_id)?.size;
        Ok(LayerBlob { diff_id: *diff_id, digest: diff_id.0, size, media_type: TAR.to_owned() })
    };
    let layers: Vec<LayerBlob> =
        images.store().config(image)?.layers()?.iter().map(blob).collect::<Result<_>>()?;
    Ok(manifest::write(image, size, &layers))
}

/// A stored manifest.
pub struct Stored {
    /// The manifest.
    pub document: Document,
    /// The image for nodes that it describes, if it does.
    pub image: Option<ImageId>,
}

/// A manifest (not an index) of a repository, by its digest. `indexes` are those of its references.
pub fn manifest_in(
    images: &Images,
    names: &[RefRow],
    indexes: &BTreeSet<Hash256>,
    digest: &Hash256,
) -> Result<Option<Stored>> {
    for index in indexes {
        if let Some(document) = images.db().with(|c| IndexRow::other(c, index, digest))? {
            return Ok(Some(Stored { document, image: None }));
        }
    }
    for image in images_of(images, names, indexes)? {
        let pushed = images.db().with(|c| ManifestRow::of(c, &image))?;
        let found = pushed.into_iter().map(ManifestRow::into_document).find(|m| m.digest == *digest);
        let document = match found {
            Some(document) => document,
            None => own_manifest(images, &image)?,
        };
        if document.digest == *digest {
            return Ok(Some(Stored { document, image: Some(image) }));
        }
    }
    Ok(None)
}

/// The manifest that this server generates for an image.
fn own_manifest(images: &Images, image: &ImageId) -> Result<Document> {
    let bytes = blocking(|| manifest_bytes(images, image))?;
    Ok(Document { digest: manifest::digest_of(&bytes), media_type: manifest::OCI_MANIFEST.to_owned(), bytes })
}

/// The document of a tag: what the reference was pushed as, else a manifest that its image was pushed as, else a
/// generated one.
pub fn by_tag(images: &Images, row: &RefRow) -> Result<Document> {
    let (mut pushed, last, index) = images.db().with(|c| {
        let last = PushRow::last(c, &row.reference, &row.image_id)?;
        let index = last.map(|digest| IndexRow::get(c, &digest)).transpose()?.flatten();
        Ok((ManifestRow::of(c, &row.image_id)?, last, index))
    })?;
    if let Some(index) = index {
        return Ok(index);
    }
    let place = pushed.iter().position(|m| Some(m.digest) == last).unwrap_or(0);
    if place < pushed.len() {
        return Ok(pushed.swap_remove(place).into_document());
    }
    own_manifest(images, &row.image_id)
}
