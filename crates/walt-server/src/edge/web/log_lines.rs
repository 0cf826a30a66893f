//! `/api/v1/logs`: the lines, as one object or as a stream of NDJSON.
//!
//! One object has at most [`logs::LINES_MAX`] lines and about [`PAGE_BYTES`] of text, and says where the next page begins. A
//! stream has all lines: a thread reads them as fast as the client takes them, and ends when it disconnects.

use crate::{
    actions,
    base::{db::blocking, time},
    edge::{
        prefer::{NDJSON, Style, wants_stream},
        web::{
            Shared,
            error::Refusal,
            lists,
            logs::{self, Wanted, next_page},
        },
    },
    services::logs::SERVER,
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use walt_api::web::{WebLog, WebLogList};
use walt_logs::{Mode, Query, Record, Store, StreamId, StreamInfo, show};

/// Text of one object above which its page ends, in bytes.
const PAGE_BYTES: usize = 16 << 20;
/// Text of a stream that is sent at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow client.
const PIECES: usize = 4;

/// Streams of the server's own log are for its users: their messages name files and what went wrong.
const DAEMON: &str = "daemon.";

/// Names of issuers by their keys in the store.
type Issuers = BTreeMap<String, String>;

/// Lines of a store, with the names of who logged them.
struct Lines {
    store: Arc<Store>,
    issuers: Issuers,
    streams: BTreeMap<StreamId, StreamInfo>,
    unit: logs::Unit,
}

impl Lines {
    fn new(store: Arc<Store>, issuers: Issuers, unit: logs::Unit) -> Self {
        Self { store, issuers, streams: BTreeMap::new(), unit }
    }

    fn query(&self, wanted: &Wanted) -> Query {
        let keys: Vec<String> = self
            .issuers
            .iter()
            .filter(|(_, name)| wanted.issuer.as_ref().is_none_or(|issuer| issuer == *name))
            .map(|(key, _)| key.clone())
            .collect();
        let stream = wanted.stream.clone();
        let selector = move |info: &StreamInfo| {
            keys.iter().any(|key| **key == *info.issuer)
                && !(*info.issuer == *SERVER && info.name.starts_with(DAEMON))
                && match &stream {
                    Some(stream) => stream.matches(info.name.as_bytes()),
                    // Consoles are not lines: who wants them names them.
                    None => info.mode == Mode::Line,
                }
        };
        Query {
            after: Some(wanted.from),
            before: Some(wanted.to),
            behind: wanted.behind,
            ..Query::new(Arc::new(selector))
        }
    }

    /// The lines that are wanted, by time. What cannot be read is left out, and in the log of the server.
    fn records(&self, wanted: &Wanted) -> impl Iterator<Item = Record> + use<> {
        self.store.query(&self.query(wanted)).filter_map(|record| {
            record.inspect_err(|e| tracing::warn!("lines of logs cannot be read: {e}")).ok()
        })
    }

    fn show(&mut self, record: &Record) -> WebLog {
        if !self.streams.contains_key(&record.stream)
            && let Some(info) = self.store.stream_info(record.stream)
        {
            self.streams.insert(record.stream, info);
        }
        let info = self.streams.get(&record.stream);
        let issuer = info.and_then(|info| self.issuers.get(&*info.issuer)).cloned().unwrap_or_default();
        let stream = info.map(|info| info.name.to_string()).unwrap_or_default();
        let line = show::escaped(&record.line).into_owned();
        WebLog { timestamp: self.unit.show(record.timestamp), line, issuer, stream }
    }
}

/// `GET /api/v1/logs`.
pub async fn logs(State(shared): State<Shared>, style: Style, uri: Uri, headers: HeaderMap) -> Response {
    let answer = async {
        let wanted = Wanted::of(&uri, time::now())?;
        let issuers = blocking(|| actions::log_lines::everybody(&shared.app));
        let issuers = issuers.map_err(|failure| Refusal::failed(&failure))?;
        let store = shared.app.logs().store().clone();
        if wants_stream(&headers) {
            let turn = shared.stream()?;
            let body = stream(store, issuers, wanted, turn);
            return Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response());
        }
        let _turn = shared.turn().await?;
        let page = blocking(|| page(store, issuers, &wanted));
        Ok(lists::answer(Ok(page), style))
    };
    answer.await.unwrap_or_else(|refusal: Refusal| refusal.answer(style))
}

/// One page. Reads the disk.
fn page(store: Arc<Store>, issuers: Issuers, wanted: &Wanted) -> WebLogList {
    let mut lines = Lines::new(store, issuers, wanted.unit);
    let limit = wanted.limit.unwrap_or(logs::LINES_MAX);
    let (mut logs, mut bytes, mut last, mut next) = (Vec::new(), 0, None, None);
    for record in lines.records(wanted) {
        if logs.len() >= limit || bytes > PAGE_BYTES {
            next = last.map(next_page);
            break;
        }
        bytes += record.line.len();
        last = Some(record.key());
        logs.push(lines.show(&record));
    }
    WebLogList { num_logs: logs.len(), logs, next_page: next }
}

