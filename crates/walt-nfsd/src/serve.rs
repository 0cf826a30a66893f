//! Sockets and threads of the NFS server.
//!
//! ```text
//!  accept ──► one reader thread per connection
//!               │ views, MOUNT, port mapper: answered at once, on this thread
//!               └ /persist: bounded queue ──► up to PERSIST_THREADS threads of this connection
//! ```
//! Threads and queues belong to one connection, so a node that does not read its answers, or whose disk
//! calls hang, stops nobody else. A connection that takes no bytes for [`WRITE_TIMEOUT`] is closed.
//!
//! A call that must not run twice and is still running when it comes again (on a new connection) is not
//! run: its answer goes to both. What has finished is known to [`super::ring`].
//!
//! Limits: [`MAX_CONNECTIONS`], [`MAX_PER_PEER`] (the newest win: a node that crashed leaves dead ones
//! behind), and per connection [`PERSIST_THREADS`] running and [`PERSIST_QUEUE`] waiting calls of at most
//! [`walt_nfs::record::MAX_RECORD`] bytes, after which it is not read any more.

use super::fail_points::{self, Point};
use super::operations::Operations;
use super::persist::Swept;
use super::{Backend, Config, Error, Exports};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use walt_nfs::record::{Assembler, MARK_ROOM, Next, frame};
use walt_nfs::{Call, CallKey, Dispatcher, Peer, Proc, nfs3, nfsacl};

/// Most connections at a time.
pub const MAX_CONNECTIONS: usize = 2048;
/// Most connections of one node. Linux uses one for all its mounts, and short ones for MOUNT.
pub const MAX_PER_PEER: usize = 8;
/// Threads of one connection for `/persist` calls, which wait for the disk.
pub const PERSIST_THREADS: usize = 4;
/// `/persist` calls of one connection that may wait for a thread.
pub const PERSIST_QUEUE: usize = 8;
/// How long an answer may stay unsent.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which the kernel asks whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Most peers whose calls are counted.
const MAX_COUNTERS: usize = 4096;
/// Largest UDP datagram that is looked at: port mapper and MOUNT calls are far smaller.
const MAX_DATAGRAM: usize = 4096;
/// How often a UDP thread looks whether it has to stop, and pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(200);
/// A connection does not keep a buffer that grew past this, in bytes.
const KEEP_BUFFER: usize = 256 << 10;
/// Most large buffers that are kept for the next READs, of all connections. Memory that comes fresh from the
/// kernel for each of them costs more than the copy of what is read.
const KEEP_LARGE: usize = 32;
/// Stack of each thread, in bytes: nothing recurses, and large data is on the heap.
const STACK: usize = 512 << 10;

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of all nodes.
    pub connections: usize,
    /// Of one node.
    pub per_peer: usize,
    /// How long an answer may stay unsent.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, per_peer: MAX_PER_PEER, write_timeout: WRITE_TIMEOUT }
    }
}

/// The NFS server: answers on the sockets it was given until it is stopped or dropped by the process.
pub struct Server {
    dispatcher: Dispatcher<Backend>,
    reserved_ports_only: bool,
    limits: Limits,
    stopping: AtomicBool,
    listeners: Mutex<Vec<TcpListener>>,
    connections: Mutex<HashMap<Ipv4Addr, VecDeque<Arc<Connection>>>>,
    count: AtomicUsize,
    running: Mutex<HashMap<RunningKey, Waiters>>,
    calls: Mutex<HashMap<Ipv4Addr, Arc<Counter>>>,
    operations: Operations,
    large: Mutex<Vec<Vec<u8>>>,
}

/// What a node has asked for since this process started, or since [`Server::close`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// NFS and NFSACL calls (programs 100003 and 100227).
    pub calls: u64,
    /// Bytes of the answers to them.
    pub bytes: u64,
}

#[derive(Default)]
struct Counter {
    calls: AtomicU64,
    bytes: AtomicU64,
}

/// A call of a node, whatever connection it came by.
type RunningKey = (Ipv4Addr, CallKey);
/// The clients that get the answer of a running call.
type Waiters = Vec<Arc<Connection>>;

/// The writing half of a connection.
struct Connection {
    stream: TcpStream,
    writing: Mutex<()>,
}

impl Connection {
    /// Sends an answer that was built behind [`MARK_ROOM`]. A connection that does not take it is closed:
    /// half an answer cannot be followed by another.
    fn send(&self, reply: &mut [u8]) {
        frame(reply);
        let _writing = self.writing.lock();
        if let Err(error) = (&self.stream).write_all(reply) {
            tracing::debug!(%error, "an NFS connection took no answer");
            self.close();
        }
    }

