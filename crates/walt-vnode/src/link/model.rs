//! One direction of a link: which frames arrive, and when. Pure: time is passed in.
//!
//! ```text
//!  offer ─▶ cut? ─▶ lost? ─▶ twice? ─▶ bit flipped? ─▶ queue ─▶ rate ─▶ latency ± jitter ─▶ take, by due time
//!                                                        └ full: dropped    └ skipped by those that overtake
//! ```
//! The rate is a bucket as deep as one frame: a frame leaves when those before it have, and its own bits took their
//! time. A late call of [`Direction::take`] costs no rate, since times are computed and not measured.
//!
//! Every random decision has its own sequence, and takes one step of it for every frame (one for every copy, where
//! copies differ). So the same frames meet the same fate for the same seed, whenever they come, and a change of one
//! parameter leaves the others' sequences.

use super::random::Random;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use walt_types::networks::{Burst, Impairments, QUEUE_DEFAULT};

/// Most bytes under way in one direction, with [`FRAME_COST`] for each frame: half a second at 1 Gbit/s. Users choose
/// delays, and nodes what they send: this bounds what both take of the server's memory.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that a frame takes besides its own: its place in the queue, and what the allocator adds.
pub const FRAME_COST: usize = 128;
/// Nanoseconds of a microsecond.
const US: u64 = 1_000;
/// Bytes of an Ethernet header. A flipped bit is behind it: a frame with other addresses would be no frame of the link.
const ETHERNET_HEADER: usize = 14;

/// What has happened to the frames of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Frames delivered.
    pub passed: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
    /// Frames lost by `loss`.
    pub lost: u64,
    /// Frames lost by `burst`.
    pub lost_in_bursts: u64,
    /// Frames that found the queue of the rate full.
    pub queue_full: u64,
    /// Frames that came while the link was cut.
    pub cut: u64,
    /// Frames that did not fit into the memory for frames under way.
    pub no_memory: u64,
    /// Frames that the kernel did not take, or dropped before they could be read.
    pub kernel: u64,
    /// Frames delivered a second time.
    pub duplicated: u64,
    /// Frames that skipped the delay.
    pub reordered: u64,
    /// Frames in which a bit was flipped.
    pub corrupted: u64,
    /// Frames under way now.
    pub queued: u64,
}

