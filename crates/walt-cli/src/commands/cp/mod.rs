//! `walt image cp` and `walt node cp`: operands, and both directions of a copy.
//!
//! ```text
//! upload     files ─▶ packed in a thread ─▶ queue ─▶ transfer ─▶ server
//! download   files ◀─ unpacked in a thread ◀─ queue ◀─ transfer ◀─ server
//! ```
//! Frames pass through a queue, so that neither side runs ahead of the other.

mod download;
mod local;
mod transfer;
mod upload;

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use walt_api::transfer::{Path as RemotePath, Source, What};

/// The destination that names the image that the node boots.
const BOOTED_IMAGE: &str = "booted-image";

/// `walt image cp` and `walt node cp`
#[derive(Debug, Args)]
pub struct Cp {
    src: OsString,
    dst: OsString,
    #[command(flatten)]
    confirmed: Confirmed,
}

/// What files are copied to or from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    /// An image of the user.
    Image,
    /// A node.
    Node,
}

impl Entity {
    fn from(self, name: String, path: RemotePath) -> What {
        match self {
            Self::Image => What::FromImage { image: name, path },
            Self::Node => What::FromNode { node: name, path },
        }
    }

    fn to(self, name: String, path: RemotePath, source: Source) -> What {
        match self {
            Self::Image => What::ToImage { image: name, path, source },
            Self::Node => What::ToNode { node: name, path, source },
        }
    }
}

impl Cp {
    /// Runs it.
    pub async fn run(self, context: &mut Context, entity: Entity) -> Result<(), Failure> {
        let yes = self.confirmed.yes;
        match (Operand::parse(&self.src), Operand::parse(&self.dst)) {
            (Operand::Remote { entity: node, path }, _)
                if entity == Entity::Node && self.dst == BOOTED_IMAGE =>
            {
                transfer::copy_on_server(context, What::NodeToImage { node, path }, yes).await
            }
            (Operand::Local(local), Operand::Remote { entity: name, path }) => {
                upload::upload(context, &local, |source| entity.to(name, path, source), yes).await
            }
            (Operand::Remote { entity: name, path }, Operand::Local(local)) => {
                download::download(context, entity.from(name, path), &local, yes).await
            }
            _ => Err(Failure::usage(
                "either the source or the destination must be a path of this machine, not both",
            )),
        }
    }
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A path of this machine.
    Local(PathBuf),
    /// `<entity>:<path>`.
    Remote {
        /// Image or node.
        entity: String,
        /// Path there; relative to `/root`.
        path: RemotePath,
    },
}

impl Operand {
    /// Parses an operand: `<entity>:<path>`, split at the last colon. A text that starts with `/` or `.` is a local path.
    pub fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        let colon = bytes.iter().rposition(|b| *b == b':');
        match colon {
            Some(at) if !matches!(bytes[0], b'/' | b'.') => Self::Remote {
                entity: String::from_utf8_lossy(&bytes[..at]).into_owned(),
                path: RemotePath(bytes[at + 1..].to_vec()),
            },
            _ => Self::Local(PathBuf::from(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(entity: &str, path: &str) -> Operand {
        Operand::Remote { entity: entity.into(), path: RemotePath(path.into()) }
    }

    #[test]
    fn operands_are_split_at_the_last_colon() {
        for (text, expected) in [
            ("img:/etc", remote("img", "/etc")),
            ("img:tag:etc", remote("img:tag", "etc")),
            ("img:", remote("img", "")),
            ("/a:b", Operand::Local("/a:b".into())),
            ("./a:b", Operand::Local("./a:b".into())),
            ("a", Operand::Local("a".into())),
            ("", Operand::Local("".into())),
        ] {
            assert_eq!(Operand::parse(OsStr::new(text)), expected, "{text}");
        }
    }
}
