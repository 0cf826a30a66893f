//! Queries: blocks that may contain something, in the order of their first (or last) timestamp, merged by time.
//!
//! A block is decoded when the merge comes to its first timestamp. Where timestamps are in order that is one block after
//! the other; where clocks jumped, blocks overlap, and several are held. If they take too much memory, the lines of the one
//! that is needed last are thrown away and decoded again later. Long queries have threads that decode and search ahead.

use crate::block::Filter;
use crate::catalogue::Selector;
use crate::limits::{MAX_LAST, QUERY_AHEAD, QUERY_BYTES, QUERY_THREADS};
use crate::pattern::Pattern;
use crate::reader::Reader;
use crate::segment::{Entry, Segment};
use crate::store::{Inner, Live, Snapshot, Store};
use crate::{Error, Record};
use parking_lot::{Condvar, Mutex};
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Which lines are wanted.
#[derive(Clone)]
pub struct Query {
    /// Only timestamps above this one (microseconds since 1970).
    pub after: Option<i64>,
    /// Only timestamps below this one.
    pub before: Option<i64>,
    /// Only these streams.
    pub streams: Selector,
    /// Only lines that match.
    pub pattern: Option<Pattern>,
    /// By time, newest first.
    pub newest_first: bool,
    /// Goes on behind the record with this timestamp and number, in the query's order: for paging.
    pub behind: Option<(i64, u64)>,
}

impl Query {
    /// All lines of these streams, oldest first.
    pub fn new(streams: Selector) -> Query {
        Query { after: None, before: None, streams, pattern: None, newest_first: false, behind: None }
    }

    pub(crate) fn filter(&self, inner: &Inner, seq: Range<u64>) -> Filter {
        Filter {
            after: self.after,
            before: self.before,
            seq,
            streams: inner.select(&self.streams),
            pattern: self.pattern.clone(),
            above: self.behind.filter(|_| !self.newest_first),
            below: self.behind.filter(|_| self.newest_first),
        }
    }
}

/// Where lines come from.
enum Source {
    Block(Arc<Segment>, Entry),
    Memory(Vec<Live>),
}

struct Unit {
    source: Source,
    min_ts: i64,
    max_ts: i64,
}

/// The blocks of a query in the order in which the merge needs them.
pub(crate) struct Plan {
    units: Vec<Unit>,
    filter: Filter,
    newest_first: bool,
}

impl Plan {
    pub fn new(snapshot: Snapshot, filter: Filter, newest_first: bool) -> Plan {
        let mut units = Vec::new();
        for segment in &snapshot.segments {
            let foreign = segment.streams.as_ref().is_some_and(|s| !s.meets(&filter.streams));
            if foreign || segment.last_seq < filter.seq.start {
                continue;
            }
            for entry in &segment.blocks {
                let Entry { header: h, .. } = entry;
                if filter.may_have(h.min_ts, h.max_ts)
                    && h.max_seq >= filter.seq.start
                    && h.min_seq < filter.seq.end
                {
                    let source = Source::Block(Arc::clone(segment), *entry);
                    units.push(Unit { source, min_ts: h.min_ts, max_ts: h.max_ts });
                }
            }
        }
        let live: Vec<Live> = snapshot.live.into_iter().filter(|l| l.end() > filter.seq.start).collect();
        let times = || live.iter().flat_map(|l| l.chunk.rows(l.base, 0)).map(|r| r.timestamp);
        if let (Some(min_ts), Some(max_ts)) = (times().min(), times().max()) {
            units.push(Unit { source: Source::Memory(live), min_ts, max_ts });
        }
        if newest_first {
            units.sort_by_key(|u| Reverse(u.max_ts));
        } else {
            units.sort_by_key(|u| u.min_ts);
        }
        Plan { units, filter, newest_first }
    }

    /// The timestamp at which the merge needs a block.
    fn due(&self, i: usize) -> Option<i64> {
        let unit = self.units.get(i)?;
        Some(if self.newest_first { unit.max_ts } else { unit.min_ts })
    }

    /// The lines of one block, in the query's order reversed: the next one is the last.
    fn load(&self, i: usize, filter: &Filter, reader: &mut Reader) -> Result<Vec<Record>, Error> {
        let mut lines = match &self.units[i].source {
            Source::Block(segment, entry) => reader.lines(segment, entry, filter)?,
            Source::Memory(live) => in_memory(live, filter),
        };
        if !self.newest_first {
            lines.reverse();
        }
        Ok(lines)
    }
}

/// The lines in memory that a filter takes, by time and number.
fn in_memory(live: &[Live], filter: &Filter) -> Vec<Record> {
    let rows = live.iter().flat_map(|l| l.chunk.rows(l.base, 0));
    let taken = rows.filter(|r| filter.streams.contains(r.stream) && filter.takes(r.timestamp, r.seq));
    let matching = taken.filter(|r| filter.pattern.as_ref().is_none_or(|p| p.matches(r.line)));
    let mut out: Vec<Record> = matching.map(Record::from).collect();
    out.sort_unstable_by_key(|r| (r.timestamp, r.seq));
    out
}

