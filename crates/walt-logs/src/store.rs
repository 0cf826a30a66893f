//! The store: what is in memory, and the threads that write and keep segments.

mod in_order;

use crate::block::Mark;
use crate::catalogue::{Catalogue, CatalogueFile, Mode, Selector, StreamId, StreamInfo, StreamSet};
use crate::chunk::Chunk;
use crate::limits::*;
use crate::segment::Segment;
use crate::writer::Writer;
use crate::{Error, open};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// What becomes of old lines. Whole segments expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How long lines are kept after they came, by the server's clock.
    pub keep: Option<Duration>,
    /// How many bytes the files may take.
    pub max_size: Option<u64>,
}

/// Called once what was appended is durable, or was dropped, by the writer's thread: it must not wait.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Called by who appends: it must not wait, nor call the store.
pub type Hook = Arc<dyn Fn() + Send + Sync>;

/// What the store has and did.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Files with lines, the one that is written included.
    pub segments: usize,
    /// Those of them that are compressed.
    pub compressed: usize,
    /// Lines in files.
    pub lines: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Streams that have ever been.
    pub streams: usize,
    /// Lines that were dropped since the store was opened, because they could not be written.
    pub dropped_lines: u64,
    /// Lines that expired since then.
    pub expired_lines: u64,
    /// Why a write or a compression failed the last time.
    pub last_error: Option<Error>,
}

/// Lines in memory: those of the last batches.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// The number of its first line.
    pub base: u64,
    pub chunk: Arc<Chunk>,
}

impl Live {
    pub fn end(&self) -> u64 {
        self.base + self.chunk.len() as u64
    }
}

/// The batch that fills.
#[derive(Default)]
struct Batch {
    bytes: usize,
    rows: usize,
    since: Option<Instant>,
    marks: Vec<Mark>,
    done: Vec<Done>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.rows >= BATCH_ROWS
    }
}

pub(crate) struct State {
    /// Closed segments, by their first number.
    pub sealed: Vec<Arc<Segment>>,
    pub active: Segment,
    /// The last lines; those below `flushed` are in segments, too.
    pub live: VecDeque<Live>,
    pub flushed: u64,
    pub next_seq: u64,
    batch: Batch,
    /// By source: position, and when it changed, as a number of changes.
    marks: HashMap<u64, (u64, u64)>,
    mark_changes: u64,
    /// By source: where its next lines go on ([`Store::append_in_order`]). Not there once lines of it were dropped.
    expected: HashMap<u64, u64>,
    /// The batch is written without waiting for more.
    flush: bool,
    /// The segment is closed after the next batch.
    pub rotate: bool,
    pub closing: bool,
    /// When the segment was begun.
    pub began: Instant,
    /// Called after lines were appended while there are tails.
    hook: Option<Hook>,
    /// Tails there are: for them, durable lines stay in memory for a while.
    pub tails: usize,
    pub retention: Retention,
    status: Status,
}

impl State {
    pub fn set_mark(&mut self, mark: Mark) {
        self.mark_changes += 1;
        self.marks.insert(mark.source, (mark.position, self.mark_changes));
        if self.marks.len() > MAX_SOURCES {
            let oldest = self.marks.iter().min_by_key(|(_, (_, change))| *change).map(|(source, _)| *source);
            oldest.map(|source| self.marks.remove(&source));
        }
    }

    /// Oldest first, so that they are read back in this order.
    fn all_marks(&self) -> Vec<Mark> {
        let mut all: Vec<_> =
            self.marks.iter().map(|(source, (position, change))| (*change, *source, *position)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, source, position)| Mark { source, position }).collect()
    }

    /// Whether the segment that is written has to be closed, so that its lines can expire in time.
    pub fn active_is_old(&self) -> bool {
        let eighth = self.retention.keep.map_or(SEGMENT_AGE, |keep| keep / 8);
        self.active.rows > 0 && self.began.elapsed() >= eighth.clamp(SEGMENT_AGE_MIN, SEGMENT_AGE)
    }

    pub fn total_bytes(&self) -> u64 {
        self.active.bytes + self.sealed.iter().map(|s| s.bytes).sum::<u64>()
    }

    pub fn expired(&mut self, lines: u64) {
        self.status.expired_lines += lines;
    }

    pub fn failed(&mut self, error: Error) {
        self.status.last_error = Some(error);
    }

    pub fn trim_live(&mut self) {
        let keep = if self.tails > 0 { TAIL_BYTES } else { 0 };
        let durable = self.live.partition_point(|l| l.base < self.flushed);
        let mut bytes: usize =
            self.live.iter().take(durable).map(|l| l.chunk.bytes() + l.chunk.len() * 16).sum();
        while bytes > keep
            && let Some(first) = self.live.front().filter(|l| l.base < self.flushed)
        {
            bytes -= first.chunk.bytes() + first.chunk.len() * 16;
            self.live.pop_front();
        }
    }
}

