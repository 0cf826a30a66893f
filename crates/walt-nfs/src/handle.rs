//! File handles: what they name, and a keyed MAC that proves that we gave them out.
//!
//! ```text
//!  byte 0  1      2                                 n-8        n
//!  ┌─────┬──────┬─────────────────────────────────┬───────────┐
//!  │  1  │ kind │ view: view id (32), entry (4)   │ SipHash   │  46 bytes
//!  │     │      │ persist: export (8), type (4),  │ -2-4 of   │  at most 62 bytes
//!  │     │      │          kernel handle (1..=40) │ all before│
//!  └─────┴──────┴─────────────────────────────────┴───────────┘
//! ```
//! Handles live as long as the secret, the view or the inode: a server may be restarted or upgraded
//! under running nodes. A change of this format needs a new version byte, and the old one kept readable.

use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use walt_types::{Hash256, ViewId};

/// Longest handle of NFSv3 (RFC 1813, section 2.4, `NFS3_FHSIZE`).
pub const MAX_HANDLE: usize = 64;
/// Longest file handle of the kernel that fits. ext4 has 8 bytes, tmpfs 12, xfs and btrfs up to 40.
pub const MAX_KERNEL_HANDLE: usize = 40;
/// Bytes of the secret.
pub const SECRET_LEN: usize = 16;

const VERSION: u8 = 1;
const VIEW: u8 = 1;
const PERSIST: u8 = 2;
const MAC_LEN: usize = 8;

/// A file handle of the kernel, as `name_to_handle_at(2)` gives it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelHandle {
    /// `handle_type`.
    pub kind: i32,
    len: u8,
    bytes: [u8; MAX_KERNEL_HANDLE],
}

impl KernelHandle {
    /// `None` if it is empty or longer than [`MAX_KERNEL_HANDLE`].
    pub fn new(kind: i32, handle: &[u8]) -> Option<Self> {
        if handle.is_empty() || handle.len() > MAX_KERNEL_HANDLE {
            return None;
        }
        let mut bytes = [0; MAX_KERNEL_HANDLE];
        bytes[..handle.len()].copy_from_slice(handle);
        Some(Self { kind, len: handle.len() as u8, bytes })
    }
    /// `f_handle`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

impl std::fmt::Debug for KernelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KernelHandle({}, {:02x?})", self.kind, self.bytes())
    }
}

/// What a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// An entry of a view, read-only.
    View {
        /// The view.
        view: ViewId,
        /// The entry's number in the view's index.
        entry: u32,
    },
    /// A file of a `/persist` export.
    Persist {
        /// The export's number.
        export: u64,
        /// The file.
        file: KernelHandle,
    },
}

/// The secret that signs handles. Kept for the life of the state directory.
#[derive(Clone)]
pub struct HandleKey(SipHasher24);

impl HandleKey {
    /// From the secret's bytes.
    pub fn new(secret: &[u8; SECRET_LEN]) -> Self {
        Self(SipHasher24::new_with_key(secret))
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_LEN] {
        let mut h = self.0;
        h.write(bytes);
        h.finish().to_be_bytes()
    }

    /// Encodes an object as a handle.
    pub fn seal(&self, object: &Object) -> Sealed {
        let mut s = Sealed { len: 0, bytes: [0; MAX_HANDLE] };
        match object {
            Object::View { view, entry } => {
                s.push(&[VERSION, VIEW]);
                s.push(&view.0.0);
                s.push(&entry.to_be_bytes());
            }
            Object::Persist { export, file } => {
                s.push(&[VERSION, PERSIST]);
                s.push(&export.to_be_bytes());
                s.push(&file.kind.to_be_bytes());
                s.push(file.bytes());
            }
        }
        let mac = self.mac(s.as_slice());
        s.push(&mac);
        s
    }

    /// Decodes a handle that was sealed with this key; `None` for anything else.
    pub fn open(&self, handle: &[u8]) -> Option<Object> {
        let (body, mac) = handle.split_last_chunk::<MAC_LEN>()?;
        // Compared as integers: the time does not reveal how many bytes were right.
        if u64::from_be_bytes(*mac) != u64::from_be_bytes(self.mac(body)) {
            return None;
        }
        let (version, body) = body.split_first()?;
        let (kind, body) = body.split_first()?;
        match (*version, *kind) {
            (VERSION, VIEW) => {
                let (id, entry) = body.split_first_chunk::<32>()?;
                let entry = u32::from_be_bytes(entry.try_into().ok()?);
                Some(Object::View { view: ViewId(Hash256(*id)), entry })
            }
            (VERSION, PERSIST) => {
                let (export, body) = body.split_first_chunk::<8>()?;
                let (kind, file) = body.split_first_chunk::<4>()?;
                let file = KernelHandle::new(i32::from_be_bytes(*kind), file)?;
                Some(Object::Persist { export: u64::from_be_bytes(*export), file })
            }
            _ => None,
        }
    }
}

