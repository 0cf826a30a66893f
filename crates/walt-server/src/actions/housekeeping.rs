//! The passes of housekeeping: old sessions, pushes that wait too long, and what nothing in the store needs.

use crate::{
    actions::app::App,
    services::{images::housekeeping, sessions},
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};

/// Longest time between two passes; each change that can free something also starts one.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long a pass is put off, so that a burst of changes is one pass.
const DELAY: Duration = Duration::from_secs(2);

async fn pass(app: &App) -> Result<()> {
    let alone = app.images().exclusive().await;
    app.registries().uploads().drop_old();
    housekeeping::pass(app.images(), &alone)
}

/// Passes for ever: at the start, for what a killed server has left; after changes; and once an hour.
pub async fn run(app: Arc<App>) {
    loop {
        if let Err(e) = sessions::end_old_ones(app.sessions()).await {
            tracing::warn!("old sessions: {e:#}");
        }
        if let Err(e) = pass(&app).await {
            tracing::warn!("housekeeping: {e:#}");
        }
        let _ = tokio::time::timeout(INTERVAL, app.images().housekeeping_requested()).await;
        tokio::time::sleep(DELAY).await;
    }
}
