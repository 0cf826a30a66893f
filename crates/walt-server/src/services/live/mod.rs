//! The state as it was last published, and its changes for all who listen: see [`walt_api::live`].
//!
//! ```text
//!  marks of changes ─▶ a look at the present state (actions/live.rs) ─▶ Live::publish: what differs
//!                                                                          │ one message for all clients
//!  client ◀── its place in the ring ◀── ring of the last MESSAGES_KEPT messages
//! ```
//! All clients read the same messages, in one ring; a client has no queue of its own, only its place in the ring. One
//! that is so late that the ring has turned gets a new snapshot. Nothing here waits for a client.
//!
//! A snapshot is as new as the request: it is made after a look that began later than the request, or if nothing had
//! changed by then.
//!
//! Nobody looks while nobody listens.
//!
//! Limits: [`MESSAGES_KEPT`], [`CLIENTS_MAX`].

mod table;

use crate::base::{changes::Changes, random::random, time::now};
use hyper::body::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use table::{Collection, Difference};
use tokio::sync::{
    Notify,
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};
use walt_api::{
    Image, Node,
    live::{HEARTBEAT_SECONDS, Kind, Lease, Live as Message, Operation, Session, Snapshot},
};

/// Messages that are kept for slow clients: those of 1,000 nodes that all change as often as is published, for 3 s. One
/// has about 200 bytes.
pub const MESSAGES_KEPT: usize = 16_384;
/// Clients at once.
pub const CLIENTS_MAX: usize = 512;
/// How long a snapshot is kept for others who come meanwhile: it has the time.
const SNAPSHOT_KEPT: Duration = Duration::from_secs(1);
/// Bytes of the id of a run of the server.
const RUN_ID_LEN: usize = 8;

/// The state as it was last published, and who listens.
#[derive(Debug)]
pub struct Live {
    run: String,
    changes: Arc<Changes>,
    /// Locked before the table.
    kept: Mutex<Option<Kept>>,
    table: Mutex<Table>,
    ring: broadcast::Sender<Arc<Line>>,
    clients: AtomicUsize,
    arrived: Notify,
    /// Looks that have begun and ended.
    looks: watch::Sender<(u64, u64)>,
    resyncs: AtomicU64,
    sent: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    seq: u64,
    nodes: Collection<Node>,
    images: Collection<Image>,
    sessions: Collection<Session>,
    operations: Collection<Operation>,
    leases: Collection<Lease>,
    /// Whether it has followed all changes since the first look.
    is_followed: bool,
}

/// The last snapshot that was made.
#[derive(Debug)]
struct Kept {
    seq: u64,
    made: Instant,
    wanted: Wanted,
    text: Bytes,
}

/// The present state, of those kinds that were looked at; by id.
#[derive(Debug, Default)]
pub struct Look {
    /// Nodes, by MAC address.
    pub nodes: Option<BTreeMap<String, Node>>,
    /// Images, by full name.
    pub images: Option<BTreeMap<String, Image>>,
    /// Image shells, by id.
    pub sessions: Option<BTreeMap<String, Session>>,
    /// Operations, by number.
    pub operations: Option<BTreeMap<String, Operation>>,
    /// Leases, by MAC address of the node.
    pub leases: Option<BTreeMap<String, Lease>>,
}

/// A message in the ring.
#[derive(Debug)]
struct Line {
    kind: Kind,
    id: String,
    text: Bytes,
}

/// What a client wants to see.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// These kinds; all if empty.
    pub kinds: BTreeSet<Kind>,
    /// These nodes and their leases, by MAC address; all if none are named.
    pub nodes: Option<BTreeSet<String>>,
}

impl Wanted {
    fn has(&self, kind: Kind, id: &str) -> bool {
        let of_node = matches!(kind, Kind::Node | Kind::Lease);
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (!of_node || self.nodes.as_ref().is_none_or(|nodes| nodes.contains(id)))
    }
}

impl Live {
    /// Nothing is published yet.
    pub fn new(changes: Arc<Changes>) -> Arc<Self> {
        let run = random::<RUN_ID_LEN>().iter().map(|byte| format!("{byte:02x}")).collect();
        Arc::new(Self {
            run,
            changes,
            kept: Mutex::default(),
            table: Mutex::default(),
            ring: broadcast::channel(MESSAGES_KEPT).0,
            clients: AtomicUsize::new(0),
            arrived: Notify::new(),
            looks: watch::Sender::new((0, 0)),
            resyncs: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        })
    }

