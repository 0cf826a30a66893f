//! External data representation (RFC 4506), the part that ONC RPC and NFS need.
//!
//! Everything read borrows from the record, and every length is checked against the bytes that are
//! really there, so that an announced length never becomes an allocation.

/// The bytes are not what the protocol says. Answered `GARBAGE_ARGS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed XDR: the arguments end early, or a length or choice is out of range")]
pub struct Malformed;

/// Result of a decoder.
pub type Result<T> = std::result::Result<T, Malformed>;

/// Reads values from the front of a byte slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    /// An unsigned int.
    pub fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// An unsigned hyper.
    pub fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// A boolean: 0 or 1, nothing else.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Fixed-length opaque of eight bytes (cookie, create and write verifiers).
    pub fn verifier(&mut self) -> Result<[u8; 8]> {
        self.take()
    }

    /// Variable-length opaque or string of at most `max` bytes, without its padding.
    pub fn opaque(&mut self, max: usize) -> Result<&'a [u8]> {
        let len = self.u32()? as usize;
        let padded = len.checked_next_multiple_of(4).ok_or(Malformed)?;
        if len > max || padded > self.0.len() {
            return Err(Malformed);
        }
        let (data, tail) = self.0.split_at(padded);
        self.0 = tail;
        Ok(&data[..len])
    }
}

/// Appends values to a reply.
pub trait Write {
    /// An unsigned int.
    fn put_u32(&mut self, v: u32);
    /// An unsigned hyper.
    fn put_u64(&mut self, v: u64);
    /// A boolean.
    fn put_bool(&mut self, v: bool) {
        self.put_u32(v.into());
    }
    /// Variable-length opaque or string, with its padding.
    fn put_opaque(&mut self, v: &[u8]);
    /// Zero bytes up to a multiple of four after `len` bytes of payload.
    fn put_padding(&mut self, len: usize);
}

impl Write for Vec<u8> {
    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put_opaque(&mut self, v: &[u8]) {
        // Replies carry names, targets and handles: far below 2^32 bytes.
        self.put_u32(v.len() as u32);
        self.extend_from_slice(v);
        self.put_padding(v.len());
    }
    fn put_padding(&mut self, len: usize) {
        self.extend_from_slice(&[0; 3][..(4 - len % 4) % 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn opaque_never_trusts_the_length() {
        for (bytes, max, want) in [
            (&[0, 0, 0, 3, 1, 2, 3, 0][..], 8, Ok(&[1, 2, 3][..])),
            (&[0, 0, 0, 3, 1, 2, 3, 0], 3, Ok(&[1, 2, 3])),
            (&[0, 0, 0, 3, 1, 2, 3, 0], 2, Err(Malformed)),
            (&[0, 0, 0, 3, 1, 2, 3], 8, Err(Malformed)),
            (&[0xff, 0xff, 0xff, 0xff], usize::MAX, Err(Malformed)),
            (&[0, 0, 0, 0], 0, Ok(&[])),
            (&[0, 0, 0], 8, Err(Malformed)),
        ] {
            assert_eq!(Reader::new(bytes).opaque(max), want, "{bytes:?} max {max}");
        }
    }

    #[test]
    fn booleans_are_0_or_1() {
        for (bytes, want) in
            [([0, 0, 0, 0], Ok(false)), ([0, 0, 0, 1], Ok(true)), ([0, 0, 0, 2], Err(Malformed))]
        {
            assert_eq!(Reader::new(&bytes).bool(), want, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u32, b: u64, c in proptest::collection::vec(any::<u8>(), 0..40), d: bool) {
            let mut out = Vec::new();
            out.put_u32(a);
            out.put_opaque(&c);
            out.put_u64(b);
            out.put_bool(d);
            prop_assert_eq!(out.len() % 4, 0);
            let mut r = Reader::new(&out);
            prop_assert_eq!((r.u32(), r.opaque(40), r.u64(), r.bool()), (Ok(a), Ok(&c[..]), Ok(b), Ok(d)));
            prop_assert!(r.rest().is_empty());
        }
    }
}
