//! Files with holes: reading, comparing and copying them costs what their data costs, not what their size suggests.
//!
//! Space that was reserved and never written (fallocate(2)) counts as a hole, since the kernel says so.

use crate::cancel;
use rustix::{fs::SeekFrom, io::Errno};
use std::{fs::File, io, os::unix::fs::FileExt};
use walt_tar::Region;

/// Bytes read at once.
pub(crate) const CHUNK: usize = 1 << 18;
/// Smaller files are read as they are: asking for holes would cost more.
const MIN_SIZE: u64 = 1 << 20;
/// A file with holes of at least this size in total is a sparse file in the layer's tar.
///
/// Otherwise a tar has zeros in the place of holes, and hashing, packing and unpacking pay for them: 278 GB of
/// `/var/log/lastlog` are six minutes of a CPU here, and a full disk elsewhere. GNU's sparse format 1.0 is read by
/// GNU tar, libarchive and Go (podman and umoci were tried); Tools that store unpacked layers and make their tars
/// again, as podman does, cannot push such a layer. So this is only for files that nobody could use otherwise.
pub(crate) const MIN_HOLES: u64 = 1 << 30;
/// Regions in a layer's tar begin and end at multiples of this, so that the tar depends less on the file system.
const UNIT: u64 = 1 << 20;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Are these bytes zeros?
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(CHUNK).all(|part| part == &ZEROS[..part.len()])
}

/// Position of the next data of a file at or after `at`; the file's size if there is none.
fn data(file: &File, at: u64, size: u64) -> io::Result<u64> {
    if size < MIN_SIZE {
        return Ok(at);
    }
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data.min(size)),
        Err(Errno::NXIO) if file.metadata()?.len() < size => Err(changed()),
        Err(Errno::NXIO) => Ok(size),
        // A file system that does not know holes.
        Err(Errno::INVAL) => Ok(at),
        Err(e) => Err(e.into()),
    }
}

fn changed() -> io::Error {
    io::Error::other("its size changed while being read")
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(buffer, at).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => changed(),
        _ => e,
    })
}

/// Calls `sink` with the data in `length` bytes of a file from `from` on: position and bytes of each piece. A piece
/// is at most [`CHUNK`] long and does not cross a multiple of that. Everything else is zeros.
pub(crate) fn pieces(
    file: &File,
    from: u64,
    length: u64,
    buffer: &mut Vec<u8>,
    sink: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    buffer.resize(CHUNK, 0);
    let end = from + length;
    let mut at = from;
    loop {
        cancel::check_io()?;
        at = data(file, at, end)?;
        if at >= end {
            return Ok(());
        }
        // Aligned, so that equal content gives equal pieces.
        let start = (at - at % CHUNK as u64).max(from);
        let stop = (start - start % CHUNK as u64 + CHUNK as u64).min(end);
        let piece = &mut buffer[..(stop - start) as usize];
        read(file, piece, start)?;
        sink(start, piece)?;
        at = stop;
    }
}

/// Like [`pieces`], including the zeros between them.
pub(crate) fn read_payload(
    file: &File,
    from: u64,
    length: u64,
    buffer: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    fn zeros(at: &mut u64, end: u64, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while *at < end {
            cancel::check_io()?;
            let n = (end - *at).min(CHUNK as u64);
            sink(&ZEROS[..n as usize])?;
            *at += n;
        }
        Ok(())
    }
    let mut at = from;
    pieces(file, from, length, buffer, &mut |start, piece| {
        zeros(&mut at, start, sink)?;
        at = start + piece.len() as u64;
        sink(piece)
    })?;
    zeros(&mut at, from + length, sink)
}

/// Whether two files of `size` bytes have the same content.
pub(crate) fn same(a: &File, b: &File, size: u64) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        cancel::check_io()?;
        at = data(a, at, size)?.min(data(b, at, size)?);
        if at >= size {
            return Ok(true);
        }
        let n = (size - at).min(CHUNK as u64) as usize;
        read(a, &mut left[..n], at)?;
        read(b, &mut right[..n], at)?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
        at += n as u64;
    }
}

