//! The lock between a backup and the removal of what nothing refers to.
//!
//! A backup is a process of its own, which copies layers while the server runs. Layers never change, so it is enough that
//! none is removed meanwhile. The kernel releases the lock with the process that holds it.

use anyhow::{Context, Result, bail};
use rustix::{fs::FlockOperation, io::Errno};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// Name of the file in the state directory.
pub const FILE: &str = "backup.lock";
/// How long a removal of unused objects may last that a backup waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The lock; dropping it releases it.
#[derive(Debug)]
pub struct StoreLock(#[expect(dead_code, reason = "held, not read")] File);

impl StoreLock {
    /// Takes the lock; none if another process or task has it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn try_take(state_dir: &Path) -> Result<Option<Self>> {
        let path = state_dir.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(false).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Takes the lock, and waits for it.
    ///
    /// # Errors
    /// Another process holds it for longer than a removal takes, or the file cannot be made.
    pub fn take(state_dir: &Path) -> Result<Self> {
        let start = Instant::now();
        loop {
            if let Some(lock) = Self::try_take(state_dir)? {
                return Ok(lock);
            }
            if start.elapsed() > PATIENCE {
                bail!("another backup of {} runs: wait until it has ended", state_dir.display());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StoreLock::take(dir.path()).unwrap();
        assert!(StoreLock::try_take(dir.path()).unwrap().is_none());
        drop(lock);
        assert!(StoreLock::try_take(dir.path()).unwrap().is_some());
    }
}
