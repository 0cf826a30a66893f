//! Prefetching a layer tar: one thread reads, decompresses and hashes it while another one writes the files.

use crate::{
    compression::{decompress, read_buffered},
    error::{Error, Result},
};
use sha2::{Digest, Sha256};
use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};
use walt_types::{DiffId, Hash256};

/// Bytes of the tar that are handed over at a time.
const CHUNK: usize = 1 << 18;
/// Most chunks that wait to be written.
const CHUNKS: usize = 8;

/// Digest and size of the tar that was read.
pub(crate) struct TarDigest {
    /// SHA-256 of the plain tar.
    pub diff_id: DiffId,
    /// Its size in bytes.
    pub size: u64,
}

/// The decompressed tar, as it arrives from the reading thread.
pub(crate) struct Prefetched {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl BufRead for Prefetched {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            self.at = 0;
            // A closed channel is the end of the tar.
            let next = self.full.recv().unwrap_or_else(|_| Ok(Vec::new()));
            let used = std::mem::take(&mut self.chunk);
            if used.capacity() > 0 {
                // At the end of the tar, the reading thread is gone.
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

impl Read for Prefetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// Calls `work` with the decompressed bytes of `tar` (see [`crate::compression`]), and returns what it returned with the
/// digest of the tar. `work` must read to the end.
///
/// # Errors
/// Those of `work`, to which errors of reading are passed on.
pub(crate) fn prefetch<T>(
    tar: impl Read + Send,
    work: impl FnOnce(&mut Prefetched) -> Result<T>,
) -> Result<(T, TarDigest)> {
    thread::scope(|scope| {
        let (full_sender, full) = sync_channel(CHUNKS);
        let (empty, empty_receiver) = channel();
        let reader = thread::Builder::new()
            .name("walt-tar".into())
            .spawn_scoped(scope, move || read(tar, &full_sender, &empty_receiver))
            .map_err(|e| Error::Layer(format!("cannot start a thread to read the tar: {e}")))?;
        let mut prefetched = Prefetched { full, empty, chunk: Vec::new(), at: 0 };
        let done = work(&mut prefetched);
        // The reading thread ends once its chunks have no receiver.
        drop(prefetched);
        let sum = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done?, sum))
    })
}

/// Sends all of `tar`, or an error as the last chunk.
fn read(tar: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) -> TarDigest {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let send = || -> io::Result<()> {
        let mut tar = decompress(tar)?;
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
        // A receiver that is gone has failed with an error of its own.
        let _ = full.send(Err(e));
    }
    TarDigest { diff_id: DiffId(Hash256(hash.finalize().into())), size }
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