/// A frame under way.
struct Frame {
    /// When it arrives, in nanoseconds.
    due: u64,
    /// Its number: of two frames that are due at the same time, the earlier one is first.
    number: u64,
    bytes: Vec<u8>,
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Frame {}

impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Frame {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// The sequences of the random decisions.
struct Decisions {
    loss: Random,
    burst: Random,
    duplicate: Random,
    reorder: Random,
    corrupt: Random,
    bit: Random,
    jitter: Random,
}

impl Decisions {
    fn new(seed: u64) -> Self {
        let stream = |number| Random::new(seed, number);
        Self {
            loss: stream(1),
            burst: stream(2),
            duplicate: stream(3),
            reorder: stream(4),
            corrupt: stream(5),
            bit: stream(6),
            jitter: stream(7),
        }
    }
}

/// One direction of a link. Times are in nanoseconds since any moment, and never go back.
pub struct Direction {
    impairments: Impairments,
    is_cut: bool,
    decisions: Decisions,
    /// Whether the link is in a burst of loss.
    is_bad: bool,
    /// When the last frame left the queue.
    free_at: u64,
    /// When the frames in the queue leave it.
    leaving: VecDeque<u64>,
    under_way: BinaryHeap<Reverse<Frame>>,
    bytes_under_way: usize,
    bytes_max: usize,
    number: u64,
    counters: Counters,
}

impl Direction {
    /// A direction without frames.
    pub fn new(impairments: Impairments, is_cut: bool, seed: u64) -> Self {
        Self {
            impairments,
            is_cut,
            decisions: Decisions::new(seed),
            is_bad: false,
            free_at: 0,
            leaving: VecDeque::new(),
            under_way: BinaryHeap::new(),
            bytes_under_way: 0,
            bytes_max: BYTES_MAX,
            number: 0,
            counters: Counters::default(),
        }
    }

    /// Changes what happens to the frames that come from now on. `seed` begins the random decisions again. Frames under
    /// way arrive when they would have, unless the link is cut now: then they are dropped.
    pub fn change(&mut self, impairments: Impairments, is_cut: bool, seed: Option<u64>) {
        self.impairments = impairments;
        if let Some(seed) = seed {
            self.decisions = Decisions::new(seed);
            self.is_bad = false;
        }
        if impairments.burst.is_none() {
            self.is_bad = false;
        }
        if impairments.rate_kbps.is_none() {
            self.leaving.clear();
            self.free_at = 0;
        }
        self.is_cut = is_cut;
        if is_cut {
            self.counters.cut += self.under_way.len() as u64;
            self.under_way.clear();
            self.bytes_under_way = 0;
        }
    }

    /// A frame enters the link.
    pub fn offer(&mut self, now: u64, mut bytes: Vec<u8>) {
        let i = self.impairments;
        let happens = |random: &mut Random, share: f64| random.unit() < share;
        // All decisions are made for each frame, in the same order.
        let is_lost = happens(&mut self.decisions.loss, i.loss.fraction());
        let is_in_burst = self.is_in_burst(i.burst);
        let is_twice = happens(&mut self.decisions.duplicate, i.duplicate.fraction());
        let is_corrupt = happens(&mut self.decisions.corrupt, i.corrupt.fraction());
        let place = self.decisions.bit.next();
        if self.is_cut {
            self.counters.cut += 1;
        } else if is_in_burst {
            self.counters.lost_in_bursts += 1;
        } else if is_lost {
            self.counters.lost += 1;
        } else {
            let copy = is_twice.then(|| bytes.clone());
            if is_corrupt && flip(&mut bytes, place) {
                self.counters.corrupted += 1;
            }
            self.enqueue(now, bytes);
            if let Some(copy) = copy {
                self.counters.duplicated += 1;
                self.enqueue(now, copy);
            }
        }
    }

    fn is_in_burst(&mut self, burst: Option<Burst>) -> bool {
        let unit = self.decisions.burst.unit();
        let Some(Burst { begin, end }) = burst else { return false };
        self.is_bad = if self.is_bad { unit >= end.fraction() } else { unit < begin.fraction() };
        self.is_bad
    }

    fn enqueue(&mut self, now: u64, bytes: Vec<u8>) {
        let i = self.impairments;
        let deviation = self.decisions.jitter.deviation(i.distribution);
        let overtakes = self.decisions.reorder.unit() < i.reorder.fraction();
        let cost = bytes.len() + FRAME_COST;
        if self.bytes_under_way + cost > self.bytes_max {
            self.counters.no_memory += 1;
            return;
        }
        let Some(leaves) = self.leaves(now, bytes.len()) else {
            self.counters.queue_full += 1;
            return;
        };
        let delay = if overtakes {
            self.counters.reordered += 1;
            0
        } else {
            // A negative delay becomes 0: `as` saturates.
            ((i.latency_us as f64 + deviation * i.jitter_us as f64) * US as f64) as u64
        };
        self.bytes_under_way += cost;
        self.number += 1;
        self.under_way.push(Reverse(Frame { due: leaves + delay, number: self.number, bytes }));
    }

    /// When a frame of this length has left the queue; `None` if the queue is full.
    fn leaves(&mut self, now: u64, length: usize) -> Option<u64> {
        let Some(kbps) = self.impairments.rate_kbps else { return Some(now) };
        while self.leaving.front().is_some_and(|at| *at <= now) {
            self.leaving.pop_front();
        }
        let longest = self.impairments.queue.unwrap_or(QUEUE_DEFAULT);
        if self.leaving.len() >= longest as usize {
            return None;
        }
        // 1 kbit/s is one bit in a million nanoseconds.
        let takes = length as u64 * 8 * 1_000_000 / kbps;
        self.free_at = self.free_at.max(now) + takes;
        self.leaving.push_back(self.free_at);
        Some(self.free_at)
    }

    /// When the next frame arrives.
    pub fn next_due(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse(frame)| frame.due)
    }

    /// The next frame that has arrived by now. Say by [`Self::delivered`] what became of it.
    pub fn take(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(frame) = self.under_way.pop()?;
        self.bytes_under_way -= frame.bytes.len() + FRAME_COST;
        Some(frame.bytes)
    }

    /// Counts a frame that was taken: given to the kernel, or refused by it.
    pub fn delivered(&mut self, length: usize, is_taken: bool) {
        if is_taken {
            self.counters.passed += 1;
            self.counters.bytes += length as u64;
        } else {
            self.counters.kernel += 1;
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        Counters { queued: self.under_way.len() as u64, ..self.counters }
    }
}

/// Flips a bit behind the Ethernet header; false if there is nothing.
fn flip(bytes: &mut [u8], place: u64) -> bool {
    let Some(body) = bytes.get_mut(ETHERNET_HEADER..).filter(|body| !body.is_empty()) else { return false };
    let bit = ((u128::from(place) * (body.len() as u128 * 8)) >> 64) as usize;
    // Invariant: `bit` is less than the number of bits.
    body[bit / 8] ^= 1 << (bit % 8);
    true
}

#[cfg(test)]
mod tests;