    fn close(&self) {
        // On an error it is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Server {
    /// Makes [`Config::dir`] and what lies in it.
    ///
    /// # Errors
    /// A file in it cannot be read or written, or is damaged.
    pub fn new(exports: Arc<dyn Exports>, config: &Config) -> Result<Arc<Self>, Error> {
        let backend = Backend::new(exports, config)?;
        let key = super::handle_key(&config.dir)?;
        Ok(Arc::new(Self {
            dispatcher: Dispatcher::new(backend, key, config.mappings.clone()),
            reserved_ports_only: config.reserved_ports_only,
            limits: config.limits,
            stopping: AtomicBool::new(false),
            listeners: Mutex::default(),
            connections: Mutex::default(),
            count: AtomicUsize::new(0),
            running: Mutex::default(),
            calls: Mutex::default(),
            operations: Operations::default(),
            large: Mutex::default(),
        }))
    }

    /// Answers on a bound and listening socket, from a thread of its own: NFS, MOUNT and port mapper alike.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn serve_tcp(self: &Arc<Self>, listener: TcpListener) -> Result<(), Error> {
        let ours = listener.try_clone().map_err(Error::io("duplicate the NFS socket"))?;
        ours.set_nonblocking(false).map_err(Error::io("make the NFS socket blocking"))?;
        self.listeners.lock().push(listener);
        let server = self.clone();
        spawn("nfs-accept", move || server.accept(&ours)).map_err(Error::io("start a thread for NFS"))
    }

