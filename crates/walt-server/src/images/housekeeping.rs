//! Removal of what nothing needs any more: images, layers, views, session directories.

use crate::{
    App,
    db::{self, NodeRow, RefRow, SessionRow},
};
use anyhow::Result;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use walt_images::Live;

/// Longest time between two passes; each change that can free something also starts one.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long a pass is put off, so that a burst of changes is one pass.
const DELAY: Duration = Duration::from_secs(2);

/// All that must stay: what references, open sessions, grants and platform layers in use point to.
pub fn live(app: &App) -> Result<Live> {
    let (refs, sessions, grants, platforms) = app
        .db
        .with(|c| Ok((RefRow::all(c)?, SessionRow::all(c)?, NodeRow::all_grants(c)?, db::platforms(c)?)))?;
    let mut live = Live::default();
    live.images.extend(refs.iter().map(|r| r.image_id));
    for session in &sessions {
        live.images.insert(session.image_id);
        live.layers.insert(session.platform);
        live.sessions.insert(session.id.clone());
        if let Some(commit) = &session.committing {
            live.images.insert(commit.image_id);
            live.layers.insert(commit.diff_id);
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

/// One pass.
pub async fn pass(app: &Arc<App>) -> Result<()> {
    // The store must not change between the question what is alive and the removal of the rest.
    let _decision = app.decisions.lock().await;
    let _imports = app.store_changes.write().await;
    let live = live(app)?;
    for (image, _, _) in app.db.with(db::platforms)? {
        if !live.images.contains(&image) {
            app.db.with(|c| db::forget_platform(c, &image))?;
        }
    }
    let report = db::blocking(|| app.store.remove_unreferenced(&live))?;
    tracing::debug!(?report, "removed what nothing needs");
    Ok(())
}

/// Passes for ever: after changes, and once an hour.
pub async fn run(app: Arc<App>) {
    loop {
        let _ = tokio::time::timeout(INTERVAL, app.housekeeping.notified()).await;
        tokio::time::sleep(DELAY).await;
        if let Err(e) = crate::sessions::end_old_ones(&app).await {
            tracing::warn!("old sessions: {e:#}");
        }
        if let Err(e) = pass(&app).await {
            tracing::warn!("housekeeping: {e:#}");
        }
    }
}
