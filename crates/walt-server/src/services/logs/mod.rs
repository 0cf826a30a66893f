//! Log lines: the store, who logged, and how much each may log.
//!
//! ```text
//! edge/log_intake, edge/netconsole ──Stream──▶ rate limit ──▶ store ──▶ queries, tails
//! consoles (virtual nodes)  ─────────────────────────────────▶
//! base/journal (the server itself) ──────────────────────────▶
//! ```
//! An issuer is known to the store by what never changes: the MAC address of a device, or [`SERVER`]. Names are looked up
//! when lines are shown, so that a renamed node keeps its lines.

pub mod consoles;
pub mod forward;
mod losses;

use crate::base::{
    config::Config,
    db::blocking,
    journal::{self, Line},
    state::Base,
    time,
};
use anyhow::{Context, Result};
use losses::Losses;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};
use walt_logs::{Chunk, Error, Mark, Mode, Retention, Store, StreamId, limits, rate};
use walt_types::Mac;

/// The key of the server in the store.
pub const SERVER: &str = "server";
/// The name of the server as an issuer of lines.
pub const SERVER_NAME: &str = "walt-server";
/// Pause before the store is asked again whether it has room.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// How long a server that ends may keep the store after it has released the lock of the state.
const ENDING: Duration = Duration::from_secs(10);
/// How old a timestamp of a sender may be, in microseconds; others are replaced by the time of arrival.
const AGE_MAX: i64 = 10 * 365 * 86400 * 1_000_000;
/// How far in the future it may be, in microseconds.
const FUTURE_MAX: i64 = 1_000_000;
/// How often it is said that the clock of a node is off, in microseconds.
const CLOCK_PERIOD: i64 = 600_000_000;
/// A difference between two clocks of the server that is a jump of one; ntpd and chronyd correct smaller ones slowly.
const JUMP_MIN: i64 = 2_000_000;
/// How often the lines that wait for the store are looked at when nobody reports any.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(1);
/// Most dropped lines that a node may report at once: its own counts are not believed beyond that.
const DROPPED_MAX: u64 = 1 << 40;

/// Where the store is.
pub fn dir(config: &Config) -> PathBuf {
    config.state_dir.join("logs")
}

