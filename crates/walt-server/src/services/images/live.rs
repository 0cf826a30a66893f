//! The live objects of the store.

use crate::{
    base::db::{self, BaseRow, Db, HistoryRow, IndexRow, ManifestRow, NodeRow, RefRow, SessionRow},
    services::images::{build_cache, pins::Pins},
};
use anyhow::Result;
use std::collections::BTreeSet;
use walt_images::Live;

/// All live objects: what references point to and have pointed to, with the indexes they were pushed as; results of
/// builds; pins of operations under way; and what open sessions, grants and platform layers in use refer to.
pub fn live(db: &Db, pins: &Pins) -> Result<Live> {
    let (refs, sessions, grants, platforms) =
        db.with(|c| Ok((RefRow::all(c)?, SessionRow::all(c)?, NodeRow::all_grants(c)?, db::platforms(c)?)))?;
    let mut live = Live::default();
    live.images.extend(refs.iter().map(|r| r.image_id));
    for session in &sessions {
        live.images.insert(session.image_id);
        live.layers.insert(session.platform);
        live.shown.push((session.image_id, session.platform));
        live.sessions.insert(session.id.clone());
        if let Some(commit) = &session.committing {
            live.images.insert(commit.image_id);
            live.layers.insert(commit.diff_id);
            live.committing.push((commit.diff_id, session.id.clone()));
        }
    }
    let known: BTreeSet<_> = live.images.iter().copied().collect();
    for (image, diff_id, view) in platforms {
        if known.contains(&image) {
            live.layers.insert(diff_id);
            live.views.insert(view);
        }
    }
    live.views.extend(grants.into_iter().map(|(_, view)| view));
    // Added after the platform layers: an image that is kept only for a rollback needs no platform layer.
    live.images.extend(db.with(HistoryRow::images)?);
    live.images.extend(db.with(IndexRow::live_images)?);
    live.images.extend(db.with(BaseRow::images)?);
    live.layers.extend(build_cache::live_layers(db)?);
    pins.add_to(&mut live);
    let blobs = db.with(ManifestRow::blobs)?;
    live.blobs
        .extend(blobs.into_iter().filter(|(image, _)| live.images.contains(image)).map(|(_, blob)| blob));
    live.blobs.extend(db.with(IndexRow::live_blobs)?);
    Ok(live)
}
