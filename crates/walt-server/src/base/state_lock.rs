//! The lock of a state directory: one server, or one command without a server, at a time.

use anyhow::{Context, Result, bail};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

/// How long to wait for a held lock. A new child of the holder shares the lock until it executes its program, even if
/// the holder has ended.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Digits of the largest process id (`PID_MAX_LIMIT`, proc(5)).
const PID_WIDTH: usize = 10;

/// The lock, which the kernel releases at the end of the process at the latest.
pub struct StateLock(#[expect(dead_code, reason = "held, not read")] File);

impl StateLock {
    /// Takes the lock; creates the state directory (0700) if missing.
    ///
    /// # Errors
    /// Another process holds it (the message has its pid), or the directory cannot be used.
    pub fn take(state_dir: &Path) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .with_context(|| format!("cannot create the state directory {}", state_dir.display()))?;
        let path = state_dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let start = Instant::now();
        let taken = loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                other => break other,
            }
        };
        match taken {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                bail!(
                    "the state directory {} is in use by another walt-server (process {}): \
                     stop that one, or use another state-dir",
                    state_dir.display(),
                    holder.trim()
                );
            }
            Err(e) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
        // Overwritten in place with a fixed length, so that it works on a full disk.
        file.rewind()?;
        write!(file, "{:<PID_WIDTH$}", std::process::id())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StateLock::take(dir.path()).unwrap();
        let error = StateLock::take(dir.path()).err().unwrap().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        StateLock::take(dir.path()).unwrap();
    }
}
