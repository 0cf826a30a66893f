//! What a client's calls have done, on the disk: so that a call that is sent again after the server was
//! killed gets its first answer and not `NFS3ERR_EXIST` or `NFS3ERR_NOENT`.
//!
//! A call that must not run twice writes an *intent* before it acts and its *result* after:
//!
//! ```text
//!   (nothing) ──begin──► intent ──finish──► result          on a retry:
//!       │                   │                  └──────────── answered as it is
//!       │                   └─ killed here ───────────────── decided from the tree: see persist
//!       └─ killed here ───────────────────────────────────── runs
//! ```
//! One file per export with [`SLOTS`] slots, used in turn. That is enough because an export has one client
//! and a client resends only what was not answered. Calls are known by transaction id, procedure and a
//! checksum of the arguments, without the source port. A mount does not empty the ring: the client may
//! have other mounts of the export, with calls that wait for their answer; a rebooted client starts from
//! another, random transaction id.
//!
//! The file gets all its blocks when it is made, so that a full disk has room for it; where it could not, calls
//! that make room run without an intent. A slot whose call still runs is not used again. A file of another
//! length, or of damaged slots, is a ring with fewer answers.
//!
//! Limits: the file survives the death of the process, not of the kernel: it is not synced (a power cut
//! also ends the connections, and the clients' retries then may see their own work as done by another).

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use walt_nfs::{CallKey, KernelHandle};

/// Slots of one export. A client has far fewer unanswered calls: [`super::serve`] bounds them.
pub const SLOTS: usize = 256;
/// Bytes of a slot on the disk.
const SLOT: usize = 512;
/// Bytes of the file.
const FILE_LEN: u64 = (SLOTS * SLOT) as u64;
/// Longest result that fits: the longest there is, CREATE's, has 280 bytes.
const MAX_RESULT: usize = SLOT - HEAD;
/// Bytes before the result: sum 8, sequence 8, xid 4, procedure 4, checksum 8, state 1, absent 1,
/// handle length 1, spare 1, handle type 4, handle 40, result length 2.
const HEAD: usize = 82;

const INTENT: u8 = 1;
const RESULT: u8 = 2;

/// How things were before a call acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Intent {
    /// The file that is removed, renamed or linked.
    pub inode: Option<KernelHandle>,
    /// The name that is made did not exist.
    pub absent: bool,
}

#[derive(Debug, Clone)]
struct Slot {
    sequence: u64,
    key: CallKey,
    intent: Intent,
    result: Option<Vec<u8>>,
}

/// The ring of one export.
pub struct Ring {
    file: File,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    slots: HashMap<usize, Slot>,
    /// Slots of calls that this process has begun and not finished.
    running: HashSet<usize>,
    by_key: HashMap<CallKey, usize>,
}

