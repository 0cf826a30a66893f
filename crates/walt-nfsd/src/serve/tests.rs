//! What one node can take of the server, over real connections.

use super::*;
use crate::{Durability, Export, MountError, MountKind, view::ReadView};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;
use walt_nfs::xdr::Write as _;
use walt_nfs::{HandleKey, Object, Status, record};
use walt_types::ViewId;

const EXPORT: u64 = 3;
/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);

/// One export; a call on it waits while `gate` is shut.
struct Gated {
    dir: PathBuf,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    fn set(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }
}

impl Exports for Gated {
    fn mount(&self, _: Ipv4Addr, _: &str, _: MountKind) -> Result<Export, MountError> {
        Ok(Export::Persist { export_id: EXPORT, dir: self.dir.clone() })
    }
    fn view(&self, _: Ipv4Addr, _: &ViewId) -> walt_nfs::vfs::Result<Arc<dyn ReadView>> {
        Err(Status::Stale)
    }
    fn persist(&self, _: Ipv4Addr, _: u64) -> walt_nfs::vfs::Result<PathBuf> {
        let waited = self.opened.wait_while_for(&mut self.shut.lock(), |shut| *shut, SOON);
        assert!(!waited.timed_out(), "the gate stays shut");
        Ok(self.dir.clone())
    }
}

struct Served {
    dir: tempfile::TempDir,
    gate: Arc<Gated>,
    server: Arc<Server>,
    address: SocketAddr,
    root: Vec<u8>,
}

impl Served {
    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let persist = dir.path().join("persist");
        std::fs::create_dir(&persist).unwrap();
        let gate = Arc::new(Gated { dir: persist.clone(), shut: Mutex::new(false), opened: Condvar::new() });
        let config = Config {
            dir: dir.path().join("state"),
            durability: Durability::Full,
            sync_data: std::fs::File::sync_data,
            reserved_ports_only: false,
            mappings: Vec::new(),
            limits,
        };
        let server = Server::new(gate.clone(), &config).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        server.serve_tcp(listener).unwrap();
        let key: HandleKey = crate::handle_key(&config.dir).unwrap();
        let ctx = walt_nfs::Context {
            peer: Ipv4Addr::LOCALHOST,
            uid: 0,
            gid: 0,
            groups: Default::default(),
            key: CallKey { xid: 0, procedure: 0, checksum: 0 },
        };
        let root: Object =
            walt_nfs::Vfs::mount(server.dispatcher.vfs(), &ctx, b"/var/lib/walt/nodes/n/persist").unwrap();
        let root = key.seal(&root).as_slice().to_vec();
        Self { dir, gate, server, address, root }
    }

    fn new() -> Self {
        Self::with(Limits::default())
    }

    /// A connection from an address of this machine.
    fn connect(&self, last_byte: u8) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last_byte), 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn connections(&self) -> usize {
        self.server.count.load(Ordering::SeqCst)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.gate.set(false);
        self.server.stop();
    }
}

/// A record with a call of root's.
fn call(xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut out = MARK_ROOM.to_vec();
    for v in [xid, 0, 2, nfs3::PROGRAM, nfs3::VERSION, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0] {
        out.put_u32(v);
    }
    out.extend_from_slice(args);
    frame(&mut out);
    out
}

fn handle(handle: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_opaque(handle);
    out
}

/// The next answer: its xid and its results.
fn answer(mut stream: &TcpStream) -> io::Result<(u32, Vec<u8>)> {
    let mut reply = Vec::new();
    read_record(&mut stream, &mut reply)?;
    Ok((u32::from_be_bytes(reply[..4].try_into().unwrap()), reply[24..].to_vec()))
}

fn null(mut stream: &TcpStream) -> io::Result<(u32, Vec<u8>)> {
    stream.write_all(&call(1, 0, &[]))?;
    answer(stream)
}

