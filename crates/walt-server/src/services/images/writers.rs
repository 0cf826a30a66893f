//! Who may write to the store, and when.
//!
//! ```text
//! imports, saves, views   many at once, each with a Writing
//! housekeeping, checks    alone: an Exclusive, which is also a decision
//! ```

use crate::base::state::{Base, Decision};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long imports and saves may follow on each other before new ones wait for housekeeping.
const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// Pause between two tries to have the store alone.
const RETRY: Duration = Duration::from_millis(20);

/// The locks of the store.
#[derive(Default)]
pub struct Writers {
    changes: RwLock<()>,
    /// Imports and saves pass it; who needs the store alone closes it when its turn does not come.
    gate: Mutex<()>,
}

/// The store changes: nothing is removed from it meanwhile. Parameter of what must not run without it.
#[derive(Debug)]
pub struct Writing<'a>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>);

/// Nobody writes to the store, and nobody decides anything.
#[derive(Debug)]
pub struct Exclusive<'a> {
    #[expect(dead_code, reason = "held, not read")]
    store: RwLockWriteGuard<'a, ()>,
    /// The decision.
    pub decision: Decision<'a>,
}

impl Writers {
    /// For an import or a save: waits while housekeeping waits for its turn.
    pub async fn writing(&self) -> Writing<'_> {
        let _passing = self.gate.lock().await;
        Writing(self.changes.read().await)
    }

    /// For a view of a node or a shell that is wanted now: waits for housekeeping only while it runs.
    pub async fn writing_now(&self) -> Writing<'_> {
        Writing(self.changes.read().await)
    }

    /// As [`writing_now`](Self::writing_now), in a thread that may block.
    pub fn writing_now_blocking(&self) -> Writing<'_> {
        Writing(self.changes.blocking_read())
    }

    /// The decisions, and the store with nobody writing to it.
    ///
    /// Savers take the decisions with the store in hand, and those who open a shell take them the other way
    /// round: so nobody waits for the store here with the decisions in hand.
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