    /// Answers the port mapper and MOUNT on a bound socket, from a thread of its own.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn serve_udp(self: &Arc<Self>, socket: UdpSocket) -> Result<(), Error> {
        socket
            .set_nonblocking(false)
            .and_then(|()| socket.set_read_timeout(Some(PAUSE)))
            .map_err(Error::io("set the time-out of the port mapper's socket"))?;
        let server = self.clone();
        spawn("nfs-udp", move || server.datagrams(&socket)).map_err(Error::io("start a thread for NFS"))
    }

    /// What a node has asked for.
    pub fn counts(&self, peer: Ipv4Addr) -> Counts {
        let calls = self.calls.lock();
        calls.get(&peer).map_or_else(Counts::default, |counter| Counts {
            calls: counter.calls.load(Ordering::Relaxed),
            bytes: counter.bytes.load(Ordering::Relaxed),
        })
    }

    /// The calls of [`Self::counts`].
    pub fn calls(&self, peer: Ipv4Addr) -> u64 {
        self.counts(peer).calls
    }

    /// The calls of all nodes by procedure since this process started.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Takes no new connections and closes all. Running calls end by themselves; nodes send again what
    /// was not answered.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for listener in self.listeners.lock().drain(..) {
            // Wakes accept(2), which then fails.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        for connection in self.connections.lock().values().flatten() {
            connection.close();
        }
    }

    /// Closes the connections of a node that was forgotten, and forgets how many calls it has sent.
    pub fn close(&self, peer: Ipv4Addr) {
        self.calls.lock().remove(&peer);
        if let Some(all) = self.connections.lock().get(&peer) {
            all.iter().for_each(|c| c.close());
        }
    }

    /// Removes from an export what its node had removed while it was open, and left behind when it ended before
    /// `before`, in seconds since 1970.
    ///
    /// # Errors
    /// The export cannot be read.
    pub fn sweep(&self, export_id: u64, dir: &Path, before: i64) -> walt_nfs::vfs::Result<Swept> {
        self.dispatcher.vfs().sweep(export_id, dir, before)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn peer(&self, address: SocketAddr) -> Option<Peer> {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(ip) => ip.to_ipv4_mapped()?,
        };
        Some(Peer { address: ip, trusted: !self.reserved_ports_only || address.port() < 1024 })
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while !self.stopping() {
            let (stream, address) = match listener.accept() {
                Ok(new) => new,
                Err(error) => {
                    if !self.stopping() {
                        // Out of descriptors, or a connection that ended at once.
                        tracing::warn!(%error, "cannot accept an NFS connection");
                        std::thread::sleep(PAUSE);
                    }
                    continue;
                }
            };
            let Some(peer) = self.peer(address) else { continue };
            if let Err(error) = self.clone().connection(stream, peer) {
                tracing::warn!(%address, %error, "cannot serve an NFS connection");
            }
        }
    }

    fn connection(self: Arc<Self>, stream: TcpStream, peer: Peer) -> io::Result<()> {
        if self.count.load(Ordering::Relaxed) >= self.limits.connections {
            return Err(io::Error::other("there are too many connections"));
        }
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(self.limits.write_timeout))?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let connection = Arc::new(Connection { stream, writing: Mutex::new(()) });
        {
            let mut all = self.connections.lock();
            let mine = all.entry(peer.address).or_default();
            if mine.len() >= self.limits.per_peer
                && let Some(oldest) = mine.pop_front()
            {
                oldest.close();
            }
            mine.push_back(connection.clone());
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let leaving = Leaving { server: self.clone(), peer: peer.address, connection: connection.clone() };
        // If the thread cannot be made, the closure and with it `leaving` is dropped here.
        spawn("nfs-read", move || {
            let leaving = leaving;
            if let Err(error) = self.read(&leaving.connection, peer) {
                tracing::debug!(peer = %peer.address, %error, "an NFS connection ended");
            }
        })
    }

    /// Reads and answers records until the connection ends.
    fn read(self: &Arc<Self>, connection: &Arc<Connection>, peer: Peer) -> io::Result<()> {
        let mut stream = io::BufReader::with_capacity(16 << 10, &connection.stream);
        let counter = self.counter(peer.address);
        let queue = Queue::default();
        let queue = Arc::new(queue);
        let _closing = Closing(queue.clone());
        let (mut record, mut reply) = (Vec::new(), Vec::new());
        while !self.stopping() {
            read_record(&mut stream, &mut record)?;
            let call = Call::parse(&record)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let counts = matches!(call.program, nfs3::PROGRAM | nfsacl::PROGRAM);
            counter.calls.fetch_add(u64::from(counts), Ordering::Relaxed);
            if nfs3::may_block(&call) {
                self.enqueue(&queue, connection, peer, &counter, std::mem::take(&mut record))?;
                continue;
            }
            reply = self.buffer(&call, reply);
            self.answer(&call, peer, &mut reply);
            counter.bytes.fetch_add(if counts { reply.len() as u64 } else { 0 }, Ordering::Relaxed);
            connection.send(&mut reply);
            reply = self.keep(reply);
            if record.capacity() > KEEP_BUFFER {
                record = Vec::new();
            }
        }
        Ok(())
    }

    fn enqueue(
        self: &Arc<Self>,
        queue: &Arc<Queue>,
        connection: &Arc<Connection>,
        peer: Peer,
        counter: &Arc<Counter>,
        record: Vec<u8>,
    ) -> io::Result<()> {
        let start_another = queue.push(record);
        if start_another {
            let (server, queue, connection) = (self.clone(), queue.clone(), connection.clone());
            let counter = counter.clone();
            spawn("nfs-persist", move || {
                if let Err(error) = walt_sys::creds::respect_quotas() {
                    tracing::warn!(%error, "the calls of nodes are not bound by the quotas of the disk");
                }
                while let Some(record) = queue.pop() {
                    let _done = Done { queue: &queue, connection: &connection };
                    let bytes = server.persist(&connection, peer, &record);
                    counter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            })?;
        }
        Ok(())
    }

    /// Runs a call and appends its answer.
    fn answer(&self, call: &Call<'_>, peer: Peer, reply: &mut Vec<u8>) {
        let start = Instant::now();
        self.dispatcher.reply(call, peer, reply);
        self.operations.count(call, start.elapsed(), reply.len());
        if call.program == nfs3::PROGRAM {
            fail_points::point(Point::Unanswered, call.procedure);
        }
    }

    /// Answers one call that may wait for the disk; the length of the answer in bytes.
    fn persist(&self, connection: &Arc<Connection>, peer: Peer, record: &[u8]) -> usize {
        let Ok(call) = Call::parse(record) else { return 0 };
        let once = Proc::new(call.procedure).is_some_and(Proc::must_not_repeat);
        let mut reply = self.buffer(&call, Vec::with_capacity(512));
        if !once {
            self.answer(&call, peer, &mut reply);
            let length = reply.len();
            connection.send(&mut reply);
            drop(self.keep(reply));
            return length;
        }
        let Some(running) = Running::join(self, (peer.address, walt_nfs::call_key(&call)), connection) else {
            return 0;
        };
        self.answer(&call, peer, &mut reply);
        // Its result is in the ring: from here on a retry finds it there.
        for connection in running.leave() {
            connection.send(&mut reply);
        }
        reply.len()
    }

    /// An empty buffer for the answer to a call: `small`, but for a READ one that is large already, if there is.
    fn buffer(&self, call: &Call<'_>, small: Vec<u8>) -> Vec<u8> {
        let reads = call.program == nfs3::PROGRAM && Proc::new(call.procedure) == Some(Proc::Read);
        let large = reads.then(|| self.large.lock().pop()).flatten();
        let mut buffer = large.unwrap_or(small);
        buffer.clear();
        buffer.extend_from_slice(&MARK_ROOM);
        buffer
    }

    /// Takes back a large buffer; a small one stays with its connection.
    fn keep(&self, buffer: Vec<u8>) -> Vec<u8> {
        if buffer.capacity() <= KEEP_BUFFER {
            return buffer;
        }
        let mut large = self.large.lock();
        if large.len() < KEEP_LARGE {
            large.push(buffer);
        }
        Vec::new()
    }

    fn counter(&self, peer: Ipv4Addr) -> Arc<Counter> {
        let mut calls = self.calls.lock();
        if calls.len() >= MAX_COUNTERS && !calls.contains_key(&peer) {
            return Arc::default();
        }
        calls.entry(peer).or_default().clone()
    }

    fn datagrams(self: Arc<Self>, socket: &UdpSocket) {
        let mut datagram = [0; MAX_DATAGRAM];
        let mut reply = Vec::new();
        while !self.stopping() {
            let Ok((len, address)) = socket.recv_from(&mut datagram) else { continue };
            let Some(peer) = self.peer(address) else { continue };
            let Ok(call) = Call::parse(&datagram[..len]) else { continue };
            if call.program == nfs3::PROGRAM {
                continue; // NFS is served over TCP only
            }
            reply.clear();
            self.dispatcher.reply(&call, peer, &mut reply);
            // A lost answer is asked for again.
            let _ = socket.send_to(&reply, address);
        }
    }
}

