//! The state of the platform, kept up to date by the messages of [`route::EVENTS`](walt_api::route::EVENTS).

use crate::{Error, MAX_ANSWER, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use walt_api::live::{HEARTBEAT_SECONDS, Kind, Lease, Live, Operation, Session, Snapshot};
use walt_api::{Image, Node};

/// Silence of the server after which the connection counts as broken: three heartbeats are missing.
pub const SILENCE_MAX: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS);

/// The messages of a server. Dropping this closes the connection.
#[derive(Debug)]
pub struct LiveStream {
    body: Incoming,
    buffer: Vec<u8>,
    /// Bytes of the buffer that have no end of a line.
    searched: usize,
    _sender: SendRequest<Full<Bytes>>,
}

impl LiveStream {
    pub(crate) fn new(body: Incoming, sender: SendRequest<Full<Bytes>>) -> Self {
        Self { body, buffer: Vec::new(), searched: 0, _sender: sender }
    }

    /// The next message. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection breaks, the server is silent for [`SILENCE_MAX`], or a message cannot be read.
    pub async fn next(&mut self) -> Result<Live> {
        loop {
            if let Some(message) = self.ready()? {
                return Ok(message);
            }
            let Ok(frame) = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await else {
                return Err(Error::Broken(format!("the server was silent for {} s", SILENCE_MAX.as_secs())));
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Error::broken("the connection broke", error)),
                None => return Err(Error::ended_early()),
            }
        }
    }

    /// The next message, if it has arrived.
    fn ready(&mut self) -> Result<Option<Live>> {
        let Some(end) = self.buffer[self.searched..].iter().position(|&b| b == b'\n') else {
            self.searched = self.buffer.len();
            if self.searched > MAX_ANSWER {
                return Err(Error::Broken(format!("a message is larger than {MAX_ANSWER} bytes")));
            }
            return Ok(None);
        };
        let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
        self.searched = 0;
        let read = serde_json::from_slice(&line);
        read.map(Some).map_err(|e| Error::broken("the server's message cannot be read", e))
    }
}

/// What a message has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// All of it is new: forget what you derived from the state before.
    All,
    /// This thing is new, changed, or gone.
    One(Kind, String),
}

/// The state, as far as it was asked for.
#[derive(Debug, Clone)]
pub struct State {
    /// The run of the server that it is from.
    pub server: String,
    /// Number of the last message that changed it.
    pub seq: u64,
    /// Nodes, by MAC address.
    pub nodes: BTreeMap<String, Node>,
    /// Images, by full name.
    pub images: BTreeMap<String, Image>,
    /// Image shells, by id.
    pub sessions: BTreeMap<String, Session>,
    /// What the server is busy with, by id.
    pub operations: BTreeMap<String, Operation>,
    /// Leases, by MAC address of the node.
    pub leases: BTreeMap<String, Lease>,
    /// The server's clock when the last message came, and when that was here.
    clock: (f64, Instant),
}

impl Default for State {
    fn default() -> Self {
        Self {
            server: String::new(),
            seq: 0,
            nodes: BTreeMap::new(),
            images: BTreeMap::new(),
            sessions: BTreeMap::new(),
            operations: BTreeMap::new(),
            leases: BTreeMap::new(),
            clock: (0.0, Instant::now()),
        }
    }
}

impl State {
    /// Takes a message over.
    ///
    /// # Errors
    /// [`Error::Broken`]: it does not fit what came before it.
    pub fn apply(&mut self, message: Live) -> Result<News> {
        match message {
            Live::Snapshot(snapshot) => {
                *self = Self::of(*snapshot);
                Ok(News::All)
            }
            Live::Changed { seq, time, kind, id, fields } => {
                self.heard(time);
                self.seq = seq;
                match kind {
                    Kind::Node => put(&mut self.nodes, &id, fields),
                    Kind::Image => put(&mut self.images, &id, fields),
                    Kind::Session => put(&mut self.sessions, &id, fields),
                    Kind::Operation => put(&mut self.operations, &id, fields),
                    Kind::Lease => put(&mut self.leases, &id, fields),
                }?;
                Ok(News::One(kind, id))
            }
            Live::Gone { seq, time, kind, id } => {
                self.heard(time);
                self.seq = seq;
                match kind {
                    Kind::Node => drop(self.nodes.remove(&id)),
                    Kind::Image => drop(self.images.remove(&id)),
                    Kind::Session => drop(self.sessions.remove(&id)),
                    Kind::Operation => drop(self.operations.remove(&id)),
                    Kind::Lease => drop(self.leases.remove(&id)),
                }
                Ok(News::One(kind, id))
            }
            Live::Heartbeat { time, .. } | Live::Resync { time } => {
                self.heard(time);
                Ok(News::None)
            }
        }
    }

