//! How many connections each peer has: one that opens too many must not keep the others out.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Connections by peer (an address, a user); a peer without connections takes no room.
#[derive(Debug)]
pub struct Peers<K>(Mutex<HashMap<K, usize>>);

/// One connection of a peer; counted until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Hash + Eq> {
    peers: Arc<Peers<K>>,
    peer: K,
}

impl<K: Hash + Eq + Copy> Peers<K> {
    /// Nobody is connected.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// One more connection; `None` if the peer has `max` of them.
    pub fn enter(self: &Arc<Self>, peer: K, max: usize) -> Option<Counted<K>> {
        let mut all = self.lock();
        let count = all.entry(peer).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted { peers: self.clone(), peer })
    }
}

impl<K> Peers<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // The map is whole between any two statements that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut all = self.peers.lock();
        if let Some(count) = all.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_bound() {
        let peers = Peers::new();
        let first = peers.enter(1, 2).unwrap();
        let _second = peers.enter(1, 2).unwrap();
        assert!(peers.enter(1, 2).is_none());
        assert!(peers.enter(2, 2).is_some());
        drop(first);
        assert!(peers.enter(1, 2).is_some());
        assert_eq!(peers.lock().len(), 1, "who is gone takes no room");
    }
}