/// A call that must not run twice, while it runs.
struct Running<'a> {
    server: &'a Server,
    key: RunningKey,
    left: bool,
}

impl<'a> Running<'a> {
    /// `None` if the call runs already: its answer will come by this connection, too.
    fn join(server: &'a Server, key: RunningKey, connection: &Arc<Connection>) -> Option<Self> {
        let mut running = server.running.lock();
        if let Some(waiting) = running.get_mut(&key) {
            if !waiting.iter().any(|c| Arc::ptr_eq(c, connection)) {
                waiting.push(connection.clone());
            }
            return None;
        }
        running.insert(key, vec![connection.clone()]);
        Some(Self { server, key, left: false })
    }

    /// The clients that wait for the answer.
    fn leave(mut self) -> Waiters {
        self.take()
    }

    fn take(&mut self) -> Waiters {
        // Once only: the next entry of this key is of the next try.
        if std::mem::replace(&mut self.left, true) {
            return Vec::new();
        }
        let mut running = self.server.running.lock();
        running.remove(&self.key).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    /// Also when the call panicked: the client's next try must not wait for it.
    fn drop(&mut self) {
        for connection in self.take() {
            connection.close();
        }
    }
}

/// Takes a connection out of the server's list when its reader ends, however it ends.
struct Leaving {
    server: Arc<Server>,
    peer: Ipv4Addr,
    connection: Arc<Connection>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.connection.close();
        self.server.count.fetch_sub(1, Ordering::Relaxed);
        let mut all = self.server.connections.lock();
        if let Some(mine) = all.get_mut(&self.peer) {
            mine.retain(|c| !Arc::ptr_eq(c, &self.connection));
            if mine.is_empty() {
                all.remove(&self.peer);
            }
        }
    }
}

/// Calls of one connection that wait for one of its threads.
#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Vec<u8>>,
    threads: usize,
    busy: usize,
    closed: bool,
}

impl Queue {
    /// Adds a call, waiting for room; true if the caller has to start a thread.
    fn push(&self, record: Vec<u8>) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |s| s.records.len() >= PERSIST_QUEUE);
        state.records.push_back(record);
        let start = state.busy + state.records.len() > state.threads && state.threads < PERSIST_THREADS;
        state.threads += usize::from(start);
        drop(state);
        self.changed.notify_all();
        start
    }

    /// The next call; `None` when the connection has ended.
    fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |s| s.records.is_empty() && !s.closed);
        let record = state.records.pop_front()?;
        state.busy += 1;
        drop(state);
        self.changed.notify_all();
        Some(record)
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.state.lock());
        self.changed.notify_all();
    }
}

/// A call that was taken from a queue is over.
struct Done<'a> {
    queue: &'a Queue,
    connection: &'a Connection,
}

impl Drop for Done<'_> {
    /// Also when the call panicked: the thread is gone then, and the client does best on a new connection.
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.queue.change(|q| {
            q.busy -= 1;
            q.threads -= usize::from(panicked);
        });
        if panicked {
            self.connection.close();
        }
    }
}

/// Ends the threads of a queue. What waits in it is not run: the client sends it again on its next connection,
/// and an old WRITE that ran after its repetition could undo a newer one.
struct Closing(Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.change(|q| {
            q.closed = true;
            q.records.clear();
        });
    }
}

/// Reads one record. Memory is spent on what has arrived, not on what was announced.
fn read_record(stream: &mut impl Read, record: &mut Vec<u8>) -> io::Result<()> {
    record.clear();
    let mut assembler = Assembler::default();
    loop {
        let mut mark = [0; 4];
        stream.read_exact(&mut mark)?;
        let Next::Fragment { len, last } = assembler.mark(mark).map_err(io::Error::other)?;
        let got = stream.by_ref().take(len as u64).read_to_end(record)?;
        if got < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if last {
            return Ok(());
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(run).map(drop)
}

#[cfg(test)]
mod tests;