/// Whether a handle claims to name a `/persist` file. Says nothing about its MAC: for scheduling only.
pub fn claims_persist(handle: &[u8]) -> bool {
    handle.get(1) == Some(&PERSIST)
}

/// An encoded handle.
#[derive(Clone, Copy)]
pub struct Sealed {
    len: u8,
    bytes: [u8; MAX_HANDLE],
}

impl Sealed {
    fn push(&mut self, part: &[u8]) {
        let at = usize::from(self.len);
        // The largest is 2 + 8 + 4 + 40 + 8 = 62 bytes: it always fits.
        self.bytes[at..at + part.len()].copy_from_slice(part);
        self.len += part.len() as u8;
    }
    /// The bytes that go on the wire.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objects() -> impl Strategy<Value = Object> {
        prop_oneof![
            (any::<[u8; 32]>(), any::<u32>())
                .prop_map(|(v, entry)| Object::View { view: ViewId(Hash256(v)), entry }),
            (any::<u64>(), any::<i32>(), proptest::collection::vec(any::<u8>(), 1..=MAX_KERNEL_HANDLE))
                .prop_map(|(export, kind, h)| Object::Persist {
                    export,
                    file: KernelHandle::new(kind, &h).expect("1 to 40 bytes")
                }),
        ]
    }

    /// Nodes keep handles over restarts and upgrades of the server: these have to be opened for ever. Their
    /// last 8 bytes were calculated by another SipHash-2-4, which gives the example of its paper (appendix A).
    #[test]
    fn the_format_stays() {
        let key = HandleKey::new(&std::array::from_fn(|n| n as u8));
        let file = KernelHandle::new(1, &[1, 2, 3, 4, 5, 6, 7, 8]).expect("8 bytes");
        assert_eq!(format!("{file:?}"), "KernelHandle(1, [01, 02, 03, 04, 05, 06, 07, 08])");
        let view = Object::View { view: ViewId(Hash256([9; 32])), entry: 0x102 };
        let entry = [&[1, 1][..], &[9; 32], &[0, 0, 1, 2]].concat();
        let persist = Object::Persist { export: 7, file };
        let export = [1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8].to_vec();
        for (object, body, mac) in
            [(view, entry, 0xf3d1_b229_cd38_94e6_u64), (persist, export, 0x796e_06b7_c22a_f3ef)]
        {
            let handle = [body, mac.to_be_bytes().to_vec()].concat();
            assert_eq!(key.seal(&object).as_slice(), handle);
            assert_eq!(key.open(&handle), Some(object));
            assert_eq!(claims_persist(&handle), matches!(object, Object::Persist { .. }));
        }
    }

    #[test]
    fn handles_of_the_kernel_have_1_to_40_bytes() {
        for (len, fits) in [(0, false), (1, true), (40, true), (41, false)] {
            let bytes = vec![7; len];
            let handle = KernelHandle::new(1, &bytes);
            assert_eq!(handle.map(|h| h.bytes().to_vec()), fits.then_some(bytes), "{len}");
        }
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed(object in objects(), flip in any::<prop::sample::Index>(), bit in 0u8..8, cut in 0usize..64) {
            let key = HandleKey::new(&[3; SECRET_LEN]);
            let sealed = key.seal(&object);
            prop_assert!(sealed.as_slice().len() <= MAX_HANDLE);
            prop_assert_eq!(key.open(sealed.as_slice()), Some(object));
            prop_assert_eq!(HandleKey::new(&[4; SECRET_LEN]).open(sealed.as_slice()), None);
            let mut bad = sealed.as_slice().to_vec();
            let at = flip.index(bad.len());
            bad[at] ^= 1 << bit;
            prop_assert_eq!(key.open(&bad), None);
            let whole = sealed.as_slice();
            if cut < whole.len() {
                prop_assert_eq!(key.open(&whole[..cut]), None);
            }
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(HandleKey::new(&[3; SECRET_LEN]).open(&bytes), None);
        }
    }
}