/// What the threads of a query share.
struct Ahead {
    plan: Arc<Plan>,
    state: Mutex<AheadState>,
    changed: Condvar,
}

#[derive(Default)]
struct AheadState {
    /// The next block that a thread takes.
    next: usize,
    /// The next block that the merge needs.
    needed: usize,
    ready: HashMap<usize, Result<Vec<Record>, Error>>,
    stop: bool,
}

impl Ahead {
    fn run(&self) {
        // Each thread has its own state of the search.
        let mut filter = self.plan.filter.clone();
        filter.pattern = filter.pattern.as_ref().map(Pattern::for_thread);
        let mut reader = Reader::new();
        loop {
            let mut state = self.state.lock();
            while !state.stop && state.next >= state.needed + QUERY_AHEAD {
                self.changed.wait(&mut state);
            }
            let i = state.next;
            if state.stop || i >= self.plan.units.len() {
                return;
            }
            state.next += 1;
            drop(state);
            let loaded = match &mut reader {
                Ok(reader) => self.plan.load(i, &filter, reader),
                Err(e) => Err(e.clone()),
            };
            self.state.lock().ready.insert(i, loaded);
            self.changed.notify_all();
        }
    }

    fn get(&self, i: usize) -> Result<Vec<Record>, Error> {
        let mut state = self.state.lock();
        state.needed = i;
        self.changed.notify_all();
        loop {
            if let Some(loaded) = state.ready.remove(&i) {
                state.needed = i + 1;
                self.changed.notify_all();
                return loaded;
            }
            self.changed.wait(&mut state);
        }
    }
}

/// A block that the merge is in.
struct Cursor {
    unit: usize,
    /// The key of the next line.
    key: (i64, u64),
    /// The next line is the last; `None` if they were thrown away.
    lines: Option<Vec<Record>>,
    left: usize,
    bytes: usize,
    newest_first: bool,
}

impl Ord for Cursor {
    /// What comes first is the largest.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(&other.key);
        if self.newest_first { order } else { order.reverse() }
    }
}
impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Cursor {}

/// The records of a query, one after the other. Records that came later are not among them. An error stands for a block
/// that cannot be read; the others follow.
pub struct Records {
    plan: Arc<Plan>,
    next: usize,
    heap: BinaryHeap<Cursor>,
    held: usize,
    limit: usize,
    reader: Option<Reader>,
    ahead: Option<Arc<Ahead>>,
}

impl Records {
    pub(crate) fn new(plan: Plan) -> Records {
        let plan = Arc::new(plan);
        Records {
            plan,
            next: 0,
            heap: BinaryHeap::new(),
            held: 0,
            limit: QUERY_BYTES,
            reader: None,
            ahead: None,
        }
    }

    fn load_here(&mut self, i: usize) -> Result<Vec<Record>, Error> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => empty.insert(Reader::new()?),
        };
        self.plan.load(i, &self.plan.filter, reader)
    }

    fn load(&mut self, i: usize) -> Result<Vec<Record>, Error> {
        // A query of a few blocks is done before threads have started.
        if i < QUERY_AHEAD && self.ahead.is_none() {
            return self.load_here(i);
        }
        if self.ahead.is_none() {
            let state = Mutex::new(AheadState { next: i, needed: i, ..AheadState::default() });
            let ahead = Arc::new(Ahead { plan: Arc::clone(&self.plan), state, changed: Condvar::new() });
            let mut started = 0;
            for _ in 0..QUERY_THREADS {
                let ahead = Arc::clone(&ahead);
                let thread = std::thread::Builder::new().name("log-query".into());
                started += usize::from(thread.spawn(move || ahead.run()).is_ok());
            }
            if started == 0 {
                return self.load_here(i);
            }
            self.ahead = Some(ahead);
        }
        match &self.ahead {
            Some(ahead) => ahead.get(i),
            None => self.load_here(i),
        }
    }

    fn push(&mut self, unit: usize, mut lines: Vec<Record>) {
        // Reading a long run of few lines must not hold the memory of all.
        lines.shrink_to_fit();
        let Some(last) = lines.last() else { return };
        let bytes = lines.iter().map(|r| r.line.capacity() + size_of::<Record>()).sum();
        self.held += bytes;
        let (key, left, newest_first) = (last.key(), lines.len(), self.plan.newest_first);
        self.heap.push(Cursor { unit, key, lines: Some(lines), left, bytes, newest_first });
        if self.held > self.limit && self.heap.len() > 1 {
            self.throw_away();
        }
    }

    /// Gives up the lines of blocks that are needed last, until what is held is half of the limit.
    fn throw_away(&mut self) {
        let mut cursors = std::mem::take(&mut self.heap).into_sorted_vec();
        // The first one is needed last; the very last one is needed now.
        let others = cursors.len() - 1;
        for cursor in &mut cursors[..others] {
            if self.held <= self.limit / 2 {
                break;
            }
            if cursor.lines.take().is_some() {
                self.held -= cursor.bytes;
            }
        }
        self.heap = cursors.into();
    }

    fn next_record(&mut self) -> Option<Result<Record, Error>> {
        loop {
            let due = self.plan.due(self.next);
            let front = self.heap.peek().map(|c| c.key.0);
            let needed = match (due, front) {
                (Some(due), Some(front)) if self.plan.newest_first => due >= front,
                (Some(due), Some(front)) => due <= front,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if needed {
                let i = self.next;
                self.next += 1;
                match self.load(i) {
                    Ok(lines) => self.push(i, lines),
                    Err(e) => return Some(Err(e)),
                }
                continue;
            }
            let mut cursor = self.heap.pop()?;
            let mut lines = match cursor.lines.take() {
                Some(lines) => lines,
                None => match self.load_here(cursor.unit) {
                    Ok(mut lines) => {
                        lines.truncate(cursor.left);
                        cursor.bytes = lines.iter().map(|r| r.line.capacity() + size_of::<Record>()).sum();
                        self.held += cursor.bytes;
                        lines
                    }
                    Err(e) => return Some(Err(e)),
                },
            };
            let Some(record) = lines.pop() else { continue };
            let freed = record.line.capacity();
            cursor.bytes -= freed;
            self.held -= freed;
            match lines.last() {
                Some(last) => {
                    (cursor.key, cursor.left, cursor.lines) = (last.key(), lines.len(), Some(lines));
                    self.heap.push(cursor);
                }
                None => self.held -= cursor.bytes,
            }
            return Some(Ok(record));
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record()
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.state.lock().stop = true;
            ahead.changed.notify_all();
        }
    }
}

