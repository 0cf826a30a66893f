//! NFS, MOUNT, NFSACL and the port mapper over a small tree in memory.

#[path = "../../crates/walt-nfs/tests/mem/mod.rs"]
#[allow(clippy::unwrap_used, dead_code, reason = "shared with the tests of walt-nfs")]
mod mem;

use mem::{SECRET, dispatcher, object};
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use walt_nfs::record::{Assembler, MAX_RECORD, Next};
use walt_nfs::{Call, Dispatcher, HandleKey, Peer, handle::MAX_HANDLE};

/// Files of the tree.
const FILES: u32 = 40;
/// What the fuzzer writes for a handle that is right: it cannot guess the keyed MAC.
const HANDLE_MARK: [u8; 4] = *b"HNDL";
/// Scratch for the heads of a reply, in bytes; the payload of READ and READDIR is bounded by `MAX_TRANSFER`.
const REPLY_MAX: usize = MAX_RECORD;

fn server() -> &'static Dispatcher<mem::Mem> {
    static SERVER: OnceLock<Dispatcher<mem::Mem>> = OnceLock::new();
    SERVER.get_or_init(|| dispatcher(FILES))
}

/// The input with each mark replaced by a handle: of the root for the first, then of the files.
fn with_handles(bytes: &[u8]) -> Vec<u8> {
    let key = HandleKey::new(&SECRET);
    let mut out = Vec::with_capacity(bytes.len());
    let (mut rest, mut entry) = (bytes, 0);
    while let Some(at) = rest.windows(HANDLE_MARK.len()).position(|w| w == HANDLE_MARK) {
        out.extend_from_slice(&rest[..at]);
        let sealed = key.seal(&object(entry));
        let handle = sealed.as_slice();
        out.extend_from_slice(&u32::try_from(handle.len()).expect("a short handle").to_be_bytes());
        out.extend_from_slice(handle);
        out.resize(out.len().next_multiple_of(4), 0);
        rest = &rest[at + HANDLE_MARK.len()..];
        entry += 1;
    }
    out.extend_from_slice(rest);
    out
}

/// A stream of records, as a connection brings it. The first byte says whether the port is one of root's.
pub fn rpc(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else { return };
    let peer = Peer { address: Ipv4Addr::new(10, 0, 0, 2), trusted: first & 1 == 0 };
    let stream = with_handles(stream);
    let mut rest = stream.as_slice();
    let (mut assembler, mut record) = (Assembler::default(), Vec::new());
    while let Some((mark, after)) = rest.split_first_chunk::<4>() {
        let Ok(Next::Fragment { len, last }) = assembler.mark(*mark) else { return };
        let Some(fragment) = after.get(..len) else { return };
        record.extend_from_slice(fragment);
        assert!(record.len() <= MAX_RECORD, "a record is longer than it may be");
        rest = &after[len..];
        if !last {
            continue;
        }
        let Ok(call) = Call::parse(&record) else { return };
        let mut reply = Vec::new();
        server().reply(&call, peer, &mut reply);
        assert_eq!(reply[..4], record[..4], "the reply is to another call");
        assert!(reply.len() % 4 == 0 && reply.len() <= REPLY_MAX, "a reply of {} bytes", reply.len());
        (assembler, record) = (Assembler::default(), Vec::new());
    }
}

/// Handles: of the input's bytes only those that we sealed are taken; a right one with any change is not.
pub fn handle(bytes: &[u8]) {
    let key = HandleKey::new(&SECRET);
    if let Some(object) = key.open(bytes) {
        assert_eq!(key.seal(&object).as_slice(), bytes, "two handles for one object");
    }
    let [entry, position, change, ..] = *bytes else { return };
    let sealed = key.seal(&object(entry.into()));
    let mut flipped = sealed.as_slice().to_vec();
    assert!(flipped.len() <= MAX_HANDLE && key.open(&flipped) == Some(object(entry.into())));
    let position = usize::from(position) % flipped.len();
    flipped[position] ^= change;
    assert!(change == 0 || key.open(&flipped).is_none(), "byte {position} does not count");
    assert!(key.open(&flipped[..position]).is_none(), "a handle may be cut");
}
