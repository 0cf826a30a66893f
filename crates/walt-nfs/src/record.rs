//! Record marking (RFC 5531, section 11): RPC messages as fragments on a TCP stream.

/// Largest record that is accepted, in bytes: one WRITE of [`crate::nfs3::MAX_TRANSFER`] and its headers.
pub const MAX_RECORD: usize = crate::nfs3::MAX_TRANSFER as usize + 4096;

/// Most fragments one record may have. Clients send one; RFC 5531 allows any number, and empty ones.
pub const MAX_FRAGMENTS: u32 = 64;

const LAST: u32 = 0x8000_0000;

/// The stream cannot be followed any further: the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The announced length passes [`MAX_RECORD`].
    #[error("an RPC record of more than {MAX_RECORD} bytes was announced")]
    TooLong,
    /// More than [`MAX_FRAGMENTS`] fragments.
    #[error("an RPC record of more than {MAX_FRAGMENTS} fragments was sent")]
    TooManyFragments,
}

/// What the reader of the stream has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Append this many bytes of payload to the record, then read a mark again if `last` is false.
    Fragment {
        /// Payload bytes.
        len: usize,
        /// The record ends with this fragment.
        last: bool,
    },
}

/// Checks the marks of one record. Make a new one for each record.
#[derive(Debug, Default)]
pub struct Assembler {
    total: usize,
    fragments: u32,
}

impl Assembler {
    /// Judges a fragment mark before any memory is spent on the fragment.
    ///
    /// # Errors
    /// The record would become too long or has too many fragments.
    pub fn mark(&mut self, mark: [u8; 4]) -> Result<Next, BadRecord> {
        let mark = u32::from_be_bytes(mark);
        let len = (mark & !LAST) as usize;
        self.fragments += 1;
        if self.fragments > MAX_FRAGMENTS {
            return Err(BadRecord::TooManyFragments);
        }
        // Both are below 2^31 and total is at most MAX_RECORD: no overflow.
        if self.total + len > MAX_RECORD {
            return Err(BadRecord::TooLong);
        }
        self.total += len;
        Ok(Next::Fragment { len, last: mark & LAST != 0 })
    }
}

/// Room for the mark at the front of a reply; [`frame`] fills it.
pub const MARK_ROOM: [u8; 4] = [0; 4];

/// Writes the mark of a reply that was built behind [`MARK_ROOM`].
pub fn frame(reply: &mut [u8]) {
    if let Some((mark, body)) = reply.split_first_chunk_mut::<4>() {
        // Replies are bounded by MAX_TRANSFER and headers, far below 2^31.
        *mark = (body.len() as u32 | LAST).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let mut a = Assembler::default();
        assert_eq!(a.mark([0, 0, 0, 8]), Ok(Next::Fragment { len: 8, last: false }));
        assert_eq!(a.mark([0x80, 0, 0, 4]), Ok(Next::Fragment { len: 4, last: true }));
        assert_eq!(Assembler::default().mark([0xff; 4]), Err(BadRecord::TooLong));
        assert_eq!(Assembler::default().mark([0x7f, 0xff, 0xff, 0xff]), Err(BadRecord::TooLong));
        let mut a = Assembler::default();
        assert!(a.mark((MAX_RECORD as u32).to_be_bytes()).is_ok());
        assert_eq!(a.mark([0x80, 0, 0, 1]), Err(BadRecord::TooLong));
        let mut a = Assembler::default();
        for _ in 0..MAX_FRAGMENTS {
            assert!(a.mark([0; 4]).is_ok());
        }
        assert_eq!(a.mark([0; 4]), Err(BadRecord::TooManyFragments));
    }

    #[test]
    fn framed() {
        let mut reply = MARK_ROOM.to_vec();
        reply.extend([1, 2, 3, 4]);
        frame(&mut reply);
        assert_eq!(reply, [0x80, 0, 0, 4, 1, 2, 3, 4]);
    }
}
