//! Paths as tar streams and layers have them: bytes, relative to the root, with `/` between names; the root itself is
//! empty. No part is `.`, `..` or empty.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// Splits a path into its directory and its last name: `a/b/c` into `a/b` and `c`, `c` into the root and `c`.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Joins a directory and a path below it. If either one is empty, the result is the other.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => dir.to_vec(),
        _ => [dir, b"/", name].concat(),
    }
}

/// The same bytes as a path for system calls.
pub fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
