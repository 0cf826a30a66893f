//! gzip on all CPUs: each piece of the input becomes a member of its own (RFC 1952 §2.2 allows many).
//!
//! The result depends on the input and on [`PIECE`] and [`LEVEL`] only, not on the number of CPUs or on timing.

use flate2::{Compression, write::GzEncoder};
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

/// Bytes of a member, uncompressed.
const PIECE: usize = 1 << 20;
/// Between size and time: layers are written once and read over networks.
const LEVEL: u32 = 4;
/// Most threads of one stream.
const MAX_THREADS: usize = 8;

type Done = Receiver<io::Result<Vec<u8>>>;

/// Compresses what is written to it.
pub struct ParallelGzip<W: Write> {
    out: W,
    piece: Vec<u8>,
    /// Pieces under way, in their order.
    under_way: VecDeque<Done>,
    threads: usize,
    written: bool,
}

impl<W: Write> ParallelGzip<W> {
    /// A stream to `out`.
    pub fn new(out: W) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        Self { out, piece: Vec::with_capacity(PIECE), under_way: VecDeque::new(), threads, written: false }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.written = true;
        if self.under_way.len() >= self.threads {
            self.receive()?;
        }
        let (sender, receiver) = sync_channel(1);
        thread::Builder::new().name("gzip".into()).spawn(move || {
            // The stream may have been dropped.
            let _ = sender.send(compress(&piece));
        })?;
        self.under_way.push_back(receiver);
        Ok(())
    }

    /// Writes the oldest piece under way.
    fn receive(&mut self) -> io::Result<()> {
        let Some(receiver) = self.under_way.pop_front() else { return Ok(()) };
        let member = receiver.recv().map_err(|_| io::Error::other("a compressing thread has ended"))??;
        self.out.write_all(&member)
    }

    /// Writes what is left. An empty input becomes one empty member.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.piece.is_empty() || !self.written {
            self.send()?;
        }
        while !self.under_way.is_empty() {
            self.receive()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(piece.len() / 2), Compression::new(LEVEL));
    encoder.write_all(piece)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        process::{Command, Stdio},
    };

    #[test]
    fn pieces_come_back_in_order() {
        let text: Vec<u8> = (0u32..900_000).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for input in [&text[..], &text[..PIECE], &text[..1], b""] {
            let make = |threads| {
                let mut stream = ParallelGzip { threads, ..ParallelGzip::new(Vec::new()) };
                stream.write_all(input).unwrap();
                stream.finish().unwrap()
            };
            let bytes = make(3);
            assert_eq!(bytes, make(1), "threads make no difference");
            let mut back = Vec::new();
            flate2::bufread::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut back).unwrap();
            assert!(back == input);
            // And as everybody else reads it.
            let mut gzip =
                Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut stdin = gzip.stdin.take().unwrap();
            let copy = bytes.clone();
            let writer = thread::spawn(move || stdin.write_all(&copy).unwrap());
            assert!(gzip.wait_with_output().unwrap().stdout == input);
            writer.join().unwrap();
        }
    }
}