/// All lines, one object per line. `turn` is given back when the last one was taken.
fn stream(store: Arc<Store>, issuers: Issuers, wanted: Wanted, turn: OwnedSemaphorePermit) -> Body {
    let (to, from) = mpsc::channel::<Bytes>(PIECES);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut lines = Lines::new(store, issuers, wanted.unit);
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let limit = wanted.limit.unwrap_or(usize::MAX);
        for record in lines.records(&wanted).take(limit) {
            // Invariant: a line is a plain struct, which JSON can express, and a vector takes all bytes.
            serde_json::to_writer(&mut piece, &lines.show(&record)).expect("a line is JSON");
            piece.push(b'\n');
            if piece.len() >= PIECE_BYTES && to.blocking_send(std::mem::take(&mut piece).into()).is_err() {
                // The client has gone.
                return;
            }
        }
        let _gone = to.blocking_send(piece.into());
    });
    Body::from_stream(futures_util::stream::unfold(from, async |mut from| {
        let piece = from.recv().await?;
        Some((Ok::<_, Infallible>(piece), from))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_logs::{Chunk, Pattern, Retention};

    const START: i64 = 1_700_000_000_000_000;

    /// A store with 10 lines of `vn1` in two streams, one of `vn2`, a piece of a console, one of a device that is gone, and one of the server's own log.
    fn store(dir: &std::path::Path) -> (Arc<Store>, Issuers) {
        let store = Store::open(dir, Retention { keep: None, max_size: None }).unwrap();
        let mut chunk = Chunk::new();
        for n in 0..10 {
            let name = if n % 2 == 0 { "even" } else { "odd" };
            let stream = store.stream("01", name, Mode::Line).unwrap();
            chunk.push(stream, START + n * 1_000_000, format!("line {n}").as_bytes()).unwrap();
        }
        for (issuer, name, mode) in
            [("02", "even", Mode::Line), ("01", "console", Mode::Chunk), ("03", "even", Mode::Line)]
        {
            let stream = store.stream(issuer, name, mode).unwrap();
            chunk.push(stream, START + 20_000_000, b"\xff!").unwrap();
        }
        store.append_wait(chunk, None).unwrap();
        let issuers = [("01", "vn1"), ("02", "vn2"), (SERVER, "walt-server")]
            .map(|(key, name)| (key.to_owned(), name.to_owned()));
        (Arc::new(store), issuers.into())
    }

    fn all() -> Wanted {
        Wanted {
            from: START - 1,
            to: START + 30_000_000,
            unit: logs::Unit::Seconds,
            issuer: None,
            stream: None,
            limit: None,
            behind: None,
        }
    }

    #[test]
    fn pages_have_each_line_once() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (store, issuers) = store(dir.path());
        let get = |wanted: &Wanted| page(store.clone(), issuers.clone(), wanted);
        let whole = get(&all());
        assert_eq!((whole.num_logs, whole.logs.len(), whole.next_page), (11, 11, None));
        assert_eq!(
            whole.logs[0],
            WebLog {
                timestamp: 1_700_000_000.0,
                line: "line 0".into(),
                issuer: "vn1".into(),
                stream: "even".into(),
            }
        );
        assert_eq!((whole.logs[10].issuer.as_str(), whole.logs[10].line.as_str()), ("vn2", "\\xff!"));
        // In pages of 4: also when the last page is full.
        for limit in [4, 11] {
            let (mut found, mut behind) = (Vec::new(), None);
            loop {
                let page = get(&Wanted { limit: Some(limit), behind, ..all() });
                assert!(page.num_logs <= limit && page.num_logs > 0);
                found.extend(page.logs);
                let Some(next) = page.next_page else { break };
                let uri = format!("/?from=1340000000&to=1340000000&page={next}").parse().unwrap();
                behind = Wanted::of(&uri, 1_800_000_000.0).unwrap().behind;
            }
            assert_eq!(found, whole.logs, "{limit}");
        }
    }

    #[test]
    fn lines_by_issuer_stream_and_time() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (store, issuers) = store(dir.path());
        let count = |wanted: Wanted| page(store.clone(), issuers.clone(), &wanted).num_logs;
        let stream = |text: &str| Some(Pattern::new(text).unwrap());
        assert_eq!(count(Wanted { issuer: Some("vn1".into()), ..all() }), 10);
        assert_eq!(count(Wanted { issuer: Some("nobody".into()), ..all() }), 0);
        assert_eq!(count(Wanted { stream: stream("^odd$"), ..all() }), 5);
        assert_eq!(count(Wanted { stream: stream("console"), ..all() }), 1);
        assert_eq!(
            count(Wanted { from: START, to: START + 3_000_000, ..all() }),
            2,
            "without the moments themselves"
        );
    }

    #[tokio::test]
    async fn a_stream_has_all_lines_and_gives_its_turn_back() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (store, issuers) = store(dir.path());
        let turns = Arc::new(tokio::sync::Semaphore::new(1));
        let turn = turns.clone().try_acquire_owned().unwrap();
        let body =
            stream(store.clone(), issuers.clone(), Wanted { unit: logs::Unit::Milliseconds, ..all() }, turn);
        let text = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert_eq!(text.lines().count(), 11, "{text}");
        let first = r#"{"timestamp":1700000000000.0,"line":"line 0","issuer":"vn1","stream":"even"}"#;
        assert_eq!(text.lines().next(), Some(first));
        let soon = std::time::Duration::from_secs(60);
        let turn = tokio::time::timeout(soon, turns.clone().acquire_owned()).await.unwrap().unwrap();
        // A client that has gone.
        drop(stream(store, issuers, all(), turn));
        drop(tokio::time::timeout(soon, turns.acquire_owned()).await.unwrap().unwrap());
    }
}
