//! Garbage collection: removes unused images, layers, views and session directories.

use crate::{
    base::{
        db::{self, BlobRow, HistoryRow, ManifestRow, PushRow},
        time::now,
    },
    services::images::{Images, build_cache, live::live, writers::Exclusive},
};
use anyhow::Result;

/// Removes what nothing refers to. The store must not change between the search for live objects and the removal of
/// the others.
///
/// # Errors
/// The database or the disk failed; the next pass continues.
pub fn collect(images: &Images, _exclusive: &Exclusive<'_>) -> Result<()> {
    if let Some(keep) = images.config().limits.history_keep {
        let before = now() as i64 - keep.0 as i64;
        let forgotten = images.db().with(|c| HistoryRow::forget_overwritten_before(c, before))?;
        if forgotten > 0 {
            tracing::info!(forgotten, "removed old versions of images (limits.history-keep)");
        }
    }
    build_cache::prune(images)?;
    let live = live(images.db(), images.pins())?;
    for (image, layer, _) in images.db().with(db::platforms)? {
        if !live.layers.contains(&layer) {
            images.db().with(|c| db::forget_platform(c, &image))?;
        }
    }
    // Records first, then files: if the server is killed in between, no record may refer to a missing file.
    images.db().transaction(|tx| PushRow::forget(tx))?;
    let report = db::blocking(|| images.store().remove_unreferenced(&live))?;
    images.db().with(|c| ManifestRow::forget(c, &live.images))?;
    images.db().with(|c| BlobRow::forget(c, |layer| images.store().has_layer(layer)))?;
    db::blocking(|| images.store().remove_old_node_tars())?;
    tracing::debug!(?report, "removed unused objects");
    Ok(())
}