impl Ring {
    /// Opens or makes the file. Slots that are damaged count as empty.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() < FILE_LEN {
            // Zeros and not a hole: some file systems find a place for reserved blocks only when they are written.
            let from = file.metadata()?.len();
            if let Err(error) = file.write_all_at(&vec![0; (FILE_LEN - from) as usize], from) {
                tracing::warn!(path = %path.display(), %error, "no room for the ring of an export");
            }
        }
        let mut state = State::default();
        let mut bytes = [0; SLOT];
        for index in 0..SLOTS {
            match file.read_exact_at(&mut bytes, (index * SLOT) as u64) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(e) => return Err(e),
            }
            if let Some(slot) = decode(&bytes) {
                state.next = state.next.max(slot.sequence + 1);
                let newer = |old: &usize| state.slots.get(old).is_some_and(|s| s.sequence > slot.sequence);
                if !state.by_key.get(&slot.key).is_some_and(newer) {
                    state.by_key.insert(slot.key, index);
                }
                state.slots.insert(index, slot);
            }
        }
        Ok(Self { file, state: Mutex::new(state) })
    }

    /// The result of a call that has run.
    pub fn reply(&self, key: &CallKey) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.slots.get(state.by_key.get(key)?)?.result.clone()
    }

    /// Writes the intent of a call that is about to act. If there is one already, the call was cut short
    /// by the death of the server: that one is returned and kept.
    ///
    /// # Errors
    /// The intent cannot be written: the call must not act.
    pub fn begin(&self, key: &CallKey, intent: Intent) -> io::Result<Option<Intent>> {
        let mut state = self.state.lock();
        if let Some(index) = state.by_key.get(key).copied()
            && let Some(intent) = state.slots.get(&index).map(|slot| slot.intent)
        {
            state.running.insert(index);
            return Ok(Some(intent));
        }
        let index = self.add(&mut state, key, intent, None)?;
        state.running.insert(index);
        Ok(None)
    }

    /// Keeps the result of a call, whether it had an intent or failed before.
    pub fn finish(&self, key: &CallKey, result: &[u8]) {
        let mut state = self.state.lock();
        let index = state.by_key.get(key).copied();
        if let Some(index) = index {
            state.running.remove(&index);
        }
        let written = match index {
            Some(index) => match state.slots.get_mut(&index) {
                Some(slot) => {
                    slot.result = Some(result.to_vec());
                    let bytes = encode(slot);
                    self.file.write_all_at(&bytes, (index * SLOT) as u64)
                }
                None => Ok(()),
            },
            None => self.add(&mut state, key, Intent::default(), Some(result.to_vec())).map(drop),
        };
        if let Err(error) = written {
            // The call is done and its answer is on the way: a retry after a crash may get another one.
            tracing::error!(%error, "cannot write to the ring of an export");
        }
    }

    fn add(
        &self,
        state: &mut State,
        key: &CallKey,
        intent: Intent,
        result: Option<Vec<u8>>,
    ) -> io::Result<usize> {
        let place = |sequence: u64| (sequence % SLOTS as u64) as usize;
        // Far fewer calls run at a time than there are slots: `serve` bounds them. Were it not so, the oldest
        // would have to go.
        let free = (state.next..).take(SLOTS).find(|s| !state.running.contains(&place(*s)));
        let sequence = free.unwrap_or(state.next);
        let index = place(sequence);
        let slot = Slot { sequence, key: *key, intent, result };
        self.file.write_all_at(&encode(&slot), (index * SLOT) as u64)?;
        state.next = sequence + 1;
        state.running.remove(&index);
        if let Some(old) = state.slots.insert(index, slot)
            && state.by_key.get(&old.key) == Some(&index)
        {
            state.by_key.remove(&old.key);
        }
        state.by_key.insert(*key, index);
        Ok(index)
    }

    /// A call that was begun has ended without a result that is worth keeping.
    pub fn release(&self, key: &CallKey) {
        let mut state = self.state.lock();
        if let Some(index) = state.by_key.get(key).copied() {
            state.running.remove(&index);
        }
    }
}

fn sum(body: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(body);
    let b = hash.as_bytes();
    [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]
}

fn encode(slot: &Slot) -> [u8; SLOT] {
    let mut out = [0; SLOT];
    let mut at = 8;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&slot.sequence.to_le_bytes());
    put(&slot.key.xid.to_le_bytes());
    put(&slot.key.procedure.to_le_bytes());
    put(&slot.key.checksum.to_le_bytes());
    put(&[if slot.result.is_some() { RESULT } else { INTENT }, slot.intent.absent.into()]);
    let mut handle = [0; 40];
    let (kind, len) = match &slot.intent.inode {
        Some(h) => {
            handle[..h.bytes().len()].copy_from_slice(h.bytes());
            (h.kind, h.bytes().len() as u8)
        }
        None => (0, 0),
    };
    put(&[len, 0]);
    put(&kind.to_le_bytes());
    put(&handle);
    let result = slot.result.as_deref().unwrap_or_default();
    let result = &result[..result.len().min(MAX_RESULT)];
    put(&(result.len() as u16).to_le_bytes());
    put(result);
    let sum = sum(&out[8..]);
    out[..8].copy_from_slice(&sum);
    out
}

