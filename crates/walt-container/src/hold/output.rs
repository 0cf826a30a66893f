//! The last output of a shell, for the next client that attaches.
//!
//! Pieces are numbered. The attached client has read up to some number; while no client is attached, the oldest
//! pieces are dropped if there is too much. Pure: no descriptors, no waiting.

use super::protocol::{DATA_MAX, Kind};
use std::collections::VecDeque;
use std::rc::Rc;

/// How much is kept, in bytes: some hundred screens.
pub const KEEP: usize = 256 * 1024;
/// How many pieces are kept: bounds the cost of many tiny ones.
const KEEP_PIECES: usize = 4096;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which stream.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The kept output.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Rc<Piece>>,
    /// Number of the first kept piece.
    first: u64,
    bytes: usize,
    /// The number of the piece that the attached client gets next.
    reader: Option<u64>,
    ever_read: bool,
}

impl Output {
    fn end(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    /// How many bytes may be pushed now; 0 means that the client must read first.
    pub fn room(&mut self) -> usize {
        while self.bytes >= KEEP || self.pieces.len() >= KEEP_PIECES {
            let waited_for = self.reader.map_or(!self.ever_read, |next| next <= self.first);
            match self.pieces.front() {
                Some(piece) if !waited_for => self.bytes -= piece.bytes.len(),
                _ => return 0,
            }
            self.pieces.pop_front();
            self.first += 1;
        }
        (KEEP - self.bytes).min(DATA_MAX)
    }

    /// Keeps a piece, of at most [`Output::room`] bytes.
    pub fn push(&mut self, kind: Kind, bytes: &[u8]) {
        self.bytes += bytes.len();
        // Tiny pieces are joined while no client waits for them.
        if self.reader.is_none()
            && let Some(last) = self.pieces.back_mut()
            && last.kind == kind
            && last.bytes.len() + bytes.len() <= DATA_MAX
        {
            Rc::make_mut(last).bytes.extend_from_slice(bytes);
            return;
        }
        self.pieces.push_back(Rc::new(Piece { kind, bytes: bytes.to_owned() }));
    }

    /// Attaches a client, which gets everything that is kept. Returns whether older output was dropped.
    pub fn attach(&mut self) -> bool {
        self.ever_read = true;
        self.reader = Some(self.first);
        self.first > 0
    }

    /// The attached client is gone.
    pub fn detach(&mut self) {
        self.reader = None;
    }

    /// The next piece for the attached client.
    pub fn next(&mut self) -> Option<Rc<Piece>> {
        let next = self.reader.as_mut()?;
        let piece = self.pieces.get(usize::try_from(*next - self.first).ok()?)?;
        *next += 1;
        Some(Rc::clone(piece))
    }

    /// Whether the attached client got everything.
    pub fn drained(&self) -> bool {
        self.reader == Some(self.end())
    }

    /// Drops everything, since another shell starts.
    pub fn clear(&mut self) {
        let reading = self.reader.is_some();
        *self = Self { ever_read: reading, reader: reading.then_some(0), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(o: &mut Output) -> usize {
        let mut total = 0;
        loop {
            let room = o.room();
            if room == 0 || total > 4 * KEEP {
                return total;
            }
            o.push(Kind::Stdout, &vec![b'x'; room]);
            total += room;
        }
    }

    #[test]
    fn nothing_is_dropped_before_the_first_client() {
        let mut o = Output::default();
        assert_eq!(fill(&mut o), KEEP);
        assert!(!o.attach());
        assert_eq!(o.room(), 0);
        let mut read = 0;
        while let Some(piece) = o.next() {
            read += piece.bytes.len();
        }
        assert_eq!(read, KEEP);
        assert!(o.drained());
        assert!(o.room() > 0);
    }

    #[test]
    fn afterwards_the_oldest_goes_when_nobody_reads() {
        let mut o = Output::default();
        assert!(!o.attach());
        o.push(Kind::Stdout, b"first");
        assert_eq!(o.next().unwrap().bytes, b"first");
        o.detach();
        assert!(fill(&mut o) > 4 * KEEP);
        assert!(o.attach());
        assert_ne!(o.next().unwrap().bytes, b"first");
    }

    #[test]
    fn replay_starts_at_the_oldest_and_streams_stay_apart() {
        let mut o = Output::default();
        o.attach();
        o.push(Kind::Stdout, b"a");
        while o.next().is_some() {}
        o.detach();
        o.push(Kind::Stdout, b"b");
        o.push(Kind::Stderr, b"e");
        o.push(Kind::Stderr, b"f");
        o.attach();
        let all: Vec<_> = std::iter::from_fn(|| o.next()).map(|p| (p.kind, p.bytes.clone())).collect();
        assert_eq!(all, [(Kind::Stdout, b"ab".to_vec()), (Kind::Stderr, b"ef".to_vec())]);
    }
}