/// Opens the store. The lock of the state is held: another process that still has the store is about to end, and has
/// released that lock first.
///
/// # Errors
/// It cannot be opened.
pub fn open_store(dir: &Path, retention: Retention) -> Result<Store, Error> {
    let start = Instant::now();
    loop {
        match Store::open(dir, retention) {
            Err(Error::InUse(_)) if start.elapsed() < ENDING => std::thread::sleep(ROOM_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Resolves when lines are durable, or were dropped.
pub type Stored = oneshot::Receiver<Result<(), Error>>;

/// The service.
pub struct Logs {
    base: Arc<Base>,
    store: Arc<Store>,
    issuers: Mutex<HashMap<Mac, Issuer>>,
    /// Wakes those that follow lines.
    news: Arc<Notify>,
    losses: Arc<Losses>,
    /// What rates and pauses are measured from: the clock of the day may jump.
    started: Instant,
    lines: AtomicU64,
    bytes: AtomicU64,
}

impl Logs {
    /// Opens the store.
    ///
    /// # Errors
    /// It cannot be opened; the error says why.
    pub fn open(base: Arc<Base>) -> Result<Self> {
        let config = &base.config().logs;
        let retention = Retention {
            keep: Some(Duration::from_secs(config.keep.0)),
            max_size: Some(config.max_size.bytes()),
        };
        let store =
            open_store(&dir(base.config()), retention).context("the store of log lines cannot be opened")?;
        let news = Arc::new(Notify::new());
        let wake = news.clone();
        store.set_hook(Arc::new(move || wake.notify_waiters()));
        Ok(Self {
            store: Arc::new(store),
            news,
            issuers: Mutex::default(),
            losses: Arc::default(),
            started: Instant::now(),
            lines: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            base,
        })
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Resolves when lines come while somebody follows them.
    pub fn news(&self) -> &Arc<Notify> {
        &self.news
    }

    /// Lines that were taken in since the start of the server, and their bytes.
    pub fn taken_in(&self) -> (u64, u64) {
        (self.lines.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Forgets the lines of a device that is removed.
    pub fn forget(&self, mac: Mac) {
        self.issuers.lock().remove(&mac);
        if let Err(e) = self.store.forget_issuer(&mac.to_string()) {
            tracing::warn!(%mac, "the log lines of a removed device are still there: {e}");
        }
    }

    /// A stream of a device, to add lines to.
    ///
    /// # Errors
    /// Its name cannot be used, or there are too many streams.
    pub fn stream(&self, mac: Mac, name: &str, mode: Mode) -> Result<Stream, Error> {
        let id = self.store.stream(&mac.to_string(), name, mode)?;
        Ok(Stream { mac, id, chunk: Chunk::new() })
    }

    /// Appends a chunk once the store has room; resolves when it is durable. Other tasks go on meanwhile.
    ///
    /// # Errors
    /// It was not stored.
    pub async fn append(&self, chunk: Chunk, mark: Option<Mark>) -> Result<(), Error> {
        self.begin_append(chunk, mark).await?.await.unwrap_or(Err(Error::Closed))
    }

    /// As [`Logs::append`], but resolves as soon as the store has the lines; what it returns resolves when they are
    /// durable.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn begin_append(&self, chunk: Chunk, mark: Option<Mark>) -> Result<Stored, Error> {
        self.begin(chunk, |chunk, done| self.store.append(chunk, mark, done)).await
    }

    /// As [`Logs::begin_append`], for a source that sends lines again which were lost ([`Store::append_in_order`]).
    ///
    /// # Errors
    /// The store is closed.
    pub async fn begin_append_in_order(&self, chunk: Chunk, from: u64, mark: Mark) -> Result<Stored, Error> {
        self.begin(chunk, |chunk, done| self.store.append_in_order(chunk, from, mark, done)).await
    }

    async fn begin(
        &self,
        chunk: Chunk,
        append: impl FnOnce(Chunk, walt_logs::Done) -> Result<(), Error>,
    ) -> Result<Stored, Error> {
        while !self.store.has_room() {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        let lines = chunk.len() as u64;
        self.lines.fetch_add(lines, Ordering::Relaxed);
        self.bytes.fetch_add(chunk.bytes() as u64, Ordering::Relaxed);
        let ((done, stored), losses) = (oneshot::channel(), self.losses.clone());
        let report = move |outcome: Result<(), Error>| {
            losses.count(lines, &outcome);
            // Whoever does not wait for it has dropped the other end.
            let _ = done.send(outcome);
        };
        // It may wait for the time of one write if others were faster.
        blocking(|| append(chunk, Box::new(report)))?;
        Ok(stored)
    }

    /// Microseconds of a clock that does not jump.
    fn steady(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn admit(&self, mac: Mac) -> Admission {
        let now = self.steady();
        let max_rate = self.base.config().logs.max_rate;
        let mut issuers = self.issuers.lock();
        let limit = &mut issuers.entry(mac).or_insert_with(|| Issuer::new(max_rate, now)).limit;
        let is_admitted = limit.admit(now);
        let report = limit.report(now).map(|lines| rate::dropped_line(lines, max_rate));
        Admission { is_admitted, report }
    }

    /// Says that the clock of a node is off, but not for each line.
    fn tell_clock(&self, mac: Mac, ahead: i64) {
        let now = self.steady();
        let max_rate = self.base.config().logs.max_rate;
        let mut issuers = self.issuers.lock();
        let issuer = issuers.entry(mac).or_insert_with(|| Issuer::new(max_rate, now));
        if issuer.clock_told.is_some_and(|at| now - at < CLOCK_PERIOD) {
            return;
        }
        issuer.clock_told = Some(now);
        drop(issuers);
        let seconds = ahead.unsigned_abs() / 1_000_000;
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        tracing::warn!(%mac, "the clock of a node is {seconds} s {way} ours: its lines get the time of their arrival");
    }
}

/// What is known of a device that logs.
struct Issuer {
    limit: rate::RateLimit,
    /// When it was said that its clock is off.
    clock_told: Option<i64>,
}

impl Issuer {
    fn new(max_rate: u32, now: i64) -> Self {
        Self { limit: rate::RateLimit::new(max_rate, now), clock_told: None }
    }
}

/// What the position of a source is stored under ([`Mark`]): the beginning of a hash of what identifies it.
pub fn source_id(hasher: &blake3::Hasher) -> u64 {
    let mut id = [0; 8];
    hasher.finalize_xof().fill(&mut id);
    u64::from_le_bytes(id)
}

struct Admission {
    is_admitted: bool,
    /// What to say about lines that were dropped.
    report: Option<String>,
}

/// Lines of one stream that wait to be appended.
pub struct Stream {
    mac: Mac,
    id: StreamId,
    chunk: Chunk,
}

impl Stream {
    /// Adds a line; one that is too long is added in parts. `at` is the sender's time in microseconds since 1970, if it
    /// says one. A node that logs more than it may loses the line.
    pub fn push(&mut self, logs: &Logs, at: Option<i64>, line: &[u8]) {
        let now = time::now_micros();
        let at = match at {
            Some(at) if !(now - AGE_MAX..=now + FUTURE_MAX).contains(&at) => {
                logs.tell_clock(self.mac, at.saturating_sub(now));
                now
            }
            at => at.unwrap_or(now),
        };
        let Admission { is_admitted, report } = logs.admit(self.mac);
        if is_admitted {
            self.push_always(at, line);
        }
        if let Some(report) = report {
            self.push_always(now, report.as_bytes());
        }
    }

    /// Adds the line that says how many lines the sender could not send.
    pub fn push_dropped(&mut self, at: Option<i64>, lines: u64) {
        let at = at.unwrap_or_else(time::now_micros);
        let lines = lines.min(DROPPED_MAX);
        let text = format!("<{lines} lines were dropped by the node: its buffer was full>");
        self.push_always(at, text.as_bytes());
    }

    /// Adds a line of the intake itself.
    pub fn push_always(&mut self, at: i64, line: &[u8]) {
        let mut parts = line.chunks(limits::MAX_LINE);
        // An empty line has no parts.
        let first = parts.next().unwrap_or_default();
        for part in std::iter::once(first).chain(parts) {
            // Invariant: a part is not too long. Whoever adds lines takes the chunk when it is large.
            let _fits = self.chunk.push(self.id, at, part);
        }
    }

    /// Whether what was added has to be appended before more is added.
    pub fn is_full(&self) -> bool {
        self.chunk.bytes() >= limits::MAX_CHUNK_BYTES / 4 || self.chunk.len() >= limits::MAX_CHUNK_ROWS / 4
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Takes what was added.
    pub fn take(&mut self) -> Chunk {
        std::mem::replace(&mut self.chunk, Chunk::new())
    }
}

/// Copies what the server says into the store, for ever.
pub async fn run(logs: Arc<Logs>) {
    let (platform, daemon) = (logs.base.journal(), &journal::DAEMON);
    let mut offset = time::now_micros() - logs.steady();
    loop {
        tokio::select! {
            () = platform.filled() => {}
            () = daemon.filled() => {}
            () = tokio::time::sleep(JOURNAL_INTERVAL) => {}
        }
        let now = time::now_micros() - logs.steady();
        if (now - offset).abs() >= JUMP_MIN {
            let (seconds, way) = ((now - offset) / 1_000_000, if now > offset { "forward" } else { "back" });
            tracing::warn!(
                "the clock of the server was set {way} by {} s: times of log lines jump there",
                seconds.abs()
            );
        }
        offset = now;
        let lines = platform.take().into_iter().chain(daemon.take());
        let chunk = journal_chunk(&logs, lines);
        if chunk.is_empty() {
            continue;
        }
        // An error must not become a line that fails again.
        if logs.append(chunk, None).await.is_err() {
            tokio::time::sleep(JOURNAL_INTERVAL).await;
        }
    }
}

/// Copies what the server has said so far, at its end.
pub fn flush(logs: &Logs) {
    let lines = logs.base.journal().take().into_iter().chain(journal::DAEMON.take());
    let chunk = journal_chunk(logs, lines);
    if !chunk.is_empty() {
        let _ = blocking(|| logs.store.append_wait(chunk, None));
    }
}

fn journal_chunk(logs: &Logs, lines: impl Iterator<Item = Line>) -> Chunk {
    let mut chunk = Chunk::new();
    for line in lines {
        if let Ok(id) = logs.store.stream(SERVER, line.stream, Mode::Line) {
            // Invariant: the journal bounds the number of its lines and their length.
            let _fits = chunk.push(id, line.at, line.text.as_bytes());
        }
    }
    chunk
}
