//! An open boot file: of the disk, or made by the server.

use std::{fs::File, io, os::unix::fs::FileExt};

/// A boot file, open for reading. It stays readable even if the image is removed.
#[derive(Debug)]
pub struct BootFile(Content);

#[derive(Debug)]
enum Content {
    Disk { file: File, length: u64 },
    Memory(Vec<u8>),
}

impl BootFile {
    /// A file of the disk, which never changes.
    ///
    /// # Errors
    /// Its length cannot be read.
    pub fn disk(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self(Content::Disk { file, length }))
    }

    /// A file that the server makes.
    pub fn memory(bytes: Vec<u8>) -> Self {
        Self(Content::Memory(bytes))
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Content::Disk { length, .. } => *length,
            Content::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills the buffer from this offset; reads less only at the end of the file.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let buffer = &mut buffer[..count];
        match &self.0 {
            // The files of a layer never change, so the length is still right.
            Content::Disk { file, .. } if !buffer.is_empty() => file.read_exact_at(buffer, offset)?,
            // Within the length: `buffer` is empty beyond it.
            Content::Memory(bytes) if !buffer.is_empty() => {
                buffer.copy_from_slice(&bytes[offset as usize..][..count]);
            }
            _ => {}
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_at_offsets() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("f"), "0123456789").unwrap();
        let disk = BootFile::disk(File::open(dir.path().join("f")).unwrap()).unwrap();
        for file in [disk, BootFile::memory(b"0123456789".to_vec())] {
            let mut buffer = [0; 4];
            let mut at = |offset| file.read_at(&mut buffer, offset).map(|n| buffer[..n].to_vec()).unwrap();
            assert_eq!(at(0), b"0123");
            assert_eq!(at(8), b"89");
            assert_eq!(at(10), b"");
            assert_eq!(at(u64::MAX / 2), b"");
        }
    }
}
