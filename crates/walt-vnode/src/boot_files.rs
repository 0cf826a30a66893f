//! Kernels and initrds as descriptors, one for all machines that boot the same files.
//!
//! A file that everybody may read is passed as it is: its pages are in the page cache once. What must be copied (a file that
//! qemu's account may not read; several initrds, which qemu takes as one) is copied into memory once, and machines share the
//! copy as long as one of them holds it. Machines that an earlier server has started keep theirs for themselves.

use crate::{Result, failed};
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Largest kernel, and largest sum of initrds, in bytes.
const MAX_BOOT_FILE: u64 = 1024 * 1024 * 1024;
/// Initrds are concatenated at multiples of this, in bytes: the kernel skips the zeroes between them.
const INITRD_ALIGNMENT: u64 = 4;

/// What tells files apart, and a file from itself after a change: device, inode, size, times of change.
type Key = Vec<(u64, u64, u64, [i64; 4])>;

/// The copies that machines hold.
static COPIES: Mutex<Vec<(Key, Weak<OwnedFd>)>> = Mutex::new(Vec::new());

/// One descriptor of these files that qemu's account can open again by `/proc/self/fd`: a single file that everybody may
/// read, else a sealed copy in memory.
pub(crate) fn shared(files: Vec<File>) -> Result<Arc<OwnedFd>> {
    let mut key = Key::new();
    for file in &files {
        let m = file.metadata().map_err(failed("read a boot file"))?;
        if files.len() == 1 && m.mode() & 0o004 != 0 {
            return Ok(Arc::new(file.try_clone().map_err(failed("read a boot file"))?.into()));
        }
        key.push((m.dev(), m.ino(), m.size(), [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]));
    }
    // A panic leaves the list as it is. Held while a copy is made: machines that start together need one.
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    copies.retain(|(_, copy)| copy.strong_count() > 0);
    let found = copies.iter().find(|(known, _)| *known == key);
    if let Some(copy) = found.and_then(|(_, copy)| copy.upgrade()) {
        return Ok(copy);
    }
    let copy = Arc::new(copy_of(files)?);
    copies.push((key, Arc::downgrade(&copy)));
    Ok(copy)
}

fn copy_of(files: Vec<File>) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory =
        rustix::fs::memfd_create("walt-boot", flags).map_err(|e| failed("make a memory file")(e.into()))?;
    let mut memory = File::from(memory);
    let mut total = 0_u64;
    for mut file in files {
        let padding = total.next_multiple_of(INITRD_ALIGNMENT) - total;
        memory
            .write_all(&[0; INITRD_ALIGNMENT as usize][..padding as usize])
            .map_err(failed("copy a boot file"))?;
        file.rewind().map_err(failed("read a boot file"))?;
        let copied = std::io::copy(&mut file.take(MAX_BOOT_FILE - total), &mut memory);
        total += padding + copied.map_err(failed("copy a boot file"))?;
        if total >= MAX_BOOT_FILE {
            let source =
                std::io::Error::new(ErrorKind::FileTooLarge, format!("more than {MAX_BOOT_FILE} bytes"));
            return Err(failed("read a boot file")(source));
        }
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(|e| failed("seal a memory file")(e.into()))?;
    Ok(memory.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    #[test]
    fn machines_share_one_copy_of_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            move || File::open(&path).unwrap()
        };
        let (one, two, open) =
            (file("one", "abcde", 0o600), file("two", "f", 0o644), file("open", "x", 0o644));
        let inode = |fd: &Arc<OwnedFd>| File::from(fd.try_clone().unwrap()).metadata().unwrap().ino();
        // As it is.
        assert_eq!(inode(&shared(vec![open()]).unwrap()), open().metadata().unwrap().ino());
        // Copied once.
        let first = shared(vec![one(), two()]).unwrap();
        let again = shared(vec![one(), two()]).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let mut bytes = vec![0; 9];
        File::from(first.try_clone().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, b"abcde\0\0\0f");
        let other = shared(vec![two(), one()]).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        // Another content is another copy, and one that nobody holds is gone.
        let kernel = shared(vec![one()]).unwrap();
        std::fs::write(dir.path().join("one"), "abcdef").unwrap();
        assert!(!Arc::ptr_eq(&kernel, &shared(vec![one()]).unwrap()));
        drop((first, again));
        let mut copies = COPIES.lock().unwrap();
        copies.retain(|(_, copy)| copy.strong_count() > 0);
        assert_eq!(copies.len(), 2, "the other order, and the kernel");
    }
}
