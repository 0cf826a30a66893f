//! Numbers that make a server unique on this machine; the kernel takes a lock back when a test is killed.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Directory of all test servers: on a disk, since images cannot lie on overlayfs.
const ROOT: &str = "/var/tmp/walt-test";

/// A number that nobody else has while this lives.
pub(crate) struct Slot {
    pub number: u8,
    pub dir: PathBuf,
    _lock: File,
}

impl Slot {
    /// Takes the first free one of `count`.
    pub fn take(count: u8) -> Self {
        std::fs::create_dir_all(ROOT).unwrap_or_else(|e| panic!("cannot make {ROOT}: {e}"));
        for number in 0..count {
            let path = Path::new(ROOT).join(format!("{number}.lock"));
            let lock = File::create(&path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
            match lock.try_lock() {
                Ok(()) => {
                    return Self { number, dir: Path::new(ROOT).join(number.to_string()), _lock: lock };
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => panic!("cannot lock {}: {e}", path.display()),
            }
        }
        panic!("all {count} slots for test servers are in use, see {ROOT}");
    }
}
