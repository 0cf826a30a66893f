//! Sessions of `walt image shell`.
//!
//! ```text
//!            shell ends            save: seal ─ hash ─ [committing] ─ rename ─ one transaction
//!  running ─────────────▶ exited ──────────────────────────────────────────────────────────▶ gone
//!     │ holder dies          │  discard
//!     ▼                      ▼
//!  stopped ──resume──▶ running (a new container over the same files)
//! ```
//! A session consists of a row of the database, a directory `<state-dir>/sessions/<id>`, and a holder process. The
//! holder owns the container and outlives the server; the directory outlives both.

pub mod error;
pub mod slots;
pub mod users;

use crate::{
    base::{
        config::Config,
        db::{Db, SessionRow, blocking},
        fail_points,
        files::remove_tree,
        state::Base,
        time,
    },
    services::{
        images::Images,
        sessions::{error::Error, slots::Slots},
    },
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use walt_api::UserNamespaces;
use walt_container::{
    hold::{self, Client},
    session::{Phase, SessionDir},
};
use walt_images::Store;
use walt_types::{ImageRef, UserName};

/// Share of the server's memory that one session may use: numerator and denominator.
const MEMORY_SHARE: (u64, u64) = (3, 4);
/// Pause between two attempts to reach a starting holder.
const HOLDER_PAUSE: Duration = Duration::from_millis(20);

/// Open image shells, and the containers of builds.
pub struct Sessions {
    base: Arc<Base>,
    images: Arc<Images>,
    build_slots: Slots,
    user_namespaces: OnceLock<UserNamespaces>,
}

impl Sessions {
    /// The sessions of a server.
    pub fn new(base: Arc<Base>, images: Arc<Images>) -> Self {
        Self { base, images, build_slots: Slots::default(), user_namespaces: OnceLock::new() }
    }

    /// The state below the services.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Database.
    pub fn db(&self) -> &Db {
        self.base.db()
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        self.base.config()
    }

    /// Image store.
    pub fn store(&self) -> &Store {
        self.images.store()
    }

    /// Slots of containers of builds.
    pub fn build_slots(&self) -> &Slots {
        &self.build_slots
    }

    /// Whether containers use user namespaces, once this was probed.
    pub fn user_namespaces(&self) -> Option<&UserNamespaces> {
        self.user_namespaces.get()
    }

    /// Sets the result of the probe for user namespaces; the first one counts.
    pub fn set_user_namespaces(&self, answer: UserNamespaces) {
        let _set_once = self.user_namespaces.set(answer);
    }
}

/// `walt-server hold DIR`: the holder of one session, for its whole life; the exit status of the process.
pub fn hold(dir: &Path) -> i32 {
    hold::run(dir)
}

/// Memory limit of a session in bytes, including its `/run` and `/dev/shm`. The rest is for the server and its nodes.
pub fn memory_max() -> u64 {
    let info = rustix::system::sysinfo();
    let total = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    total / MEMORY_SHARE.1 * MEMORY_SHARE.0
}

/// Directory of a session.
pub fn dir_of(sessions: &Sessions, id: &str) -> PathBuf {
    sessions.store().sessions_dir().join(id)
}

/// State of a session for `walt image show`.
pub fn state_text(store: &Store, row: &SessionRow) -> &'static str {
    let state = SessionDir(store.sessions_dir().join(&row.id)).state();
    match state {
        Ok(Some(state)) if state.holder.exists() => match state.phase {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Exited => "exited",
            Phase::Stopped | Phase::Sealed | Phase::Discarded => "stopped",
        },
        _ => "stopped",
    }
}

/// A connection to the holder of a session; none if no holder is alive.
pub async fn holder(sessions: &Sessions, row: &SessionRow) -> Result<Option<Client>> {
    let dir = dir_of(sessions, &row.id);
    // A sealed or discarded holder is ending: its socket may exist for a moment, but does not answer.
    if let Ok(Some(state)) = SessionDir(dir.clone()).state()
        && state.phase >= Phase::Sealed
    {
        return Ok(None);
    }
    let start = Instant::now();
    loop {
        match Client::connect(&dir).await {
            Ok(client) => return Ok(Some(client)),
            // A holder that an earlier server started just before it was killed may not answer yet.
            Err(walt_container::Error::Io { .. }) if !hold::is_held(&dir) => return Ok(None),
            Err(walt_container::Error::Io { .. }) if start.elapsed() < hold::START_LIMIT => {
                tokio::time::sleep(HOLDER_PAUSE).await;
            }
            Err(e) => return Err(e).context("the session's holder does not answer"),
        }
    }
}

/// The session with this id, if it belongs to the caller.
pub fn own(sessions: &Sessions, caller: &UserName, id: &str) -> error::Result<SessionRow> {
    let row = sessions.db().with(|c| SessionRow::get(c, id))?;
    row.filter(|r| r.user == *caller).ok_or(Error::Ended)
}

/// The open session of an image.
pub fn of_image(sessions: &Sessions, image: &ImageRef) -> error::Result<SessionRow> {
    sessions
        .db()
        .with(|c| SessionRow::of_image(c, image))?
        .ok_or_else(|| Error::NoSession { name: image.image().clone() })
}

/// Ends a session and deletes its files. The order makes a crash harmless: housekeeping removes directories without a
/// row.
pub async fn drop_session(sessions: &Arc<Sessions>, row: &SessionRow) -> Result<()> {
    if let Some(client) = holder(sessions, row).await? {
        client.discard().await.context("cannot end the session's container")?;
    }
    sessions.db().with(|c| SessionRow::delete(c, &row.id))?;
    fail_points::point("discard-deleted");
    blocking(|| remove_tree(&dir_of(sessions, &row.id)))
}

/// Ends sessions that were not attached for longer than `limits.session-keep`.
///
/// # Errors
/// The database failed.
pub async fn end_old_ones(sessions: &Arc<Sessions>) -> Result<()> {
    let oldest = time::now() as i64 - sessions.config().limits.session_keep.0 as i64;
    for row in sessions.db().with(SessionRow::all)? {
        if row.used < oldest && row.committing.is_none() {
            tracing::info!(session = %row.id, image = %row.image, "dropping a session that was not used for too long (limits.session-keep)");
            drop_session(sessions, &row).await?;
        }
    }
    Ok(())
}

/// Stops all containers for `walt-server down`; the sessions can be resumed. The number of running ones.
///
/// # Errors
/// A container could not be stopped.
pub async fn stop_all(sessions: &Sessions) -> Result<usize> {
    let mut stopped = 0;
    for row in sessions.db().with(SessionRow::all)? {
        if let Some(client) = holder(sessions, &row).await? {
            client.seal().await.with_context(|| format!("cannot stop the shell session of {}", row.image))?;
            stopped += 1;
        }
    }
    Ok(stopped)
}