fn decode(bytes: &[u8; SLOT]) -> Option<Slot> {
    if bytes[..8] != sum(&bytes[8..]) {
        return None;
    }
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
    let key = CallKey { xid: u32_at(16)?, procedure: u32_at(20)?, checksum: u64_at(24)? };
    let len = usize::from(bytes[34]);
    let inode =
        if len == 0 { None } else { Some(KernelHandle::new(u32_at(36)? as i32, bytes.get(40..40 + len)?)?) };
    let intent = Intent { inode, absent: bytes[33] == 1 };
    let result = match bytes[32] {
        INTENT => None,
        RESULT => {
            let len = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
            Some(bytes.get(HEAD..HEAD + len)?.to_vec())
        }
        _ => return None,
    };
    Some(Slot { sequence: u64_at(8)?, key, intent, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(xid: u32) -> CallKey {
        CallKey { xid, procedure: 9, checksum: 7 }
    }

    #[test]
    fn survives_reopening() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("1.ring");
        let inode = KernelHandle::new(1, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let intent = Intent { inode, absent: true };
        let ring = Ring::open(&path).unwrap();
        assert_eq!(ring.begin(&key(1), intent).unwrap(), None);
        assert_eq!(ring.begin(&key(2), Intent::default()).unwrap(), None);
        ring.finish(&key(2), b"done");
        ring.finish(&key(3), b"failed early");
        drop(ring);
        let ring = Ring::open(&path).unwrap();
        assert_eq!(ring.reply(&key(1)), None);
        assert_eq!(ring.begin(&key(1), Intent::default()).unwrap(), Some(intent));
        assert_eq!(ring.reply(&key(2)).as_deref(), Some(&b"done"[..]));
        assert_eq!(ring.reply(&key(3)).as_deref(), Some(&b"failed early"[..]));
        assert_eq!(ring.reply(&CallKey { checksum: 8, ..key(2) }), None);
    }

    #[test]
    fn old_slots_are_used_again() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("1.ring");
        let ring = Ring::open(&path).unwrap();
        for xid in 0..(SLOTS as u32 + 10) {
            ring.begin(&key(xid), Intent::default()).unwrap();
            ring.finish(&key(xid), &xid.to_be_bytes());
        }
        for ring in [ring, Ring::open(&path).unwrap()] {
            assert_eq!(ring.reply(&key(9)), None);
            assert_eq!(ring.reply(&key(10)), Some(10u32.to_be_bytes().to_vec()));
            assert_eq!(ring.reply(&key(265)), Some(265u32.to_be_bytes().to_vec()));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (SLOTS * SLOT) as u64);
    }

    #[test]
    fn a_running_call_keeps_its_slot() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("1.ring");
        let ring = Ring::open(&path).unwrap();
        let intent = Intent { inode: None, absent: true };
        ring.begin(&key(0), intent).unwrap();
        for xid in 1..(3 * SLOTS as u32) {
            ring.begin(&key(xid), Intent::default()).unwrap();
            ring.finish(&key(xid), b"done");
        }
        assert_eq!(Ring::open(&path).unwrap().begin(&key(0), Intent::default()).unwrap(), Some(intent));
        ring.finish(&key(0), b"slow");
        assert_eq!(ring.reply(&key(0)).as_deref(), Some(&b"slow"[..]));
        // Once it has its result it goes like the others; so does one that was asked to come again later.
        ring.begin(&key(1 << 20), intent).unwrap();
        ring.release(&key(1 << 20));
        for xid in 0..(2 * SLOTS as u32) {
            ring.finish(&key((2 << 20) + xid), b"done");
        }
        assert_eq!(ring.reply(&key(0)), None);
        assert_eq!(ring.begin(&key(1 << 20), Intent::default()).unwrap(), None);
    }

    #[test]
    fn more_running_calls_than_slots() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("1.ring");
        let ring = Ring::open(&path).unwrap();
        for xid in 0..(2 * SLOTS as u32) {
            assert_eq!(ring.begin(&key(xid), Intent::default()).unwrap(), None);
        }
        for xid in 0..(2 * SLOTS as u32) {
            ring.finish(&key(xid), b"done");
        }
        assert_eq!(ring.reply(&key(2 * SLOTS as u32 - 1)).as_deref(), Some(&b"done"[..]));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_LEN);
    }

    #[test]
    fn a_damaged_file_is_a_ring() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("1.ring");
        for length in [0, 1, SLOT - 1, SLOT * 3 + 7, SLOT * (SLOTS + 2)] {
            std::fs::write(&path, vec![0x5a; length]).unwrap();
            let ring = Ring::open(&path).unwrap();
            assert_eq!(ring.begin(&key(1), Intent::default()).unwrap(), None, "{length}");
            ring.finish(&key(1), b"done");
            assert_eq!(Ring::open(&path).unwrap().reply(&key(1)).as_deref(), Some(&b"done"[..]), "{length}");
        }
    }

    #[test]
    fn damage_is_an_empty_slot() {
        let mut slot = encode(&Slot { sequence: 1, key: key(1), intent: Intent::default(), result: None });
        assert!(decode(&slot).is_some());
        slot[100] ^= 1;
        assert!(decode(&slot).is_none());
        assert!(decode(&[0; SLOT]).is_none());
    }
}
