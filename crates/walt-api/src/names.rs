//! What shells need to complete a command line, and lists do not have: names of files, and values of settings.

use crate::transfer::Path;
use serde::{Deserialize, Serialize};

/// Most names in one answer; [`FileNames::truncated`] says that there are more.
pub const MAX_NAMES: usize = 1000;

/// Answer of [`route::IMAGE_FILES`](crate::route::IMAGE_FILES) and [`route::NODE_FILES`](crate::route::NODE_FILES).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileNames {
    /// Sorted by name, byte by byte.
    pub names: Vec<FileName>,
    /// Whether there are more than [`MAX_NAMES`].
    pub truncated: bool,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileName {
    /// Its name in the directory.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: Path,
    /// Whether it is a directory, or a link to one.
    pub directory: bool,
}

impl FileNames {
    /// The first [`MAX_NAMES`] of these names.
    pub fn first_of(mut names: Vec<FileName>) -> Self {
        names.sort();
        let truncated = names.len() > MAX_NAMES;
        names.truncate(MAX_NAMES);
        Self { names, truncated }
    }
}

/// The beginning of a path as a user has typed it: its directory, with the slash at its end, and the beginning of a name
/// in it.
pub fn typed(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1))
}

/// A setting of nodes or devices: an item of the answer of [`route::SETTINGS`](crate::route::SETTINGS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettingInfo {
    /// Its key.
    pub key: String,
    /// Its value when nobody set it.
    pub default: String,
    /// What a value looks like, as in "it must be …".
    pub grammar: String,
    /// Some values: all of them if there are few, else usual ones.
    pub values: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_path_has_a_directory() {
        for (path, dir, name) in [
            ("", "", ""),
            ("et", "", "et"),
            ("/", "/", ""),
            ("/etc/pa", "/etc/", "pa"),
            ("a/b/", "a/b/", ""),
            ("//x", "//", "x"),
        ] {
            assert_eq!(typed(path.as_bytes()), (dir.as_bytes(), name.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let name = |n: usize| FileName { name: Path(n.to_string().into_bytes()), directory: false };
        let full = FileNames::first_of((0..MAX_NAMES).rev().map(name).collect());
        assert!(!full.truncated && full.names.is_sorted() && full.names.len() == MAX_NAMES);
        let more = FileNames::first_of((0..=MAX_NAMES).map(name).collect());
        assert!(more.truncated && more.names.len() == MAX_NAMES);
    }
}