/// BLAKE3 digest of the content of a file of `size` bytes. Holes count as zeros, and are skipped without reading
/// them. It is not the digest of the plain bytes: use it only to compare files.
pub fn digest(file: &File, size: u64) -> io::Result<blake3::Hash> {
    let (mut hash, mut buffer) = (blake3::Hasher::new(), Vec::new());
    hash.update(&size.to_le_bytes());
    pieces(file, 0, size, &mut buffer, &mut |at, piece| {
        if !is_zero(piece) {
            hash.update(&at.to_le_bytes());
            hash.update(piece);
        }
        Ok(())
    })?;
    Ok(hash.finalize())
}

/// Copies the content of a file into an empty one. Zeros become holes.
pub(crate) fn copy(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    pieces(from, 0, size, &mut buffer, &mut |at, piece| {
        if is_zero(piece) { Ok(()) } else { to.write_all_at(piece, at) }
    })?;
    to.set_len(size)
}

/// The data regions of a file that becomes a sparse file in the layer's tar; `None` for all other files.
pub(crate) fn map(file: &File, size: u64) -> io::Result<Option<Vec<Region>>> {
    if size < MIN_HOLES {
        return Ok(None);
    }
    let Some(found) = walt_tar::holes(file, size, 0)? else { return Ok(None) };
    let mut map: Vec<Region> = Vec::new();
    for (start, length) in found.into_iter().filter(|(_, length)| *length > 0) {
        let end = (start + length).next_multiple_of(UNIT).min(size);
        let start = start - start % UNIT;
        match map.last_mut() {
            Some(last) if start <= last.0 + last.1 => last.1 = end - last.0,
            _ => map.push((start, end - start)),
        }
    }
    if size - map.iter().map(|r| r.1).sum::<u64>() < MIN_HOLES {
        return Ok(None);
    }
    // GNU tar takes the end of the last region for the end of the file.
    if map.last().is_none_or(|last| last.0 + last.1 < size) {
        map.push((size, 0));
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, parts: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    #[test]
    fn content_is_the_same_whatever_of_it_is_holes() {
        let size = 3 << 20;
        let odd = CHUNK as u64 + 77;
        let holes = file(size, &[(odd, b"x"), (size - 1, b"y")]);
        let full = file(size, &[(0, &vec![0; size as usize]), (odd, b"x"), (size - 1, b"y")]);
        let other = file(size, &[(odd, b"x"), (size - 1, b"z")]);
        assert!(same(&holes, &full, size).unwrap() && !same(&holes, &other, size).unwrap());
        assert_eq!(digest(&holes, size).unwrap(), digest(&full, size).unwrap());
        assert_ne!(digest(&holes, size).unwrap(), digest(&other, size).unwrap());
        assert_ne!(digest(&holes, size).unwrap(), digest(&holes, size - 1).unwrap());
        let copied = file(0, &[]);
        copy(&full, &copied, size).unwrap();
        assert!(same(&copied, &holes, size).unwrap());
        for (from, length) in [(0, size), (odd - 3, 9), (size - 5, 5), (1, CHUNK as u64)] {
            let (mut all, mut buffer) = (Vec::new(), Vec::new());
            read_payload(&holes, from, length, &mut buffer, &mut |b| {
                all.extend_from_slice(b);
                Ok(())
            })
            .unwrap();
            let mut expected = vec![0; length as usize];
            full.read_exact_at(&mut expected, from).unwrap();
            assert!(all == expected, "{from} {length}");
        }
        let error = same(&holes, &file(5, &[]), size).unwrap_err().to_string();
        assert!(error.contains("size changed"), "{error}");
    }

    #[test]
    fn only_large_holes_are_told_to_a_tar() {
        let gib = MIN_HOLES;
        assert_eq!(map(&file(gib - 1, &[]), gib - 1).unwrap(), None);
        assert_eq!(map(&file(gib, &[]), gib).unwrap(), Some(vec![(gib, 0)]));
        assert_eq!(map(&file(gib, &[(5, b"x")]), gib).unwrap(), None);
        let parts: &[(u64, &[u8])] = &[(UNIT + 5, b"x"), (2 * UNIT + 9, b"y"), (2 * gib - 1, b"z")];
        let found = map(&file(2 * gib, parts), 2 * gib).unwrap().unwrap();
        assert_eq!(found, [(UNIT, 2 * UNIT), (2 * gib - UNIT, UNIT)]);
    }
}
