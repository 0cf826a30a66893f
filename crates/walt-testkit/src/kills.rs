//! For tests that kill a server at random moments: a seeded random generator, and a flag that stops the server's
//! users.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Splitmix64: a seed gives the same decisions (not the same moments: those are the machine's).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// By a seed of one's own.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// By the seed in `WALT_TEST_SEED`, else by the clock; says for `what` it is, and which seed.
    ///
    /// # Panics
    /// If the variable is not a number.
    pub fn seeded(what: &str) -> Self {
        let seed = match std::env::var("WALT_TEST_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|e| panic!("WALT_TEST_SEED is '{text}': {e}")),
            Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos().into()),
        };
        eprintln!("{what}, WALT_TEST_SEED={seed}");
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }

    /// One of a list, if it has any.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> Option<T> {
        if list.is_empty() { None } else { list.get(self.below(list.len() as u64) as usize).cloned() }
    }

    /// Sleeps for less than so many milliseconds.
    pub fn sleep(&mut self, limit_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.below(limit_ms)));
    }
}

/// Raises a flag when it is dropped, so that other threads end when the killing thread finishes or panics.
#[derive(Debug)]
pub struct StopAll<'a>(pub &'a AtomicBool);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
