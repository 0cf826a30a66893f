//! Reading a tar ahead: decompression and the sum go on in a thread of their own, while files are made of what came.

use crate::{
    compression::{plain, read_buffered},
    error::{Error, Result},
};
use sha2::{Digest, Sha256};
use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};
use walt_types::{DiffId, Hash256};

/// Bytes of the tar that are handed over at once.
const CHUNK: usize = 1 << 18;
/// Chunks that wait for the files to be made.
const CHUNKS: usize = 8;

/// What was read.
pub(crate) struct Sum {
    /// SHA-256 of the plain tar.
    pub diff_id: DiffId,
    /// Its bytes.
    pub size: u64,
}

/// The plain tar.
pub(crate) struct Ahead {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            self.at = 0;
            // A closed channel is the end of the tar.
            let next = self.full.recv().unwrap_or_else(|_| Ok(Vec::new()));
            let used = std::mem::take(&mut self.chunk);
            if used.capacity() > 0 {
                // At the end nobody takes it.
                let _ = self.empty.send(used);
            }
            self.chunk = next?;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.chunk.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// Lets `work` read the plain tar that `tar` is (plain or compressed, see [`crate::compression`]) to its end, and gives its sum.
///
/// # Errors
/// Those of `work`, which is told of what cannot be read.
pub(crate) fn read_ahead<T>(
    tar: impl Read + Send,
    work: impl FnOnce(&mut Ahead) -> Result<T>,
) -> Result<(T, Sum)> {
    thread::scope(|scope| {
        let (full_sender, full) = sync_channel(CHUNKS);
        let (empty, empty_receiver) = channel();
        let reader = thread::Builder::new()
            .name("walt-tar".into())
            .spawn_scoped(scope, move || read(tar, &full_sender, &empty_receiver))
            .map_err(|e| Error::Layer(format!("a thread to read the tar cannot be started: {e}")))?;
        let mut ahead = Ahead { full, empty, chunk: Vec::new(), at: 0 };
        let done = work(&mut ahead);
        // The reader ends when nobody takes its chunks.
        drop(ahead);
        let sum = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done?, sum))
    })
}

/// Sends all of `tar`, or an error as the last chunk.
fn read(tar: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) -> Sum {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let send = || -> io::Result<()> {
        let mut tar = plain(tar)?;
        loop {
            let mut chunk = empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
            chunk.resize(CHUNK, 0);
            let n = fill(&mut tar, &mut chunk)?;
            chunk.truncate(n);
            hash.update(&chunk);
            size += n as u64;
            if n == 0 || full.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(e) = send() {
        // Whoever does not listen has an error of its own.
        let _ = full.send(Err(e));
    }
    Sum { diff_id: DiffId(Hash256(hash.finalize().into())), size }
}

/// Reads until `chunk` is full or the tar ends.
fn fill(tar: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match tar.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
