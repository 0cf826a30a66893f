//! Housekeeping: ends old sessions, drops stale pushes, removes unused objects from the store, and empties the trash.

use crate::{
    actions::app::App,
    services::{images::garbage, nodes::trash, sessions},
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};

/// Longest time between two passes. A change that can leave something unused requests one.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Delay of a pass, so that a burst of changes causes only one.
const DELAY: Duration = Duration::from_secs(2);

async fn pass(app: &App) -> Result<()> {
    let exclusive = app.images().exclusive().await;
    app.registries().uploads().drop_old();
    garbage::collect(app.images(), &exclusive)
}

async fn empty_trash(app: &App) -> Result<()> {
    let expired = {
        let decision = app.base().decide().await;
        trash::expire(app.nodes(), app.config().limits.trash_keep, &decision)?
    };
    trash::remove(&expired)
}

/// Runs passes for ever: at the start, for what a killed server left; after changes; and once an hour.
pub async fn run(app: Arc<App>) {
    loop {
        if let Err(e) = sessions::end_old_ones(app.sessions()).await {
            tracing::warn!("cannot end old sessions: {e:#}");
        }
        if let Err(e) = pass(&app).await {
            tracing::warn!("housekeeping failed: {e:#}");
        }
        if let Err(e) = empty_trash(&app).await {
            tracing::warn!("cannot empty the trash: {e:#}");
        }
        let _ = tokio::time::timeout(INTERVAL, app.images().housekeeping_requested()).await;
        tokio::time::sleep(DELAY).await;
    }
}