    fn of(snapshot: Snapshot) -> Self {
        Self {
            server: snapshot.server,
            seq: snapshot.seq,
            nodes: snapshot.nodes.into_iter().map(|node| (node.mac.to_string(), node)).collect(),
            images: snapshot.images.into_iter().map(|image| (image.fullname.clone(), image)).collect(),
            sessions: snapshot.sessions.into_iter().map(|session| (session.id.clone(), session)).collect(),
            operations: snapshot.operations.into_iter().map(|one| (one.id.clone(), one)).collect(),
            leases: snapshot.leases.into_iter().map(|lease| (lease.mac.clone(), lease)).collect(),
            clock: (snapshot.time, Instant::now()),
        }
    }

    fn heard(&mut self, time: f64) {
        self.clock = (time, Instant::now());
    }

    /// The server's clock, in seconds since the epoch.
    pub fn now(&self) -> f64 {
        self.clock.0 + self.clock.1.elapsed().as_secs_f64()
    }
}

/// Changes fields of a thing, or adds it.
fn put<T: Serialize + DeserializeOwned>(
    all: &mut BTreeMap<String, T>,
    id: &str,
    fields: Map<String, Value>,
) -> Result<()> {
    let bad = |e: serde_json::Error| Error::broken("the server's message does not fit", e);
    let mut thing = match all.get(id).map(serde_json::to_value).transpose().map_err(bad)? {
        Some(Value::Object(before)) => before,
        _ => Map::new(),
    };
    thing.extend(fields);
    all.insert(id.to_owned(), serde_json::from_value(Value::Object(thing)).map_err(bad)?);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn say(state: &mut State, message: Value) -> Result<News> {
        state.apply(serde_json::from_value(message).unwrap())
    }

    #[test]
    fn a_snapshot_replaces_and_changes_change() {
        let mut state = State::default();
        let operation =
            json!({"id": "1", "user": "ann", "what": "node boot a i", "since": 1.0, "label": null});
        let snapshot =
            json!({"event": "snapshot", "server": "s", "seq": 4, "time": 100.0, "operations": [operation]});
        assert_eq!(say(&mut state, snapshot).unwrap(), News::All);
        assert_eq!((state.server.as_str(), state.seq, state.operations["1"].user.as_str()), ("s", 4, "ann"));
        assert!((state.now() - 100.0).abs() < 10.0);
        let change = json!({"event": "changed", "seq": 5, "time": 200.0, "kind": "operation", "id": "1", "fields": {"label": "Copying"}});
        assert_eq!(say(&mut state, change).unwrap(), News::One(Kind::Operation, "1".into()));
        let now = &state.operations["1"];
        assert_eq!((now.label.as_deref(), now.user.as_str(), state.seq), (Some("Copying"), "ann", 5));
        assert!(state.now() >= 200.0);
        let new = json!({"id": "2", "user": "bob", "what": "x", "since": 2.0, "label": null});
        let change = json!({"event": "changed", "seq": 6, "time": 200.0, "kind": "operation", "id": "2", "fields": new});
        say(&mut state, change).unwrap();
        let gone = json!({"event": "gone", "seq": 7, "time": 200.0, "kind": "operation", "id": "1"});
        assert_eq!(say(&mut state, gone).unwrap(), News::One(Kind::Operation, "1".into()));
        assert_eq!(state.operations.keys().collect::<Vec<_>>(), ["2"]);
        assert_eq!(
            say(&mut state, json!({"event": "heartbeat", "seq": 9, "time": 300.0})).unwrap(),
            News::None
        );
        assert_eq!(say(&mut state, json!({"event": "resync", "time": 300.0})).unwrap(), News::None);
        assert!(state.operations.len() == 1 && state.now() >= 300.0);
        let snapshot = json!({"event": "snapshot", "server": "t", "seq": 1, "time": 1.0});
        say(&mut state, snapshot).unwrap();
        assert!(state.operations.is_empty() && state.server == "t" && state.seq == 1);
        // Half of a thing that is not known.
        let change = json!({"event": "changed", "seq": 2, "time": 1.0, "kind": "node", "id": "m", "fields": {"name": "n"}});
        assert!(say(&mut state, change).is_err());
    }
}
