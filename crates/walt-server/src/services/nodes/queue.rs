//! The queue for nodes at run time. Its rules are those of [`walt_core::node_queue`].
//!
//! ```text
//! enter ─▶ present ──(the nodes are granted, or the client has gone)──▶ out
//!             ▲ enter with the same name
//! start ─▶ awaited ──(QUEUE_RETURN_SECONDS)──▶ out
//! ```
//! The list is in memory, and on disk for the next server. When a server ends, its clients are cut off; they come back, and
//! until then their places count. Rows of those who are out are removed by [`Queue::tidy`], not at once: a server that
//! ends must leave them.
//!
//! Limits: [`QUEUE_MAX`] places; `QUEUE_RETURN_SECONDS`; `GRANT_KEEP`.

use crate::base::{
    db::{Db, NodeLeaseRow, NodeWaitRow},
    state::Decision,
    time::now,
};
use anyhow::Result;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use walt_api::QUEUE_RETURN_SECONDS;
use walt_core::node_queue::{self, Wait};
use walt_types::{ClientTag, Mac, UserName};

/// Places in the queue.
pub const QUEUE_MAX: usize = 1000;
/// How long the server remembers that somebody got nodes from the queue, in seconds: a client that was cut off at that
/// moment asks again.
const GRANT_KEEP: i64 = 300;

/// Those who wait.
pub struct Queue {
    entries: Mutex<Entries>,
    started: Instant,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    visits: u64,
}

struct Entry {
    wait: Wait,
    tag: ClientTag,
    /// The visit of its client; none while the client is awaited after a restart.
    visit: Option<u64>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { entries: Mutex::default(), started: Instant::now(), changed: watch::Sender::new(0) }
    }
}

/// A place in the queue, which ends when this is dropped.
pub struct Place {
    queue: Arc<Queue>,
    /// The one who waits.
    pub wait: Wait,
    visit: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().list.retain(|e| e.wait.id != self.wait.id || e.visit != Some(self.visit));
        self.queue.signal();
    }
}

impl Place {
    /// Whether the same user has taken the place over with another client.
    pub fn is_lost(&self) -> bool {
        !self.queue.lock().list.iter().any(|e| e.wait.id == self.wait.id && e.visit == Some(self.visit))
    }

    /// Records that it has got its nodes: in the transaction that gives them.
    pub fn grant(&self, c: &Connection) -> Result<()> {
        NodeWaitRow::grant(c, self.wait.id, now() as i64)
    }
}

impl Queue {
    /// Reads what an earlier server has left: places whose clients are awaited, and holds, whose holders have not been
    /// heard by this server yet.
    ///
    /// # Errors
    /// The database failed.
    pub fn recover(&self, db: &Db) -> Result<()> {
        db.with(|c| NodeLeaseRow::hear_all(c, now()))?;
        let waits = db.with(NodeWaitRow::all)?;
        self.lock().list = waits.into_iter().map(|(wait, tag)| Entry { wait, tag, visit: None }).collect();
        Ok(())
    }

    /// Takes a place, or comes back to it; none if the queue is full.
    ///
    /// # Errors
    /// The database failed.
    pub fn enter(
        self: &Arc<Self>,
        db: &Db,
        (user, tag): (&UserName, &ClientTag),
        nodes: BTreeSet<Mac>,
        _decision: &Decision<'_>,
    ) -> Result<Option<Place>> {
        let mut entries = self.lock();
        entries.visits += 1;
        let visit = entries.visits;
        let known = entries.list.iter_mut().find(|e| e.wait.user == *user && e.tag == *tag);
        let wait = match known {
            // After a restart a keyword may mean other nodes than those that were waited for.
            Some(entry) if entry.visit.is_none() || entry.wait.nodes == nodes => {
                entry.visit = Some(visit);
                entry.wait.clone()
            }
            // The same name for other nodes: a new place.
            _ => {
                entries.list.retain(|e| e.wait.user != *user || e.tag != *tag);
                if entries.list.len() >= QUEUE_MAX {
                    return Ok(None);
                }
                let since = now() as i64;
                let id = db.transaction(|tx| NodeWaitRow::insert(tx, user, tag, since, &nodes))?;
                let wait = Wait { id, user: user.clone(), since, nodes };
                entries.list.push(Entry { wait: wait.clone(), tag: tag.clone(), visit: Some(visit) });
                wait
            }
        };
        drop(entries);
        self.signal();
        Ok(Some(Place { queue: self.clone(), wait, visit }))
    }