#[track_caller]
fn ended(stream: &TcpStream) {
    let error = answer(stream).expect_err("the connection is closed");
    assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "waited {} s for {what}", SOON.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn records_are_read_as_they_come() {
    let bytes = [0, 0, 0, 2, 1, 2, 0x80, 0, 0, 1, 3, 0x80, 0, 0, 0, 0, 0, 0, 9, 1];
    let mut stream = &bytes[..];
    let mut record = Vec::new();
    read_record(&mut stream, &mut record).unwrap();
    assert_eq!(record, [1, 2, 3]);
    read_record(&mut stream, &mut record).unwrap();
    assert!(record.is_empty());
    assert!(read_record(&mut stream, &mut record).is_err());
    assert!(read_record(&mut &[0xff; 8][..], &mut record).is_err());
}

#[test]
fn the_newest_connections_of_a_node_win() {
    let s = Served::new();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..MAX_PER_PEER + 2 {
        let stream = s.connect(1);
        null(&stream).unwrap();
        streams.push(stream);
    }
    streams[..2].iter().for_each(ended);
    streams[2..].iter().for_each(|stream| drop(null(stream).unwrap()));
    let other = s.connect(2);
    null(&other).unwrap();
    until("the closed ones to be gone", || s.connections() == MAX_PER_PEER + 1);
}

#[test]
fn connections_of_all_nodes_are_bounded() {
    let s = Served::with(Limits { connections: 3, ..Limits::default() });
    let mut streams: Vec<TcpStream> = (1..=3).map(|n| s.connect(n)).collect();
    streams.iter().for_each(|stream| drop(null(stream).unwrap()));
    ended(&s.connect(4));
    streams.iter().for_each(|stream| drop(null(stream).unwrap()));
    streams.pop();
    until("room for another", || s.connections() == 2);
    null(&s.connect(4)).unwrap();
}

#[test]
fn long_records_end_their_connection() {
    let s = Served::new();
    let too_long = (record::MAX_RECORD as u32 + 1).to_be_bytes();
    let many: Vec<u8> = [0; 4].repeat(record::MAX_FRAGMENTS as usize + 1);
    for bytes in [&[0xff; 4][..], &[0x7f, 0xff, 0xff, 0xff], &too_long, &many] {
        let mut stream = s.connect(1);
        // It may be closed before all was sent.
        let _ = stream.write_all(bytes);
        ended(&stream);
    }
    // Not a call.
    let mut stream = s.connect(1);
    stream.write_all(&[0x80, 0, 0, 4, 1, 2, 3, 4]).unwrap();
    ended(&stream);
    null(&s.connect(1)).unwrap();
}

#[test]
fn waiting_calls_are_bounded_and_all_answered() {
    const CALLS: u32 = 200;
    let s = Served::new();
    s.gate.set(true);
    let stream = s.connect(1);
    let (mut writing, root) = (stream.try_clone().unwrap(), s.root.clone());
    let sender = std::thread::spawn(move || {
        (0..CALLS).for_each(|xid| writing.write_all(&call(xid, 1, &handle(&root))).unwrap());
    });
    // Running, waiting, and the one for which there is no room.
    let bound = (PERSIST_THREADS + PERSIST_QUEUE + 1) as u64;
    until("the queue to be full", || s.server.calls(Ipv4Addr::LOCALHOST) == bound);
    // Another node is served meanwhile.
    null(&s.connect(2)).unwrap();
    assert_eq!(s.server.calls(Ipv4Addr::LOCALHOST), bound);
    s.gate.set(false);
    let mut xids: Vec<u32> = (0..CALLS).map(|_| answer(&stream).unwrap().0).collect();
    xids.sort_unstable();
    assert_eq!(xids, (0..CALLS).collect::<Vec<_>>());
    sender.join().unwrap();
}

#[test]
fn what_waits_when_a_connection_ends_is_not_run() {
    let s = Served::new();
    s.gate.set(true);
    let mut stream = s.connect(1);
    for xid in 0..(PERSIST_THREADS + PERSIST_QUEUE) as u32 {
        let mut args = handle(&s.root);
        args.put_opaque(format!("d{xid}").as_bytes());
        [0; 6].iter().for_each(|v| args.put_u32(*v));
        stream.write_all(&call(xid, 9, &args)).unwrap();
    }
    let read = || s.server.calls(Ipv4Addr::LOCALHOST) == (PERSIST_THREADS + PERSIST_QUEUE) as u64;
    until("the calls to be read", read);
    until("some to run", || s.server.running.lock().len() == PERSIST_THREADS);
    drop(stream);
    until("the connection to end", || s.connections() == 0);
    s.gate.set(false);
    until("the running calls to end", || s.server.running.lock().is_empty());
    let made = std::fs::read_dir(s.dir.path().join("persist")).unwrap().count();
    assert_eq!(made, PERSIST_THREADS, "those that ran");
}

#[test]
fn a_call_that_comes_again_while_it_runs_runs_once() {
    let s = Served::new();
    let mut args = handle(&s.root);
    args.put_opaque(b"new");
    [0; 6].iter().for_each(|v| args.put_u32(*v));
    let record = call(77, 9, &args);
    s.gate.set(true);
    let mut streams = [s.connect(1), s.connect(1)];
    let (key, peer) = (walt_nfs::call_key(&Call::parse(&record[4..]).unwrap()), Ipv4Addr::LOCALHOST);
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&record).unwrap();
        until("the call to run or to be joined", || {
            s.server.running.lock().get(&(peer, key)).is_some_and(|waiters| waiters.len() == n + 1)
        });
    }
    s.gate.set(false);
    let answers = streams.each_ref().map(|stream| answer(stream).unwrap());
    assert_eq!(answers[0].1[..4], [0; 4], "made");
    assert_eq!(answers[0], answers[1]);
    // And once more when it is over: from the ring.
    streams[0].write_all(&record).unwrap();
    assert_eq!(answer(&streams[0]).unwrap(), answers[0]);
    // Another call of the same kind is another one.
    streams[0].write_all(&call(78, 9, &args)).unwrap();
    assert_eq!(answer(&streams[0]).unwrap().1[..4], (Status::Exist as u32).to_be_bytes());
}

