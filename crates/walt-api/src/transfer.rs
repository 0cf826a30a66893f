//! Transfers over WebSocket: trees of files as tar streams between a client and the server.
//!
//! ```text
//! client                               server
//!   Open (text) ───────────────────────▶   refused: Event::Error (with a Confirmation: ask, then open again with its token)
//!               ◀─────────────────────── Event … (notes, Busy)
//!   ── to the server ──                  ◀ Ready
//!   bytes of a tar (binary) … End ─────▶
//!   ── from the server ──                ◀ Source, bytes of a tar (binary) …
//!               ◀─────────────────────── Event …, Event::Done or Event::Error; the server closes
//! ```
//! The server chooses the name of the source in the tar ([`TOP`] for images): entries are `top` itself and `top/…`. The
//! receiver puts them in their place. Frames have at most [`MAX_FRAME`] bytes, and neither side sends faster than the other
//! one reads. A client that closes the connection before [`ClientMessage::End`] cancels the transfer: nothing is changed.

use crate::Event;
use serde::{Deserialize, Serialize};

/// Largest binary message, in bytes.
pub const MAX_FRAME: usize = 256 << 10;
/// Name of the source in the tar.
pub const TOP: &str = "top";

/// Opens a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TransferOpen))]
pub struct Open {
    /// The kind of transfer.
    pub what: What,
    /// Token of an earlier [`Confirmation`](crate::Confirmation).
    #[serde(default)]
    pub confirm: Option<String>,
    /// Do not ask for a confirmation.
    #[serde(default)]
    pub yes: bool,
}

/// Kinds of transfers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TransferWhat))]
#[serde(tag = "transfer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// Files of the client to an image of the caller. They belong to root there.
    ToImage {
        /// Image of the caller.
        image: String,
        /// Destination; relative to `/root`.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        path: Path,
        /// The source.
        source: Source,
    },
    /// Files of the client to a node. They belong to root there.
    ToNode {
        /// Node.
        node: String,
        /// Destination; relative to `/root`.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        path: Path,
        /// The source.
        source: Source,
    },
    /// Files of a node to the client.
    FromNode {
        /// Node.
        node: String,
        /// Source; relative to `/root`.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        path: Path,
    },
    /// Files of a node to the same place in the image that it is associated with. The tar does not pass through the client.
    NodeToImage {
        /// Node.
        node: String,
        /// Source; relative to `/root`.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        path: Path,
    },
    /// Files of an image of the caller to the client.
    FromImage {
        /// Image of the caller.
        image: String,
        /// Source; relative to `/root`.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        path: Path,
    },
}

/// A path of any bytes. In JSON it is a string, with `%XX` for `%` and for bytes that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<u8>);

/// The source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TransferSource))]
pub struct Source {
    /// Its type.
    pub kind: SourceKind,
    /// Its last path component: its name inside an existing directory. Not needed for [`SourceKind::Contents`].
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: Path,
}

/// Types of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A file, or anything else that is not a directory.
    File,
    /// A directory.
    Directory,
    /// A directory given as `.`: its contents, not itself, go into an existing directory.
    Contents,
}

/// Text messages of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TransferClientMessage))]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The tar is complete.
    End,
    /// Do not wait for the node's boot any longer: try now.
    Proceed,
}

/// Text messages of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TransferServerMessage))]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ServerMessage {
    /// Send the tar.
    Ready {
        /// Name of the source in it; empty for the contents of a directory without the directory itself.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        top: Path,
        /// The reader is busybox tar: see `walt_tar::Dialect`.
        busybox: bool,
    },
    /// Describes the tar that follows.
    Source {
        /// The source.
        source: Source,
        /// Name of the source in the tar; empty if its contents are at the top.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        top: Path,
    },
    /// As in the answer of an action; the last one is [`Event::Done`] or [`Event::Error`].
    Event {
        /// The event.
        event: Event,
    },
}

/// State of a destination, for the rules of `walt image cp` and `walt node cp`: see [`place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It does not exist, but its parent directory does.
    Absent,
    /// Neither it nor its parent directory exists.
    NoParent,
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// Where a source goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It becomes the destination itself, which is replaced if it exists.
    Itself,
    /// Into the destination, under its own name.
    Inside,
    /// The contents of the directory go into the destination.
    Merged,
}

/// Decides where a source goes; `destination` is used in the error message.
///
/// # Errors
/// A sentence: a directory would overwrite a file, or the destination has no parent directory.
pub fn place(source: SourceKind, found: Found, destination: &str) -> Result<Placed, String> {
    match (found, source) {
        (Found::NoParent, _) => Err(format!("No such file or directory: {destination}")),
        (Found::Absent, _) | (Found::File, SourceKind::File) => Ok(Placed::Itself),
        (Found::File, _) => {
            Err(format!("Overwriting regular file {destination} with a directory is not allowed."))
        }
        (Found::Directory, SourceKind::Contents) => Ok(Placed::Merged),
        (Found::Directory, _) => Ok(Placed::Inside),
    }
}

impl Path {
    /// The path as text for people, with control characters and bytes that are not UTF-8 replaced.
    pub fn show(&self) -> String {
        String::from_utf8_lossy(&self.0).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                if c == '%' { out.push_str("%25") } else { out.push(c) }
            }
            part.invalid().iter().for_each(|b| out.push_str(&format!("%{b:02X}")));
        }
        out
    }

    fn parse(text: &str) -> Option<Self> {
        let mut out = Vec::with_capacity(text.len());
        let mut left = text.as_bytes();
        while let Some((byte, rest)) = left.split_first() {
            left = rest;
            if *byte != b'%' {
                out.push(*byte);
                continue;
            }
            let digits = std::str::from_utf8(left.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            left = &left[2..];
        }
        (!out.contains(&0)).then_some(Self(out))
    }
}

impl Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a path contains a NUL or an invalid %XX"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_pass() {
        for bytes in [&b"/a b/\"'\n$"[..], b"100%", b"\xff\xfe/\xc3\xa9", b"", b"%41", b"-n"] {
            let path = Path(bytes.to_vec());
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<Path>(&json).unwrap(), path, "{json}");
        }
        for bad in ["\"%\"", "\"%4\"", "\"%zz\"", "\"%00\"", "\"a\\u0000\""] {
            assert!(serde_json::from_str::<Path>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_see_what_a_terminal_can_show() {
        assert_eq!(Path(b"/a\x1b[2J\xff/\xc3\xa9".to_vec()).show(), "/a?[2J\u{fffd}/\u{e9}");
    }

    /// The table of the user interface, `S` and `D`.
    #[test]
    fn sources_go_where_the_table_says() {
        use {Found::*, SourceKind as S};
        for (kind, found, expected) in [
            (S::File, File, Some(Placed::Itself)),
            (S::File, Directory, Some(Placed::Inside)),
            (S::File, Absent, Some(Placed::Itself)),
            (S::File, NoParent, None),
            (S::Directory, File, None),
            (S::Directory, Directory, Some(Placed::Inside)),
            (S::Directory, Absent, Some(Placed::Itself)),
            (S::Directory, NoParent, None),
            (S::Contents, File, None),
            (S::Contents, Directory, Some(Placed::Merged)),
            (S::Contents, Absent, Some(Placed::Itself)),
            (S::Contents, NoParent, None),
        ] {
            assert_eq!(place(kind, found, "d").ok(), expected, "{kind:?} {found:?}");
        }
    }
}
