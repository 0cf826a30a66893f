//! The locks of the store.
//!
//! ```text
//! imports, saves, views   many at once, each with a Writing
//! housekeeping, checks    alone: an Exclusive, which is also a decision
//! ```

use crate::base::state::{Base, Decision};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long housekeeping waits before new imports and saves have to wait for it.
const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// Pause between two attempts to lock the store exclusively.
const RETRY: Duration = Duration::from_millis(20);

/// The locks of the store.
#[derive(Default)]
pub struct Writers {
    changes: RwLock<()>,
    /// Imports and saves pass it; `exclusive` closes it if it has waited too long.
    gate: Mutex<()>,
}

/// The right to write to the store, from which nothing is removed meanwhile. A parameter of every function that needs
/// it.
#[derive(Debug)]
pub struct Writing<'a>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>);

/// The only access to the store, which is also a [`Decision`].
#[derive(Debug)]
pub struct Exclusive<'a> {
    #[expect(dead_code, reason = "held, not read")]
    store: RwLockWriteGuard<'a, ()>,
    /// The decision.
    pub decision: Decision<'a>,
}

impl Writers {
    /// For an import or a save. Waits if housekeeping has waited for too long.
    pub async fn writing(&self) -> Writing<'_> {
        let _passing = self.gate.lock().await;
        Writing(self.changes.read().await)
    }

    /// For a view that a node or a shell needs at once. Waits for running housekeeping only.
    pub async fn writing_now(&self) -> Writing<'_> {
        Writing(self.changes.read().await)
    }

    /// As [`writing_now`](Self::writing_now), in a thread that may block.
    pub fn writing_now_blocking(&self) -> Writing<'_> {
        Writing(self.changes.blocking_read())
    }

    /// Locks the decisions and the store exclusively.
    ///
    /// A save locks the store and then the decisions; opening a shell locks them the other way round. So this never
    /// waits for the store while it holds the decisions.
    pub async fn exclusive<'a>(&'a self, base: &'a Base) -> Exclusive<'a> {
        let start = Instant::now();
        let mut gate = None;
        loop {
            let decision = base.decide().await;
            if let Ok(store) = self.changes.try_write() {
                return Exclusive { store, decision };
            }
            drop(decision);
            if gate.is_none() && start.elapsed() > CLOSE_AFTER {
                gate = Some(self.gate.lock().await);
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