#[test]
fn who_does_not_read_answers_is_left() {
    let s = Served::with(Limits { write_timeout: Duration::from_millis(200), ..Limits::default() });
    std::fs::write(s.dir.path().join("persist/big"), vec![7; nfs3::MAX_TRANSFER as usize]).unwrap();
    let mut stream = s.connect(1);
    let mut args = handle(&s.root);
    args.put_opaque(b"big");
    stream.write_all(&call(1, 3, &args)).unwrap();
    let (_, found) = answer(&stream).unwrap();
    let length = u32::from_be_bytes(found[4..8].try_into().unwrap()) as usize;
    let mut args = handle(&found[8..8 + length]);
    args.put_u64(0);
    args.put_u32(nfs3::MAX_TRANSFER);
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        // Far more than the buffers of two sockets take; it fails once the server has closed.
        let all = (0..1000).try_for_each(|xid| stream.write_all(&call(xid, 6, &args)));
        done.send((all, stream)).unwrap();
    });
    until("the connection to be closed", || s.connections() == 0);
    let (_, stream) = finished.recv_timeout(SOON).expect("its calls are not taken any more");
    let mut rest = Vec::new();
    let _ = (&stream).read_to_end(&mut rest);
    assert!(rest.len() < 1000 * nfs3::MAX_TRANSFER as usize);
}

#[test]
fn counters_are_bounded() {
    let s = Served::new();
    for n in 0..MAX_COUNTERS as u32 + 10 {
        s.server.counter(Ipv4Addr::from(0x0a00_0000 + n)).calls.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(s.server.calls.lock().len(), MAX_COUNTERS);
    assert_eq!(s.server.calls(Ipv4Addr::from(0x0a00_0000)), 1);
    assert_eq!(s.server.calls(Ipv4Addr::from(0x0a00_0000 + MAX_COUNTERS as u32)), 0);
}

#[test]
fn large_buffers_are_bounded() {
    let s = Served::new();
    for _ in 0..KEEP_LARGE + 5 {
        assert_eq!(s.server.keep(Vec::with_capacity(nfs3::MAX_TRANSFER as usize)).capacity(), 0);
    }
    assert_eq!(s.server.large.lock().len(), KEEP_LARGE);
    assert_eq!(s.server.keep(Vec::with_capacity(512)).capacity(), 512, "small ones stay where they are");
    let record = call(1, 6, &[]);
    let read = Call::parse(&record[4..]).unwrap();
    let reply = s.server.buffer(&read, Vec::new());
    assert_eq!((reply.len(), reply.capacity() > KEEP_BUFFER), (MARK_ROOM.len(), true));
    assert_eq!(s.server.large.lock().len(), KEEP_LARGE - 1);
}
