//! Versions of images, and differences between images.

use serde::{Deserialize, Serialize};

/// Most differences in one answer; [`ImageDiff::truncated`] says that there are more.
pub const MAX_DIFFERENCES: usize = 100_000;

/// Answer of [`super::route::IMAGE_HISTORY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageHistory {
    /// `<user>/<name>:<tag>`.
    pub fullname: String,
    /// Newest first; the name points to the first one.
    pub versions: Vec<ImageVersion>,
}

/// An image that a name pointed to, from some moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageVersion {
    /// 1, 2, … per name; a number is never reused.
    pub version: u32,
    /// Whether the name points to it now.
    pub current: bool,
    /// When it was made, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub since: String,
    /// Who made it.
    pub user: String,
    /// The command that made it; empty if unknown.
    pub command: String,
    /// Image id, `sha256:…`.
    pub id: String,
    /// Number of layers.
    pub layers: usize,
    /// Size of the layers that the previous version did not have, as tars, in bytes.
    pub size: u64,
}

/// Answer of [`super::route::IMAGE_DIFF`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageDiff {
    /// The first image, `<user>/<name>:<tag>`.
    pub from: String,
    /// The second image.
    pub to: String,
    /// Sorted by path.
    pub differences: Vec<FileDifference>,
    /// Whether there are more than [`MAX_DIFFERENCES`].
    pub truncated: bool,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileDifference {
    /// Absolute path; control characters, backslashes and bytes that are not UTF-8 as `\xNN`.
    pub path: String,
    /// How it differs.
    pub change: FileChange,
    /// `file`, `directory`, `symlink`, `device` or `fifo`.
    pub kind: String,
    /// Size of a file or a link's target in bytes; in the second image if it exists there.
    pub size: u64,
    /// For `changed`, what differs: some of `type`, `content`, `target`, `device`, `mode`, `owner`, `attributes`,
    /// `time`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    /// It exists only in the second image.
    Added,
    /// It exists in both images, and differs.
    Changed,
    /// It exists only in the first image.
    Deleted,
}

/// A path as answers and lists show it: absolute, on one line, unambiguous.
pub fn show_path(path: &[u8]) -> String {
    let mut text = String::from("/");
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| text.push_str(&format!("\\x{b:02x}")));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|b| text.push_str(&format!("\\x{b:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_on_their_line() {
        assert_eq!(show_path(b"etc/a b"), "/etc/a b");
        assert_eq!(show_path("é\n\\\u{9b}".as_bytes()), "/é\\x0a\\x5c\\xc2\\x9b");
        assert_eq!(show_path(b"x\xffy"), "/x\\xffy");
    }
}
