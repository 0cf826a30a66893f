//! Paths of this machine.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use walt_api::transfer::Path as RemotePath;

/// A local path as messages show it.
pub fn show(path: &Path) -> String {
    RemotePath(path.as_os_str().as_bytes().to_vec()).show()
}

/// The path without trailing slashes, which mean nothing here.
pub fn trimmed(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/').map_or(1, |at| at + 1);
    PathBuf::from(OsString::from_vec(bytes[..end.min(bytes.len())].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_end_mean_nothing() {
        for (path, expected) in
            [("a//", "a"), ("/", "/"), ("///", "/"), ("a/b/", "a/b"), (".", "."), ("./", ".")]
        {
            assert_eq!(trimmed(Path::new(path)), Path::new(expected));
        }
    }
}