    /// Clients that listen.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Snapshots that clients got since they fell behind, in this run of the server.
    pub fn resyncs(&self) -> u64 {
        self.resyncs.load(Ordering::Relaxed)
    }

    /// Messages to clients in this run of the server.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until a client listens.
    pub async fn has_clients(&self) {
        while self.clients() == 0 {
            self.arrived.notified().await;
        }
    }

    /// A client has arrived whose snapshot needs a look. For one task.
    pub async fn look_wanted(&self) {
        self.arrived.notified().await;
    }

    /// Nobody looks any more: the next client needs a whole look.
    pub fn pause(&self) {
        self.table.lock().is_followed = false;
        *self.kept.lock() = None;
    }

    /// Whether changes have been followed since the last whole look.
    pub fn is_followed(&self) -> bool {
        self.table.lock().is_followed
    }

    /// A look begins. Marks of changes are taken after this.
    pub fn look_begins(&self) {
        self.looks.send_modify(|(begun, _)| *begun += 1);
    }

    /// A look has failed: the next one has to be whole.
    pub fn look_failed(&self) {
        self.table.lock().is_followed = false;
        self.looks.send_modify(|(begun, ended)| *ended = *begun);
    }

    /// Publishes what a look has found, as far as it is new. Without looks at all kinds before, this one is whole.
    pub fn publish(&self, look: Look) {
        let time = now();
        let mut table = self.table.lock();
        let mut found: Vec<(Kind, Vec<(String, Difference)>)> = Vec::new();
        let Table { nodes, images, sessions, operations, leases, .. } = &mut *table;
        found.extend(look.nodes.map(|present| (Kind::Node, nodes.replace(present))));
        found.extend(look.images.map(|present| (Kind::Image, images.replace(present))));
        found.extend(look.sessions.map(|present| (Kind::Session, sessions.replace(present))));
        found.extend(look.operations.map(|present| (Kind::Operation, operations.replace(present))));
        found.extend(look.leases.map(|present| (Kind::Lease, leases.replace(present))));
        table.is_followed = true;
        for (kind, differences) in found {
            for (id, difference) in differences {
                table.seq += 1;
                // Who subscribes holds the lock of the table.
                if self.ring.receiver_count() == 0 {
                    continue;
                }
                let message = match difference {
                    Difference::Changed(fields) => {
                        Message::Changed { seq: table.seq, time, kind, id: id.clone(), fields }
                    }
                    Difference::Gone => Message::Gone { seq: table.seq, time, kind, id: id.clone() },
                };
                // It fails if the last client has just gone.
                let _ = self.ring.send(Arc::new(Line { kind, id, text: text(&message) }));
            }
        }
        drop(table);
        self.looks.send_modify(|(begun, ended)| *ended = *begun);
    }

    /// One more client; none if there are too many.
    pub fn subscribe(self: &Arc<Self>, wanted: Wanted) -> Option<Subscription> {
        let room = |count| (count < CLIENTS_MAX).then_some(count + 1);
        self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let guard = Guard(self.clone());
        let silence = Duration::from_secs(HEARTBEAT_SECONDS);
        Some(Subscription { live: guard, wanted, state: State::New, silence })
    }

    /// A snapshot, and the place in the ring behind it. Clients that come together, after a restart say, share one.
    fn snapshot(&self, wanted: &Wanted) -> (Bytes, broadcast::Receiver<Arc<Line>>) {
        let mut kept = self.kept.lock();
        let table = self.table.lock();
        let receiver = self.ring.subscribe();
        let fits = |kept: &&Kept| kept.seq == table.seq && kept.made.elapsed() < SNAPSHOT_KEPT;
        if let Some(kept) = kept.as_ref().filter(fits).filter(|kept| kept.wanted == *wanted) {
            return (kept.text.clone(), receiver);
        }
        let snapshot = Snapshot {
            server: self.run.clone(),
            seq: table.seq,
            time: now(),
            nodes: chosen(&table.nodes, Kind::Node, wanted),
            images: chosen(&table.images, Kind::Image, wanted),
            sessions: chosen(&table.sessions, Kind::Session, wanted),
            operations: chosen(&table.operations, Kind::Operation, wanted),
            leases: chosen(&table.leases, Kind::Lease, wanted),
        };
        drop(table);
        let (seq, text) = (snapshot.seq, text(&Message::Snapshot(Box::new(snapshot))));
        *kept = Some(Kept { seq, made: Instant::now(), wanted: wanted.clone(), text: text.clone() });
        (text, receiver)
    }