    /// All who wait, in order.
    pub fn waits(&self) -> Vec<Wait> {
        self.lock().list.iter().map(|e| e.wait.clone()).collect()
    }

    /// Those who wait for a node, in order.
    pub fn waiting_for(&self, node: Mac) -> Vec<UserName> {
        node_queue::waiting_for(&self.waits(), node).map(|wait| wait.user.clone()).collect()
    }

    /// Drops the places of clients that did not come back, and removes from the disk what is out.
    ///
    /// # Errors
    /// The database failed.
    pub fn tidy(&self, db: &Db, _decision: &Decision<'_>) -> Result<()> {
        let (keep, dropped) = {
            let mut entries = self.lock();
            let before = entries.list.len();
            if self.started.elapsed() >= Duration::from_secs(QUEUE_RETURN_SECONDS) {
                entries.list.retain(|e| e.visit.is_some());
            }
            let keep: BTreeSet<i64> = entries.list.iter().map(|e| e.wait.id).collect();
            (keep, before - entries.list.len())
        };
        db.transaction(|tx| NodeWaitRow::sweep(tx, &keep, now() as i64 - GRANT_KEEP))?;
        if dropped > 0 {
            self.signal();
        }
        Ok(())
    }

    /// How long clients are awaited still, if some are.
    pub fn return_limit(&self) -> Option<Duration> {
        let is_awaited = self.lock().list.iter().any(|e| e.visit.is_none());
        is_awaited.then(|| Duration::from_secs(QUEUE_RETURN_SECONDS).saturating_sub(self.started.elapsed()))
    }

    /// Wakes all who wait: an owner, a lease or the queue has changed.
    pub fn signal(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// A receiver that sees every change from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic cannot leave the list inconsistent.
        self.entries.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{config::Config, state::Base, state_lock::StateLock};

    #[tokio::test(flavor = "multi_thread")]
    async fn places_outlive_the_server_but_not_their_clients() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (state_dir, run_dir) = (dir.path().join("state"), dir.path().join("run"));
        let lock = StateLock::take(&state_dir).unwrap();
        let base = Base::open(Config { state_dir, run_dir, ..Config::default() }, &lock).unwrap();
        let (db, decision) = (base.db(), base.decide().await);
        let [ann, bob]: [UserName; 2] = ["ann", "bob"].map(|name| name.parse().unwrap());
        let tag: ClientTag = "t".parse().unwrap();
        let nodes = BTreeSet::from(["02:00:00:00:00:01".parse().unwrap()]);
        let users = |queue: &Queue| queue.waits().iter().map(|w| w.user.to_string()).collect::<Vec<_>>();
        let enter = |queue: &Arc<Queue>, user| {
            queue.enter(db, (user, &tag), nodes.clone(), &decision).unwrap().unwrap()
        };

        let first = Arc::new(Queue::default());
        let (_anns, bobs) = (enter(&first, &ann), enter(&first, &bob));
        assert_eq!(users(&first), ["ann", "bob"]);
        let again = enter(&first, &bob);
        assert!(bobs.is_lost() && !again.is_lost());
        drop(bobs);
        assert_eq!(users(&first), ["ann", "bob"], "the newer client has the place");

        // The server dies: the next one awaits both, in their order.
        let second = Arc::new(Queue::default());
        second.recover(db).unwrap();
        assert_eq!(users(&second), ["ann", "bob"]);
        let place = enter(&second, &bob);
        assert_eq!(place.wait.id, again.wait.id);
        drop(place);
        assert_eq!(users(&second), ["ann"], "bob has gone");
        second.tidy(db, &decision).unwrap();
        assert_eq!(db.with(NodeWaitRow::all).unwrap().len(), 1);
    }
}
