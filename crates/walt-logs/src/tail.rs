//! Tails: lines as they come, behind those that were there.
//!
//! A tail has no queue. It has a position, the number of the next line, and reads the lines that the store has in memory
//! anyway. If it is so slow that they have gone from there, it reads them from the disk by their numbers. So the store
//! never waits for a tail, and a tail misses nothing and gets nothing twice.

use crate::block::Filter;
use crate::catalogue::StreamSet;
use crate::limits::TAIL_ROWS;
use crate::query::{Plan, Query, Records};
use crate::store::{Inner, Live, Store};
use crate::{Error, Record};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines as they come; see [`Store::tail`].
pub struct Tail {
    inner: Arc<Inner>,
    query: Query,
    streams: StreamSet,
    /// Streams up to this number were looked at.
    known: usize,
    history: Option<Records>,
    /// The number of the next line behind the history.
    position: u64,
    /// What comes after the lines that were handed out.
    error: Option<Error>,
}

impl Store {
    /// Follows the streams of a query: first the records that it has now, by time, if `history` is set; then each new
    /// line that matches, in the order in which they come, whatever its timestamp. Streams that are new meanwhile
    /// are among them.
    ///
    /// A tail may show lines up to 300 ms before they are durable.
    pub fn tail(&self, query: &Query, history: bool) -> Tail {
        let query = Query { newest_first: false, ..query.clone() };
        let snapshot = {
            let mut state = self.inner.state.lock();
            state.tails += 1;
            self.inner.snapshot(&state)
        };
        let position = snapshot.end;
        let filter = query.filter(&self.inner, 0..position);
        let history = history.then(|| Records::new(Plan::new(snapshot, filter, false)));
        let inner = Arc::clone(&self.inner);
        Tail { inner, query, streams: StreamSet::default(), known: 0, history, position, error: None }
    }
}

impl Tail {
    /// The next lines: at least one, at most [`TAIL_ROWS`]; none if none came in time.
    ///
    /// # Errors
    /// [`Error::Closed`] once the store is closed and all was handed out. [`Error::Damaged`] or [`Error::Io`] for a block
    /// of the history that cannot be read; the next call goes on behind it.
    pub fn next(&mut self, timeout: Duration) -> Result<Vec<Record>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if let Some(page) = self.read_history()? {
                return Ok(page);
            }
            let mut state = self.inner.state.lock();
            let at = state.live.partition_point(|l| l.end() <= self.position);
            match state.live.get(at) {
                Some(l) if l.base <= self.position => {
                    let chunks: Vec<Live> =
                        chunks(state.live.iter().skip(at), self.position).cloned().collect();
                    drop(state);
                    let page = self.read_memory(&chunks);
                    if !page.is_empty() {
                        return Ok(page);
                    }
                }
                None if self.position == state.next_seq => {
                    if state.closing {
                        return Err(Error::Closed);
                    }
                    if self.inner.news.wait_until(&mut state, deadline).timed_out() {
                        return Ok(Vec::new());
                    }
                }
                // The lines are no longer in memory, or were dropped.
                _ => {
                    let snapshot = self.inner.snapshot(&state);
                    drop(state);
                    let all = Query { after: None, before: None, behind: None, ..self.query.clone() };
                    let filter: Filter = all.filter(&self.inner, self.position..snapshot.end);
                    self.position = snapshot.end;
                    self.history = Some(Records::new(Plan::new(snapshot, filter, false)));
                }
            }
        }
    }

    /// Whether what was there at the beginning has been handed out.
    pub fn is_live(&self) -> bool {
        self.history.is_none()
    }

    fn read_history(&mut self) -> Result<Option<Vec<Record>>, Error> {
        let Some(records) = &mut self.history else { return Ok(None) };
        let mut page = Vec::new();
        for record in records.by_ref().take(TAIL_ROWS) {
            match record {
                Ok(record) => page.push(record),
                Err(e) if page.is_empty() => return Err(e),
                Err(e) => {
                    self.error = Some(e);
                    break;
                }
            }
        }
        if page.is_empty() {
            self.history = None;
            return Ok(None);
        }
        Ok(Some(page))
    }

    fn read_memory(&mut self, chunks: &[Live]) -> Vec<Record> {
        self.look_at_streams();
        let mut page = Vec::new();
        for live in chunks {
            for row in live.chunk.rows(live.base, (self.position - live.base) as usize) {
                if page.len() >= TAIL_ROWS {
                    return page;
                }
                self.position = row.seq + 1;
                let matches = || self.query.pattern.as_ref().is_none_or(|p| p.matches(row.line));
                if self.streams.contains(row.stream) && matches() {
                    page.push(Record::from(row));
                }
            }
        }
        page
    }

    fn look_at_streams(&mut self) {
        let catalogue = self.inner.catalogue.lock();
        let new = catalogue.streams_from(self.known).filter(|info| (self.query.streams)(info));
        self.streams.extend(new.map(|info| info.id));
        self.known = catalogue.len();
    }
}

/// The chunks that follow each other without a gap, from a position on.
fn chunks<'a>(live: impl Iterator<Item = &'a Live>, mut position: u64) -> impl Iterator<Item = &'a Live> {
    live.take_while(move |l| {
        let follows = l.base <= position;
        position = l.end();
        follows
    })
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.tails -= 1;
        state.trim_live();
    }
}
