//! How many virtual nodes boot at once: more than the cores can carry would all be overdue, be rebooted by force, and
//! never boot.
//!
//! A node holds a slot from before its qemu starts until it has booted, needs a look or has ended, at most for
//! [`SLOT_TIME`]. A node that waits for a slot is off, and the clock of its boot does not run.

use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use walt_types::Mac;

/// A boot that takes longer does not count any more: systems that never boot do not block the others.
pub const SLOT_TIME: Duration = Duration::from_secs(45);
/// Parts of a core that a booting node takes: all of them when its CPU is emulated, one with KVM, where it waits for
/// its files most of the time.
const PARTS: usize = 4;

/// The slots.
pub struct Slots {
    parts: Arc<Semaphore>,
    held: Mutex<HashMap<Mac, Held>>,
    /// Nodes whose last start used KVM.
    light: Mutex<HashSet<Mac>>,
}

struct Held {
    _parts: OwnedSemaphorePermit,
    until: Instant,
}

impl Default for Slots {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Slots {
    /// Slots for this number of cores.
    fn new(cores: usize) -> Self {
        let parts = Arc::new(Semaphore::new(cores * PARTS));
        Self { parts, held: Mutex::default(), light: Mutex::default() }
    }

    /// Takes a slot for a node, once there is one; nodes are served in the order in which they come. A slot that the
    /// node holds is returned before.
    pub async fn take(&self, mac: Mac) {
        self.release(mac);
        let wanted = if self.light.lock().contains(&mac) { 1 } else { PARTS as u32 };
        let Ok(parts) = self.parts.clone().acquire_many_owned(wanted).await else { return };
        self.held.lock().insert(mac, Held { _parts: parts, until: Instant::now() + SLOT_TIME });
    }

    /// Whether a node would have to wait.
    pub fn is_full(&self) -> bool {
        self.parts.available_permits() < PARTS
    }

    /// Returns the slot of a node, if it holds one.
    pub fn release(&self, mac: Mac) {
        self.held.lock().remove(&mac);
    }

    /// Returns the slot of a node if it is held for too long.
    pub fn release_late(&self, mac: Mac) {
        let mut held = self.held.lock();
        if held.get(&mac).is_some_and(|held| Instant::now() >= held.until) {
            held.remove(&mac);
        }
    }

    /// Records whether the CPU of a node is emulated.
    pub fn set_emulated(&self, mac: Mac, is_emulated: bool) {
        let mut light = self.light.lock();
        if is_emulated {
            light.remove(&mac)
        } else {
            light.insert(mac)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_as_cores_and_more_with_kvm() {
        let slots = Arc::new(Slots::new(2));
        slots.take(mac(1)).await;
        slots.take(mac(2)).await;
        assert!(slots.is_full());
        let waits = |n| {
            let slots = slots.clone();
            tokio::spawn(async move { slots.take(mac(n)).await })
        };
        let (third, fourth) = (waits(3), waits(4));
        tokio::time::sleep(SLOT_TIME).await;
        assert!(!third.is_finished());
        slots.release(mac(2));
        third.await.unwrap();
        assert!(!fourth.is_finished(), "in order");
        // A node that starts again does not wait for itself.
        slots.release_late(mac(3));
        assert!(!fourth.is_finished(), "too early");
        slots.release_late(mac(1));
        fourth.await.unwrap();
        slots.release(mac(3));
        slots.release(mac(4));
        // With KVM.
        for n in 10..18 {
            slots.set_emulated(mac(n), false);
            slots.take(mac(n)).await;
        }
        assert!(slots.is_full());
        slots.set_emulated(mac(10), true);
        let emulated = waits(10);
        tokio::time::sleep(SLOT_TIME).await;
        assert!(!emulated.is_finished());
        (11..14).for_each(|n| slots.release(mac(n)));
        emulated.await.unwrap();
    }
}