    /// Waits until the table is as new as this call.
    async fn up_to_date(&self) {
        let mut looks = self.looks.subscribe();
        let begun = looks.borrow().0;
        if self.is_followed() && !self.changes.is_marked() && *looks.borrow() == (begun, begun) {
            return;
        }
        let mut enough = begun;
        loop {
            self.arrived.notify_one();
            // Invariant: the sender lives as long as we do.
            let _ = looks.wait_for(|(_, ended)| *ended > enough).await;
            if self.is_followed() {
                return;
            }
            // It has failed: the next one.
            enough = looks.borrow().1;
        }
    }
}

fn chosen<T: Clone + PartialEq + serde::Serialize>(
    from: &Collection<T>,
    kind: Kind,
    wanted: &Wanted,
) -> Vec<T> {
    from.iter().filter(|(id, _)| wanted.has(kind, id)).map(|(_, thing)| thing.clone()).collect()
}

/// A message as one line.
fn text(message: &Message) -> Bytes {
    // Invariant: messages are plain structs, which JSON can always express.
    let mut text = serde_json::to_vec(message).expect("a message is JSON");
    text.push(b'\n');
    text.into()
}

/// A client that is counted.
#[derive(Debug)]
struct Guard(Arc<Live>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The messages for one client.
#[derive(Debug)]
pub struct Subscription {
    live: Guard,
    wanted: Wanted,
    state: State,
    /// How long it may hear nothing.
    silence: Duration,
}

#[derive(Debug)]
enum State {
    /// It has got nothing yet.
    New,
    /// It was told that it fell behind.
    Behind,
    /// It follows.
    Follows(broadcast::Receiver<Arc<Line>>),
}

impl Subscription {
    /// The next message. May be dropped while it waits.
    pub async fn next(&mut self) -> Bytes {
        let live = &self.live.0;
        let text = match &mut self.state {
            State::New | State::Behind => {
                live.up_to_date().await;
                let (text, receiver) = live.snapshot(&self.wanted);
                self.state = State::Follows(receiver);
                text
            }
            State::Follows(receiver) => {
                let wanted = &self.wanted;
                match tokio::time::timeout(self.silence, next_line(receiver, wanted)).await {
                    Ok(Some(text)) => text,
                    Ok(None) => {
                        live.resyncs.fetch_add(1, Ordering::Relaxed);
                        self.state = State::Behind;
                        text(&Message::Resync { time: now() })
                    }
                    Err(_) => text(&Message::Heartbeat { seq: live.table.lock().seq, time: now() }),
                }
            }
        };
        live.sent.fetch_add(1, Ordering::Relaxed);
        text
    }

    /// The next message of those that wait already.
    pub fn ready(&mut self) -> Option<Bytes> {
        let State::Follows(receiver) = &mut self.state else { return None };
        loop {
            match receiver.try_recv() {
                Ok(line) if self.wanted.has(line.kind, &line.id) => {
                    self.live.0.sent.fetch_add(1, Ordering::Relaxed);
                    return Some(line.text.clone());
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => {
                    // The receiver has forgotten that by now.
                    self.live.0.resyncs.fetch_add(1, Ordering::Relaxed);
                    self.state = State::Behind;
                    return Some(text(&Message::Resync { time: now() }));
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }
}

/// The next message that the client wants to see; none if it fell behind.
async fn next_line(receiver: &mut broadcast::Receiver<Arc<Line>>, wanted: &Wanted) -> Option<Bytes> {
    loop {
        match receiver.recv().await {
            Ok(line) if wanted.has(line.kind, &line.id) => return Some(line.text.clone()),
            Ok(_) => {}
            // The sender lives as long as the subscription.
            Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests;
