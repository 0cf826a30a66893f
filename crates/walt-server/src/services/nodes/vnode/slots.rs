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
    time: Duration,
}

struct Held {
    _parts: OwnedSemaphorePermit,
    until: Instant,
}

impl Default for Slots {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from), SLOT_TIME)
    }
}

impl Slots {
    /// Slots for this number of cores, each held for this time at most.
    fn new(cores: usize, time: Duration) -> Self {
        let parts = Arc::new(Semaphore::new(cores * PARTS));
        Self { parts, held: Mutex::default(), light: Mutex::default(), time }
    }

    /// Takes a slot for a node, once there is one; nodes are served in the order in which they come. A slot that the
    /// node holds is returned before.
    pub async fn take(&self, mac: Mac) {
        self.release(mac);
        let wanted = if self.light.lock().contains(&mac) { 1 } else { PARTS as u32 };
        let Ok(parts) = self.parts.clone().acquire_many_owned(wanted).await else { return };
        self.held.lock().insert(mac, Held { _parts: parts, until: Instant::now() + self.time });
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
    use tokio::task::JoinHandle;

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn takes(slots: &Arc<Slots>, n: u8) -> JoinHandle<()> {
        let slots = slots.clone();
        tokio::spawn(async move { slots.take(mac(n)).await })
    }

    /// Whether a task has ended after all others have had their turn.
    async fn ends(task: &JoinHandle<()>) -> bool {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        task.is_finished()
    }

    #[tokio::test]
    async fn as_many_as_cores_in_the_order_in_which_they_come() {
        let slots = Arc::new(Slots::new(2, SLOT_TIME));
        slots.take(mac(1)).await;
        assert!(!slots.is_full());
        slots.take(mac(2)).await;
        assert!(slots.is_full());
        let third = takes(&slots, 3);
        assert!(!ends(&third).await);
        let fourth = takes(&slots, 4);
        assert!(!ends(&fourth).await);
        slots.release(mac(2));
        assert!(ends(&third).await && !ends(&fourth).await);
        // A node that starts again does not wait for itself, but behind the others.
        let first = takes(&slots, 1);
        assert!(ends(&fourth).await && !ends(&first).await);
        slots.release_late(mac(3));
        assert!(!ends(&first).await, "too early");
        slots.release(mac(3));
        assert!(ends(&first).await);
    }

    #[tokio::test]
    async fn a_boot_that_takes_too_long_does_not_count() {
        let slots = Arc::new(Slots::new(1, Duration::ZERO));
        slots.take(mac(1)).await;
        let second = takes(&slots, 2);
        assert!(!ends(&second).await);
        slots.release_late(mac(2));
        assert!(!ends(&second).await);
        slots.release_late(mac(1));
        assert!(ends(&second).await);
    }

    #[tokio::test]
    async fn more_with_kvm() {
        let slots = Arc::new(Slots::new(1, SLOT_TIME));
        for n in 1..=PARTS as u8 {
            slots.set_emulated(mac(n), false);
            slots.take(mac(n)).await;
        }
        assert!(slots.is_full());
        slots.set_emulated(mac(1), true);
        let emulated = takes(&slots, 1);
        assert!(!ends(&emulated).await);
        slots.release(mac(2));
        slots.release(mac(3));
        assert!(!ends(&emulated).await);
        slots.release(mac(4));
        assert!(ends(&emulated).await);
    }
}
