//! Where files with credentials are, and how they are read and written.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A path in the environment; an empty one counts as absent.
pub(super) fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A path in the user's home directory.
pub(super) fn in_home(path: &str) -> Option<PathBuf> {
    Some(env_path("HOME")?.join(path))
}

/// The path to write to, which depends on HOME.
pub(super) fn writable(path: Option<PathBuf>) -> io::Result<PathBuf> {
    path.ok_or_else(|| io::Error::other("HOME is not set, so there is no place to save credentials"))
}

/// Reads a file. One that does not exist, or is too large to hold credentials, counts as absent.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= MAX_FILE => fs::read_to_string(path).map(Some),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Replaces a file atomically; other users can never read it, not even for a moment.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}
