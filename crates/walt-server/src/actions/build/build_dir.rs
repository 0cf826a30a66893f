//! The directories of builds, below `sessions/`.

use crate::{
    actions::app::App,
    base::{
        db::blocking,
        failure::Outcome,
        files::{new_dir, remove_tree},
        random::random_uuid,
    },
    services::images::pins::Pinned,
};
use anyhow::Context;
use parking_lot::{Mutex, MutexGuard};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use walt_build::step;

/// Prefix of their names.
const PREFIX: &str = "build-";
/// How long the running step of an ended build may take to end.
const STEP_END_LIMIT: Duration = Duration::from_secs(60);
/// How often this is checked.
const STEP_END_PAUSE: Duration = Duration::from_millis(50);

/// The directory of one build, and the build's pins in the store.
pub(super) struct BuildDir {
    pub path: PathBuf,
    pinned: Mutex<Pinned>,
}

impl BuildDir {
    pub fn pinned(&self) -> MutexGuard<'_, Pinned> {
        // A panic cannot leave a list half changed.
        self.pinned.lock()
    }

    pub async fn make(app: &App) -> Outcome<Self> {
        let name = format!("{PREFIX}{}", random_uuid());
        let dir = app.store().sessions_dir().join(&name);
        let mut pinned = app.images().pins().begin();
        let _writing = app.images().writing().await;
        new_dir(&dir, 0o700)?;
        pinned.session(&name);
        Ok(Self { path: dir, pinned: Mutex::new(pinned) })
    }

    /// Waits for the end of the running step, and removes the directory.
    pub async fn clear(self, app: &App) {
        if let Err(e) = sweep_one(&self.path).await {
            // Housekeeping removes it once it is unpinned.
            tracing::warn!("cannot remove the directory of a build yet: {e:#}");
        }
        drop(self.pinned);
        app.images().request_housekeeping();
    }
}

/// Removes the directory of a build after its steps have ended.
async fn sweep_one(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if !path.join(step::SPEC).exists() {
            continue;
        }
        let alive = || step::is_alive(&path);
        let ended = tokio::time::timeout(STEP_END_LIMIT, async {
            while alive() {
                tokio::time::sleep(STEP_END_PAUSE).await;
            }
        });
        if ended.await.is_err() {
            anyhow::bail!("the step in {} does not end", path.display());
        }
        let text = std::fs::read(path.join(step::SPEC))?;
        let spec: step::StepSpec = serde_json::from_slice(&text)?;
        step::clean(&spec, &path).await?;
    }
    blocking(|| remove_tree(dir))
}

/// Removes the directories of an earlier server's builds, whose steps end by themselves. Called at the start.
pub async fn sweep(app: &App) {
    let Ok(list) = std::fs::read_dir(app.store().sessions_dir()) else { return };
    for entry in list.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && let Err(e) = sweep_one(&entry.path()).await
        {
            tracing::warn!("cannot remove the directory of an earlier build yet: {e:#}");
        }
    }
}
