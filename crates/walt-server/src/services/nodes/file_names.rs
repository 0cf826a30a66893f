//! Directories of nodes as they were listed a moment ago, for completion.
//!
//! A shell that completes a command line waits for a tenth of a second only, and a node may need longer. So a list goes on
//! when nobody waits for it, and is kept for a moment: the next key gets it. Keys that come meanwhile wait for the same list.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use walt_api::names::FileName;
use walt_types::Mac;

/// For how long a list is used.
const KEPT: Duration = Duration::from_secs(5);
/// Lists that are kept; beyond that, old ones are dropped first.
const LISTS_MAX: usize = 64;

/// A directory of a node.
type Key = (Mac, Vec<u8>);
/// Its list, once there is one, and when it was made. Locked while it is made.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Arc<Vec<FileName>>)>>>;

/// The lists, by directory.
#[derive(Debug, Default)]
pub struct Listings(Mutex<HashMap<Key, (Instant, Slot)>>);

impl Listings {
    fn slot(&self, key: Key) -> Slot {
        let mut slots = self.0.lock();
        let now = Instant::now();
        slots.retain(|_, (used, slot)| now.duration_since(*used) < KEPT || slot.try_lock().is_err());
        if slots.len() >= LISTS_MAX {
            let oldest = slots.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| slots.remove(&key));
        }
        let (used, slot) = slots.entry(key).or_insert_with(|| (now, Slot::default()));
        *used = now;
        slot.clone()
    }

    /// The list of a directory: one that is new enough, else what `list` gives.
    ///
    /// # Errors
    /// Those of `list`; they are not kept.
    pub async fn of<E>(
        &self,
        mac: Mac,
        directory: &[u8],
        list: impl Future<Output = Result<Vec<FileName>, E>>,
    ) -> Result<Arc<Vec<FileName>>, E> {
        let slot = self.slot((mac, directory.to_vec()));
        let mut kept = slot.lock().await;
        if let Some((made, names)) = &*kept
            && made.elapsed() < KEPT
        {
            return Ok(names.clone());
        }
        let names = Arc::new(list.await?);
        *kept = Some((Instant::now(), names.clone()));
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_list_is_made_once_for_all_who_wait() {
        let (listings, made) = (Listings::default(), AtomicUsize::new(0));
        let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
        let ask = |directory: &'static [u8]| {
            listings.of(mac, directory, async {
                made.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok::<_, ()>(Vec::new())
            })
        };
        let (a, b, c) = tokio::join!(ask(b"/etc/"), ask(b"/etc/"), ask(b"/"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(made.load(Ordering::Relaxed), 2);
        // A failure is not kept.
        assert_eq!(listings.of(mac, b"/x/", async { Err(7) }).await, Err(7));
        assert!(listings.of(mac, b"/x/", async { Ok::<_, ()>(Vec::new()) }).await.is_ok());
    }

    #[tokio::test]
    async fn only_some_are_kept() {
        let listings = Listings::default();
        let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
        for n in 0..2 * LISTS_MAX {
            let list = async { Ok::<_, ()>(Vec::new()) };
            listings.of(mac, n.to_string().as_bytes(), list).await.unwrap();
        }
        assert_eq!(listings.0.lock().len(), LISTS_MAX);
    }
}
