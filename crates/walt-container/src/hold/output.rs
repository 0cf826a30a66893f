//! The last output of a shell, for the next client that attaches.
//!
//! Pieces are numbered. The attached client has read up to some number; while no client is attached, the oldest
//! pieces are dropped if there is too much. A client that lost its connection says how many bytes it has, and gets what
//! follows. Pure: no descriptors, no waiting.

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
    /// Bytes of the pieces that were dropped.
    dropped: u64,
    /// The number of the piece that the attached client gets next.
    reader: Option<u64>,
    /// Bytes of that piece that the client has.
    skip: usize,
    ever_read: bool,
    /// Number of the shell: each one's output is counted from 0.
    shell: u64,
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
                Some(piece) if !waited_for => {
                    self.bytes -= piece.bytes.len();
                    self.dropped += piece.bytes.len() as u64;
                }
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

    /// Attaches a client, which gets everything that is kept behind the first `from` bytes. Returns whether output
    /// between them and that was dropped, and how many bytes there were before what follows.
    pub fn attach(&mut self, from: Option<u64>) -> (bool, u64) {
        self.ever_read = true;
        let (mut number, mut at) = (self.first, self.dropped);
        self.skip = 0;
        let wanted = from.unwrap_or(0);
        for piece in &self.pieces {
            let length = piece.bytes.len() as u64;
            if at + length > wanted {
                // A piece has at most 32 KiB.
                self.skip = usize::try_from(wanted.saturating_sub(at)).unwrap_or(0);
                break;
            }
            (number, at) = (number + 1, at + length);
        }
        self.reader = Some(number);
        (wanted < self.dropped, at + self.skip as u64)
    }

    /// Number of the shell whose output this is.
    pub fn shell(&self) -> u64 {
        self.shell
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
        Some(match std::mem::take(&mut self.skip) {
            0 => Rc::clone(piece),
            skip => Rc::new(Piece { kind: piece.kind, bytes: piece.bytes[skip..].to_owned() }),
        })
    }

    /// Whether the attached client got everything.
    pub fn drained(&self) -> bool {
        self.reader == Some(self.end())
    }

    /// Drops everything, since another shell starts.
    pub fn clear(&mut self) {
        let reading = self.reader.is_some();
        let shell = self.shell + 1;
        *self = Self { ever_read: reading, reader: reading.then_some(0), shell, ..Self::default() };
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
        assert_eq!(o.attach(None), (false, 0));
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
        assert!(!o.attach(None).0);
        o.push(Kind::Stdout, b"first");
        assert_eq!(o.next().unwrap().bytes, b"first");
        o.detach();
        assert!(fill(&mut o) > 4 * KEEP);
        assert!(o.attach(None).0);
        assert_ne!(o.next().unwrap().bytes, b"first");
    }

    #[test]
    fn replay_starts_at_the_oldest_and_streams_stay_apart() {
        let mut o = Output::default();
        o.attach(None);
        o.push(Kind::Stdout, b"a");
        while o.next().is_some() {}
        o.detach();
        o.push(Kind::Stdout, b"b");
        o.push(Kind::Stderr, b"e");
        o.push(Kind::Stderr, b"f");
        o.attach(None);
        let all: Vec<_> = std::iter::from_fn(|| o.next()).map(|p| (p.kind, p.bytes.clone())).collect();
        assert_eq!(all, [(Kind::Stdout, b"ab".to_vec()), (Kind::Stderr, b"ef".to_vec())]);
    }

    #[test]
    fn a_client_that_comes_back_gets_what_it_has_not() {
        let mut o = Output::default();
        assert_eq!(o.attach(None), (false, 0));
        for text in ["abc", "def", "ghi"] {
            o.push(Kind::Stdout, text.as_bytes());
        }
        let rest = |o: &mut Output| -> Vec<u8> {
            std::iter::from_fn(|| o.next()).flat_map(|p| p.bytes.clone()).collect()
        };
        for (from, left) in [(0, "abcdefghi"), (1, "bcdefghi"), (3, "defghi"), (8, "i"), (9, "")] {
            assert_eq!(o.attach(Some(from)), (false, from));
            assert_eq!(String::from_utf8(rest(&mut o)).unwrap(), left);
            assert!(o.drained());
        }
        // What comes while nobody is attached, joined to a piece of which the client has a part.
        o.detach();
        o.push(Kind::Stdout, b"jkl");
        o.attach(Some(8));
        assert_eq!(rest(&mut o), b"ijkl");
        o.detach();
        fill(&mut o);
        let (truncated, at) = o.attach(Some(12));
        assert!(truncated && at > 12);
        let shell = o.shell();
        o.clear();
        assert_eq!((o.attach(Some(12)), o.shell()), ((false, 0), shell + 1));
    }
}