impl Store {
    /// The records of a query, as the store is now: lines that were appended are among them, durable or not.
    pub fn query(&self, query: &Query) -> Records {
        let snapshot = self.inner.snapshot(&self.inner.state.lock());
        let filter = query.filter(&self.inner, 0..snapshot.end);
        Records::new(Plan::new(snapshot, filter, query.newest_first))
    }

    /// The newest records of a query, at most `n` (and [`MAX_LAST`]), oldest first.
    ///
    /// # Errors
    /// The first block that cannot be read.
    pub fn last(&self, query: &Query, n: usize) -> Result<Vec<Record>, Error> {
        let backwards = Query { newest_first: true, ..query.clone() };
        let mut records = self.query(&backwards).take(n.min(MAX_LAST)).collect::<Result<Vec<_>, _>>()?;
        records.reverse();
        Ok(records)
    }

    /// The durable lines of all streams from a number on, in the order in which they came, of at most `max` numbers; and the
    /// number that follows them. Lines that expired, were forgotten or cannot be read are left out.
    pub fn since(&self, position: u64, max: u64) -> (Vec<Record>, u64) {
        let (snapshot, flushed) = {
            let state = self.inner.state.lock();
            (self.inner.snapshot(&state), state.flushed)
        };
        let end = flushed.min(position.saturating_add(max)).max(position);
        let everything: Selector = Arc::new(|_| true);
        let filter = Query::new(everything).filter(&self.inner, position..end);
        let mut records: Vec<Record> =
            Records::new(Plan::new(snapshot, filter, false)).filter_map(Result::ok).collect();
        records.sort_unstable_by_key(|r| r.seq);
        (records, end)
    }

    /// The number of the oldest line that is kept, and the number after the last one that is durable.
    pub fn numbers(&self) -> (u64, u64) {
        let state = self.inner.state.lock();
        let first = state.sealed.first().map_or(state.active.first_seq, |segment| segment.first_seq);
        (first, state.flushed)
    }

    /// About how many records a query has, its pattern apart. It is exact if no block reaches over the bounds of time.
    ///
    /// # Errors
    /// The first block that cannot be read.
    pub fn estimate(&self, query: &Query) -> Result<u64, Error> {
        let snapshot = self.inner.snapshot(&self.inner.state.lock());
        let filter = query.filter(&self.inner, 0..snapshot.end);
        let plan = Plan::new(snapshot, Filter { pattern: None, ..filter }, false);
        let (filter, mut reader, mut count) = (&plan.filter, Reader::new()?, 0);
        for unit in &plan.units {
            let (segment, entry) = match &unit.source {
                Source::Block(segment, entry) => (segment, entry),
                Source::Memory(live) => {
                    count += in_memory(live, filter).len() as u64;
                    continue;
                }
            };
            let h = &entry.header;
            for run in
                reader.directory(segment, entry)?.runs.iter().filter(|r| filter.streams.contains(r.stream))
            {
                if filter.has_all(run.min_ts, run.max_ts, h.min_seq, h.max_seq) {
                    count += run.rows as u64;
                } else if filter.may_have(run.min_ts, run.max_ts) {
                    count += (run.rows as f64 * filter.share(run.min_ts, run.max_ts)).ceil() as u64;
                }
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
#[path = "query/tests.rs"]
mod tests;
