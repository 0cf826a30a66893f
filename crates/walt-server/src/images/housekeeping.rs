//! Removal of what nothing needs any more: images, layers, views, session directories.

use crate::{
    App,
    db::{self, Db, NodeRow, RefRow, SessionRow},
};
use anyhow::Result;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use walt_images::Live;

/// Longest time between two passes; each change that can free something also starts one.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long a pass is put off, so that a burst of changes is one pass.
const DELAY: Duration = Duration::from_secs(2);

/// All that must stay: what references, open sessions, grants and platform layers in use point to.
pub fn live(db: &Db) -> Result<Live> {
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
    Ok(live)
}

/// One pass; false if it was put off, as somebody writes to the store.
pub async fn pass(app: &Arc<App>) -> Result<bool> {
    // The store must not change between the question what is alive and the removal of the rest. An import
    // may take minutes: waiting for it here would let everybody wait who decides something.
    let _decision = app.decisions.lock().await;
    let Ok(_imports) = app.store_changes.try_write() else { return Ok(false) };
    let live = live(&app.db)?;
    for (image, _, _) in app.db.with(db::platforms)? {
        if !live.images.contains(&image) {
            app.db.with(|c| db::forget_platform(c, &image))?;
        }
    }
    let report = db::blocking(|| app.store.remove_unreferenced(&live))?;
    tracing::debug!(?report, "removed what nothing needs");
    Ok(true)
}

/// Passes for ever: at the start, for what a killed server has left; after changes; and once an hour.
pub async fn run(app: Arc<App>) {
    loop {
        if let Err(e) = crate::sessions::end_old_ones(&app).await {
            tracing::warn!("old sessions: {e:#}");
        }
        match pass(&app).await {
            Ok(true) => {}
            Ok(false) => app.housekeeping.notify_one(),
            Err(e) => tracing::warn!("housekeeping: {e:#}"),
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