pub(crate) struct Inner {
    pub dir: PathBuf,
    pub state: Mutex<State>,
    pub catalogue: Mutex<Catalogue>,
    file: Mutex<CatalogueFile>,
    /// The batch has room, or a flush has ended.
    room: Condvar,
    /// The writer has something to do.
    pub work: Condvar,
    /// There are lines for tails.
    pub news: Condvar,
    /// The keeper has something to do.
    pub chores: Condvar,
    /// Held while segments are compressed: one group at a time.
    pub compressing: Mutex<()>,
    /// Held while the store is open.
    _lock: File,
}

/// Microseconds since 1970 by the machine's clock.
pub(crate) fn now() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(d) => d.as_micros() as i64,
        Err(e) => -(e.duration().as_micros() as i64),
    }
}

/// An open store of log lines; see the [crate's page](crate). Closing is dropping: what was appended becomes durable.
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in a directory, or makes it. What a crash left half-written is cut off.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Version`], [`Error::Io`]. Damage of single blocks is not an error: see [`Store::check`].
    pub fn open(dir: &Path, retention: Retention) -> Result<Store, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(Error::io("make", &lock_path))?;
        lock.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => Error::InUse(dir.to_owned()),
            std::fs::TryLockError::Error(e) => Error::io("lock", &lock_path)(e),
        })?;
        let (file, catalogue) = CatalogueFile::open(&dir.join("catalogue"))?;
        let found = open::open(dir)?;
        let mut state = State {
            sealed: found.sealed,
            active: found.active,
            live: VecDeque::new(),
            flushed: found.next_seq,
            next_seq: found.next_seq,
            batch: Batch::default(),
            marks: HashMap::new(),
            mark_changes: 0,
            expected: HashMap::new(),
            flush: false,
            rotate: false,
            closing: false,
            began: Instant::now(),
            hook: None,
            tails: 0,
            retention,
            status: Status::default(),
        };
        found.marks.into_iter().for_each(|mark| state.set_mark(mark));
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            state: Mutex::new(state),
            catalogue: Mutex::new(catalogue),
            file: Mutex::new(file),
            room: Condvar::new(),
            work: Condvar::new(),
            news: Condvar::new(),
            chores: Condvar::new(),
            compressing: Mutex::new(()),
            _lock: lock,
        });
        let mut store = Store { inner: Arc::clone(&inner), threads: Vec::new() };
        let mut spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(Error::io("start a thread for", dir))?;
            store.threads.push(thread);
            Ok::<(), Error>(())
        };
        let (writing, keeping) = (Arc::clone(&inner), inner);
        let writer = found.writer;
        spawn("log-writer", Box::new(move || writing.write_batches(writer)))?;
        spawn("log-keeper", Box::new(move || keeping.keep_segments()))?;
        Ok(store)
    }

    /// The number of a stream, a new one if it is not known. `issuer` is a key that never changes, such as a MAC address.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::TooManyStreams`].
    pub fn stream(&self, issuer: &str, name: &str, mode: Mode) -> Result<StreamId, Error> {
        self.inner.catalogue.lock().stream(issuer, name, mode)
    }

    /// What is known of a stream; `None` once its issuer was forgotten.
    pub fn stream_info(&self, id: StreamId) -> Option<StreamInfo> {
        self.inner.catalogue.lock().info(id).cloned()
    }

    /// The streams that a selector takes.
    pub fn streams(&self, selector: &Selector) -> Vec<StreamInfo> {
        self.inner.catalogue.lock().streams_from(0).filter(|info| selector(info)).cloned().collect()
    }

    /// Forgets an issuer: its lines cannot be read any more. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Io`]; it is then done with the next batch, unless the server ends before.
    pub fn forget_issuer(&self, issuer: &str) -> Result<(), Error> {
        self.inner.catalogue.lock().forget(issuer);
        self.inner.save_catalogue()
    }

    /// Appends lines. `done` is called when they are durable, at the latest about [`BATCH_TIME`] and one write later;
    /// they are visible to queries and tails at once. With a mark, the position of a source becomes durable in the same
    /// instant as the lines: a sender that asks for it after a crash knows what to send again.
    ///
    /// Waits while two batches are full: that is the back-pressure for who sends. [`Store::has_room`] asks before.
    ///
    /// # Errors
    /// [`Error::Closed`]. Others are given to `done`.
    pub fn append(&self, chunk: Chunk, mark: Option<Mark>, done: Done) -> Result<(), Error> {
        self.append_if(chunk, mark, done, |_| true)
    }

    fn append_if(
        &self,
        chunk: Chunk,
        mark: Option<Mark>,
        done: Done,
        may: impl Fn(&mut State) -> bool,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        while state.batch.is_full() && !state.closing {
            inner.room.wait(&mut state);
        }
        if state.closing {
            return Err(Error::Closed);
        }
        if !may(&mut state) {
            drop(state);
            done(Err(Error::Gap));
            return Ok(());
        }
        let batch = &mut state.batch;
        // The writer sleeps until there is a batch, and then until it is full or old.
        let mut wake = batch.since.is_none();
        batch.since.get_or_insert_with(Instant::now);
        batch.bytes += chunk.bytes();
        batch.rows += chunk.len();
        batch.marks.extend(mark);
        batch.done.push(done);
        wake |= batch.is_full();
        if !chunk.is_empty() {
            let base = state.next_seq;
            state.next_seq += chunk.len() as u64;
            state.live.push_back(Live { base, chunk: Arc::new(chunk) });
        }
        let news = (state.tails > 0).then(|| state.hook.clone());
        drop(state);
        if wake {
            inner.work.notify_one();
        }
        if let Some(hook) = news {
            inner.news.notify_all();
            hook.inspect(|hook| hook());
        }
        Ok(())
    }

    /// Sets what is called after lines were appended while there are tails: an event loop wakes its tails by it.
    pub fn set_hook(&self, hook: Hook) {
        self.inner.state.lock().hook = Some(hook);
    }

    /// Appends lines and waits until they are durable.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Dropped`] if they could not be written.
    pub fn append_wait(&self, chunk: Chunk, mark: Option<Mark>) -> Result<(), Error> {
        let (send, receive) = std::sync::mpsc::channel();
        // Nobody receives only if this function has ended.
        self.append(chunk, mark, Box::new(move |result| drop(send.send(result))))?;
        receive.recv().unwrap_or(Err(Error::Closed))
    }

    /// Whether [`Store::append`] would not wait now.
    pub fn has_room(&self) -> bool {
        !self.inner.state.lock().batch.is_full()
    }

    /// Makes all that was appended durable now.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Dropped`] of the last batch.
    pub fn flush(&self) -> Result<(), Error> {
        let (send, receive) = std::sync::mpsc::channel();
        self.append(Chunk::new(), None, Box::new(move |result| drop(send.send(result))))?;
        self.inner.state.lock().flush = true;
        self.inner.work.notify_one();
        receive.recv().unwrap_or(Err(Error::Closed))
    }

    /// Closes the segment that is written, so that it can be compressed or expire; returns when the next one is begun.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn rotate(&self) -> Result<(), Error> {
        self.inner.state.lock().rotate = true;
        self.flush()
    }

    /// Changes what becomes of old lines.
    pub fn set_retention(&self, retention: Retention) {
        self.inner.state.lock().retention = retention;
        self.inner.chores.notify_one();
    }

    /// What the store has and did.
    pub fn status(&self) -> Status {
        let streams = self.inner.catalogue.lock().len();
        let state = self.inner.state.lock();
        let segments = || state.sealed.iter().map(|s| &**s).chain([&state.active]);
        Status {
            segments: segments().count(),
            compressed: segments().filter(|s| s.compressed).count(),
            lines: segments().map(|s| s.rows).sum(),
            bytes: state.total_bytes(),
            streams,
            ..state.status.clone()
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.inner.state.lock().closing = true;
        for condvar in [&self.inner.room, &self.inner.work, &self.inner.news, &self.inner.chores] {
            condvar.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

/// What queries see of the store at one moment.
pub(crate) struct Snapshot {
    pub segments: Vec<Arc<Segment>>,
    /// Lines that are in no segment yet.
    pub live: Vec<Live>,
    /// The number after the last line.
    pub end: u64,
}

impl Inner {
    pub fn snapshot(&self, state: &MutexGuard<'_, State>) -> Snapshot {
        let mut segments = state.sealed.clone();
        segments.push(Arc::new(state.active.clone()));
        let live = state.live.iter().filter(|l| l.base >= state.flushed).cloned().collect();
        Snapshot { segments, live, end: state.next_seq }
    }

    /// The streams that a selector takes; forgotten ones are never among them.
    pub fn select(&self, selector: &Selector) -> StreamSet {
        self.catalogue.lock().streams_from(0).filter(|info| selector(info)).map(|info| info.id).collect()
    }

    fn save_catalogue(&self) -> Result<(), Error> {
        let mut file = self.file.lock();
        let bytes = self.catalogue.lock().take_unsaved();
        if bytes.is_empty() {
            return Ok(());
        }
        file.append(&bytes).inspect_err(|_| self.catalogue.lock().put_back(bytes))
    }

    /// The writer's thread.
    fn write_batches(&self, mut writer: Writer) {
        loop {
            let mut state = self.state.lock();
            loop {
                let due = match state.batch.since {
                    None if state.closing || state.rotate && state.active.rows > 0 => break,
                    None => None,
                    Some(_) if state.closing || state.flush || state.batch.is_full() => break,
                    Some(since) => Some(since + BATCH_TIME),
                };
                match due {
                    Some(due) if due <= Instant::now() => break,
                    Some(due) => drop(self.work.wait_until(&mut state, due)),
                    None => self.work.wait(&mut state),
                }
            }
            let closing = state.closing && state.batch.since.is_none();
            let batch = std::mem::take(&mut state.batch);
            let end = state.next_seq;
            let lines: Vec<Live> = state.live.iter().filter(|l| l.base >= state.flushed).cloned().collect();
            state.flush = false;
            drop(state);
            if closing {
                if let Err(e) = self.save_catalogue() {
                    self.state.lock().failed(e);
                }
                return;
            }
            self.room.notify_all();
            let result = self.write_batch(&mut writer, &lines, &batch.marks, end, batch.bytes);
            if self.wants_rotation(&writer)
                && let Err(e) = self.rotate_segment(&mut writer)
            {
                // The old one is written further, and this is tried again with the next batch.
                self.state.lock().failed(e);
            }
            for done in batch.done {
                done(result.clone());
            }
        }
    }

    fn write_batch(
        &self,
        writer: &mut Writer,
        lines: &[Live],
        marks: &[Mark],
        end: u64,
        bytes: usize,
    ) -> Result<(), Error> {
        let rows: Vec<_> = lines.iter().flat_map(|l| l.chunk.rows(l.base, 0)).collect();
        let count = rows.len() as u64;
        let streams: StreamSet = rows.iter().map(|row| row.stream).collect();
        let result = if rows.is_empty() && marks.is_empty() {
            self.save_catalogue().map(|()| Vec::new())
        } else {
            self.save_catalogue()
                .and_then(|()| if writer.is_broken() { self.rotate_segment(writer) } else { Ok(()) })
                .and_then(|()| writer.write(rows, marks, now()).map_err(Error::io("write to", writer.path())))
        };
        let mut state = self.state.lock();
        state.flushed = end;
        match result {
            Ok(headers) => {
                if let Some(all) = &mut state.active.streams {
                    all.extend(streams.iter());
                }
                headers.into_iter().for_each(|header| state.active.push(header));
                marks.iter().for_each(|mark| state.set_mark(*mark));
                state.trim_live();
                Ok(())
            }
            Err(error) => {
                let first = lines.first().map_or(end, |l| l.base);
                // What waits behind it is dropped as well: lines of a source stay in order without a gap.
                let queued = std::mem::take(&mut state.batch);
                state.flushed = state.next_seq;
                state.live.retain(|l| l.base < first);
                state.status.dropped_lines += count + queued.rows as u64;
                for mark in marks.iter().chain(&queued.marks) {
                    state.expected.remove(&mark.source);
                }
                let error = match error {
                    Error::Io { path, source, .. } => {
                        Error::Dropped { lines: count, bytes: bytes as u64, path, source }
                    }
                    other => other,
                };
                state.failed(error.clone());
                drop(state);
                self.room.notify_all();
                for done in queued.done {
                    done(Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    fn wants_rotation(&self, writer: &Writer) -> bool {
        let mut state = self.state.lock();
        let old = state.active_is_old();
        let asked = std::mem::take(&mut state.rotate);
        let active = &state.active;
        let full = active.bytes >= SEGMENT_BYTES
            || active.rows >= SEGMENT_ROWS
            || active.blocks.len() >= SEGMENT_BLOCKS;
        active.rows > 0 && (asked || full || old) || writer.is_broken()
    }

    /// Begins the next segment and closes the present one.
    fn rotate_segment(&self, writer: &mut Writer) -> Result<(), Error> {
        let (first_seq, marks) = {
            let state = self.state.lock();
            (state.flushed, state.all_marks())
        };
        let (begun, mut segment) = Writer::begin(&self.dir, first_seq, &marks, now())?;
        segment.streams = Some(StreamSet::default());
        *writer = begun;
        let mut state = self.state.lock();
        let closed = std::mem::replace(&mut state.active, segment);
        state.began = Instant::now();
        if closed.rows > 0 {
            state.sealed.push(Arc::new(closed));
        } else if closed.path() != state.active.path() {
            closed.file.doom();
        }
        drop(state);
        self.chores.notify_one();
        Ok(())
    }
}
