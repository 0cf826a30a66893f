//! Slots of containers of builds, which select their addresses and ranges of user ids.

use parking_lot::Mutex;
use std::collections::BTreeSet;

/// The slots that builds use now.
#[derive(Debug, Default)]
pub struct Slots(Mutex<BTreeSet<u32>>);

/// A slot in use, released when dropped.
#[derive(Debug)]
pub struct Slot<'a> {
    slots: &'a Slots,
    /// The number.
    pub number: u32,
}

impl Slots {
    /// Takes the highest free number below `end`; image shells take the lowest ones.
    pub fn take(&self, end: u32, others: &BTreeSet<u32>) -> Option<Slot<'_>> {
        let mut taken = self.0.lock();
        let number = (0..end).rev().find(|n| !taken.contains(n) && !others.contains(n))?;
        taken.insert(number);
        Some(Slot { slots: self, number })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.slots.0.lock().remove(&self.number);
    }
}
