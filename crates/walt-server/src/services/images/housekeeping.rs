//! Removal of what nothing needs any more: images, layers, views, session directories. And who may write to
//! the store when.

use crate::services::images::pins::Pins;
use crate::{
    App,
    base::db::{
        self, BaseRow, BlobRow, Db, HistoryRow, IndexRow, ManifestRow, NodeRow, PushRow, RefRow, SessionRow,
    },
};
use anyhow::Result;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use walt_images::Live;

/// Longest time between two passes; each change that can free something also starts one.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long a pass is put off, so that a burst of changes is one pass.
const DELAY: Duration = Duration::from_secs(2);
/// How long imports and saves may follow on each other before new ones wait for a pass.
const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// Pause between two tries to have the store alone.
const RETRY: Duration = Duration::from_millis(20);

/// All that must stay: what references mean and have meant, with the indexes they were pushed as, what builds keep, what
/// operations under way have pinned, and what open sessions, grants and platform layers in use point to.
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
    // After the platform layers: an image that is kept only to go back to is not shown to nodes.
    live.images.extend(db.with(HistoryRow::images)?);
    live.images.extend(db.with(IndexRow::live_images)?);
    live.images.extend(db.with(BaseRow::images)?);
    live.layers.extend(crate::actions::build::live_layers(db)?);
    pins.add_to(&mut live);
    let blobs = db.with(ManifestRow::blobs)?;
    live.blobs
        .extend(blobs.into_iter().filter(|(image, _)| live.images.contains(image)).map(|(_, blob)| blob));
    live.blobs.extend(db.with(IndexRow::live_blobs)?);
    Ok(live)
}

/// Access to the store for an import or a save.
pub async fn writing(app: &App) -> RwLockReadGuard<'_, ()> {
    let _passing = app.store_gate.lock().await;
    app.store_changes.read().await
}

/// The decisions, and the store with nobody writing to it.
///
/// Savers take the decisions with the store in hand, and those who open a shell take them the other way
/// round: so nobody waits for the store here with the decisions in hand.
pub async fn alone(app: &App) -> (MutexGuard<'_, ()>, RwLockWriteGuard<'_, ()>) {
    let start = Instant::now();
    let mut gate = None;
    loop {
        let decisions = app.decisions.lock().await;
        if let Ok(store) = app.store_changes.try_write() {
            return (decisions, store);
        }
        drop(decisions);
        if gate.is_none() && start.elapsed() > CLOSE_AFTER {
            gate = Some(app.store_gate.lock().await);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One pass.
pub async fn pass(app: &Arc<App>) -> Result<()> {
    // The store must not change between the question what is alive and the removal of the rest.
    let _alone = alone(app).await;
    if let Some(keep) = app.config.limits.history_keep {
        let before = crate::base::time::now() as i64 - keep.0 as i64;
        let forgotten = app.db.with(|c| HistoryRow::forget_overwritten_before(c, before))?;
        if forgotten > 0 {
            tracing::info!(forgotten, "forgot what image names meant long ago (limits.history-keep)");
        }
    }
    crate::actions::build::prune(app)?;
    app.uploads.drop_old();
    let live = live(&app.db, &app.pins)?;
    for (image, layer, _) in app.db.with(db::platforms)? {
        if !live.layers.contains(&layer) {
            app.db.with(|c| db::forget_platform(c, &image))?;
        }
    }
    // Before the files: what a kill leaves in between must not look as if it were there.
    app.db.transaction(|tx| PushRow::forget(tx))?;
    let report = db::blocking(|| app.store.remove_unreferenced(&live))?;
    app.db.with(|c| ManifestRow::forget(c, &live.images))?;
    app.db.with(|c| BlobRow::forget(c, |layer| app.store.has_layer(layer)))?;
    tracing::debug!(?report, "removed what nothing needs");
    Ok(())
}

/// Passes for ever: at the start, for what a killed server has left; after changes; and once an hour.
pub async fn run(app: Arc<App>) {
    loop {
        if let Err(e) = crate::services::sessions::end_old_ones(&app).await {
            tracing::warn!("old sessions: {e:#}");
        }
        if let Err(e) = pass(&app).await {
            tracing::warn!("housekeeping: {e:#}");
        }
        let _ = tokio::time::timeout(INTERVAL, app.housekeeping.notified()).await;
        tokio::time::sleep(DELAY).await;
    }
}

/// Starts a pass when it is dropped: held by whoever writes to the store, since a failure leaves what
/// nothing refers to.
pub struct After<'a>(pub &'a App);

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.0.housekeeping.notify_one();
    }
}
