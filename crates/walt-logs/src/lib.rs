//! The log system's foundation: an embedded store of log lines, and the languages of `walt log`.
//!
//! # The store
//!
//! [`Store`] keeps lines of any bytes, each with a timestamp, a stream and a number. It is synchronous: two threads of
//! its own write and keep files, and no call needs an event loop.
//!
//! ```text
//! Chunk ──append──▶ batch in memory ──300 ms, 8 MiB──▶ blocks of <first>.log ──fdatasync──▶ done(Ok)
//!                        │                                    │ 64 MiB, 1 M lines, a day
//!                        ▼                                    ▼
//!                  queries, tails ◀──────────────────── <first>-<last>.zst: by time, zstd, with an index
//!                                                             │ keep, max-size
//!                                                             ▼ removed
//! ```
//!
//! * **Durable before acknowledged.** `done` is called after `fdatasync`. A crash loses at most what was not
//!   acknowledged. A batch is there as a whole or not at all: its last block says that it is the last, and what is behind
//!   the last complete batch is cut off at the next start. Damage of older bytes is not mistaken for that: it is skipped
//!   and reported.
//! * **Once.** A sender that names itself ([`Mark`]) has its position stored with its lines, and asks for it after a crash
//!   ([`Store::resume`]).
//! * **Back-pressure.** One batch fills while another one is written. Who appends more waits. Memory: two batches and
//!   what tails may need ([`limits`]).
//! * **Time is what the sender says.** Timestamps may be in any order. Each block knows its smallest and largest one; a
//!   query merges blocks by time, in bounded memory. Lines of clocks that are far off get blocks of their own.
//! * **A full disk** drops a batch and what waits behind it, and says so to each who wrote lines of it ([`Error::Dropped`]).
//!   The next batch is tried again. A source that sends lines again uses [`Store::append_in_order`].
//!
//! [`Pattern`] is a regular expression in linear time. It is the engine of the crate `regex` without its wrapper, because
//! the search of many lines at once needs a changed form of the expression ([the module](pattern) says which).
//!
//! # Why not SQLite
//!
//! `examples/bench.rs` measures this store and SQLite in WAL mode (`synchronous = FULL`, one writer, batches, indexes by
//! time and by stream and time) with the same lines in one run. One such run: 2 million lines of 81 bytes, 100 threads, 2
//! cores with a load of 5 by other work, release profile:
//!
//! | | this store | SQLite |
//! |---|---|---|
//! | lines a second, durable | 1,040,000 | 353,000 |
//! | bytes a line on disk | 14 compressed | 154 |
//! | the last 1,000 lines | 6 ms, 12 before | 0.5 ms |
//! | one stream, one minute of 333,000 lines | 1.4 ms, 5.4 before | 0.6 ms |
//!
//! SQLite answers small questions faster, and both are far from what is allowed (30 ms and 50 ms). But its insertions go
//! to three B-trees at random places, which get slower when they do not fit in memory; it takes eleven times the disk; and
//! a regular expression is a call for each line there, while here one search goes over a frame of lines: 0.6 to 1.3 times
//! the time of `grep -c` on the same text, 1.05 to 1.7 times when compressed.
//!
//! # The languages
//!
//! [`history`]: which past lines; [`format`](mod@format): how records are printed; [`show`]: any bytes as text;
//! [`rate`]: how much one issuer may log. They are pure.

mod block;
mod catalogue;
mod check;
mod chunk;
mod codec;
mod error;
pub mod format;
pub mod history;
mod keeper;
pub mod limits;
mod open;
pub mod pattern;
mod query;
pub mod rate;
mod reader;
mod segment;
pub mod show;
mod store;
mod tail;
mod writer;

pub use block::Mark;
pub use catalogue::{Mode, Selector, StreamId, StreamInfo};
pub use check::Report;
pub use chunk::Chunk;
pub use error::Error;
pub use pattern::Pattern;
pub use query::{Query, Records};
pub use store::{Done, Hook, Retention, Status, Store};
pub use tail::Tail;

/// One line of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Microseconds since 1970, as the sender or the intake has set it.
    pub timestamp: i64,
    /// Its number: lines that came later have larger ones.
    pub seq: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its bytes, without the newline that ended it.
    pub line: Vec<u8>,
}

impl Record {
    /// Its place in the order of queries.
    pub fn key(&self) -> (i64, u64) {
        (self.timestamp, self.seq)
    }
}

impl From<block::Row<'_>> for Record {
    fn from(row: block::Row<'_>) -> Record {
        Record { timestamp: row.timestamp, seq: row.seq, stream: row.stream, line: row.line.to_vec() }
    }
}
