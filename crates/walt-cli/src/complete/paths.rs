//! Names of files of this machine.

use super::{fixed::is_remote, kinds::Kind, os, place::Place, reply::Candidate};
use std::{fs, os::unix::ffi::OsStrExt, path::PathBuf};
use walt_api::names::typed;

/// Most entries of a directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    Files,
    /// Directories.
    Directories,
}

/// The files that may stand at a place, if any may.
pub fn wanted(place: &Place) -> Option<Wanted> {
    match place.kind {
        Kind::Directory => Some(Wanted::Directories),
        Kind::ImageCopy | Kind::NodeCopy => {
            // One side is remote, the other one local.
            let is_local = match place.before.first() {
                None => true,
                Some(source) => is_remote(source),
            };
            let text = String::from_utf8_lossy(&place.partial);
            (is_local && !is_remote(&text)).then_some(Wanted::Files)
        }
        _ => None,
    }
}

/// The entries of a directory whose paths begin like this.
pub fn local(partial: &[u8], wanted: Wanted) -> Vec<Candidate> {
    let (directory, beginning) = typed(partial);
    let read = match directory.strip_prefix(b"~/") {
        Some(rest) => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(os(rest)),
            None => return Vec::new(),
        },
        None if directory.is_empty() => PathBuf::from("."),
        None => PathBuf::from(os(directory)),
    };
    let Ok(entries) = fs::read_dir(read) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten().take(ENTRIES_MAX) {
        let name = entry.file_name();
        let name = name.as_bytes();
        let is_hidden = name.starts_with(b".") && !beginning.starts_with(b".");
        if is_hidden || !name.starts_with(beginning) {
            continue;
        }
        // A link to a directory counts as one.
        let is_directory = fs::metadata(entry.path()).is_ok_and(|m| m.is_dir());
        if is_directory || wanted == Wanted::Files {
            found.push(entry_of(directory, name, is_directory));
        }
    }
    found.sort_by(|a, b| a.value.cmp(&b.value));
    found
}

/// The candidate for an entry of a directory, which is not shown.
pub fn entry_of(directory: &[u8], name: &[u8], is_directory: bool) -> Candidate {
    let end = if is_directory { &b"/"[..] } else { b"" };
    let candidate =
        Candidate { open: is_directory, is_path: true, ..Candidate::word([name, end].concat(), "") };
    candidate.behind(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a file", "b", ".hidden"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("a dir")).unwrap();
        std::os::unix::fs::symlink("a dir", dir.path().join("link")).unwrap();
        let at = |rest: &str, wanted| {
            let path = format!("{}/{rest}", dir.path().display());
            let found = local(path.as_bytes(), wanted);
            let shown = |c: &Candidate| String::from_utf8_lossy(&c.value[c.hidden..]).into_owned();
            found.iter().map(shown).collect::<Vec<_>>().join("|")
        };
        assert_eq!(at("", Wanted::Files), "a dir/|a file|b|link/");
        assert_eq!(at("a", Wanted::Directories), "a dir/");
        assert_eq!(at(".", Wanted::Files), ".hidden");
        assert_eq!(at("none/", Wanted::Files), "");
    }
}
