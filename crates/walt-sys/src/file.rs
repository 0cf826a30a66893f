//! Files that are replaced as a whole.

use std::{io, path::Path};

/// Replaces a file: a reader finds the old or the new content, never a part. The new content is written to the path with
/// `.new` appended and renamed. It is not synced: after a crash of the machine, the file may be empty.
///
/// # Errors
/// The directory cannot be written. The old content is still there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        for content in [&b"old"[..], b"newer"] {
            replace(&path, content).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        assert!(replace(&dir.path().join("absent/x"), b"x").is_err());
    }
}
