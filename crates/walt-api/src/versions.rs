//! What image names have meant, and how images differ.

use serde::{Deserialize, Serialize};

/// Most differences in one answer; [`ImageDiff::truncated`] says that there are more.
pub const MAX_DIFFERENCES: usize = 100_000;

/// Answer of [`super::route::IMAGE_HISTORY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHistory {
    /// `<user>/<name>:<tag>`.
    pub fullname: String,
    /// Newest first; the first one is what the name means now.
    pub versions: Vec<ImageVersion>,
}

/// Something that an image name meant from a moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVersion {
    /// 1, 2, … of this name; never used again for something else.
    pub version: u32,
    /// Whether it is what the name means now.
    pub current: bool,
    /// Since when, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub since: String,
    /// Who made the name mean it.
    pub user: String,
    /// By which command; empty if that is not known.
    pub command: String,
    /// Image id, `sha256:…`.
    pub id: String,
    /// Number of layers.
    pub layers: usize,
    /// Bytes of the layers that the version before did not have, as tars.
    pub size: u64,
}

/// Answer of [`super::route::IMAGE_DIFF`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDiff {
    /// What was compared first, `<user>/<name>:<tag>`.
    pub from: String,
    /// What it was compared with.
    pub to: String,
    /// Path by path.
    pub differences: Vec<FileDifference>,
    /// Whether there are more than [`MAX_DIFFERENCES`].
    pub truncated: bool,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDifference {
    /// Absolute path; control characters, backslashes and bytes that are no UTF-8 as `\xNN`.
    pub path: String,
    /// What became of it.
    pub change: FileChange,
    /// `file`, `directory`, `symlink`, `device` or `fifo`.
    pub kind: String,
    /// Bytes of a file or a link's target, in the second image if it is there.
    pub size: u64,
    /// For `changed`: what differs, among `type`, `content`, `target`, `device`, `mode`, `owner`, `attributes`,
    /// `time`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    /// Only the second image has it.
    Added,
    /// Both have it, and it is not the same.
    Changed,
    /// Only the first image has it.
    Deleted,
}

/// A path as answers and lists show it: absolute, on one line, and reversible.
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
