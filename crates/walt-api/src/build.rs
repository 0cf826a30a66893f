//! `walt image build`: the message that opens it.
//!
//! A terminal (see [`term`](crate::term)) whose input is one stream of bytes: the Dockerfile, the secrets in their
//! order, then the context as a tar, then [`Eof`](crate::term::ClientMessage::Eof). Its output is what the build says;
//! its status is 0 if the image was made. Closing the connection cancels the build.
//!
//! Where `FROM` needs a registry, the server asks for what the user has for it
//! ([`ServerMessage::Credentials`](crate::term::ServerMessage::Credentials)), and only then: a Dockerfile does not tell which
//! registries it needs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest Dockerfile, in bytes.
pub const MAX_DOCKERFILE: u64 = 1 << 20;
/// Most secrets of one build.
pub const MAX_SECRETS: usize = 64;
/// Largest secret, in bytes.
pub const MAX_SECRET: u64 = 500 << 10;

/// Opens a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenImageBuild {
    /// Own name of the result.
    pub image: String,
    /// Bytes of the Dockerfile.
    pub dockerfile_size: u64,
    /// Secrets that follow.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Values for `ARG`.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; the last one if absent.
    #[serde(default)]
    pub target: Option<String>,
    /// Use no result of an earlier build.
    #[serde(default)]
    pub no_cache: bool,
    /// Ask the registries anew what the names after `FROM` mean.
    #[serde(default)]
    pub pull: bool,
    /// The client answers [`ServerMessage::Credentials`](crate::term::ServerMessage::Credentials).
    #[serde(default)]
    pub answers: bool,
    /// The context is a directory of the client's user: say that it is received.
    #[serde(default)]
    pub receiving: bool,
    /// What the history of the image will say.
    #[serde(default)]
    pub command: String,
    /// Overwrite, and reboot the nodes that use the image, without asking.
    #[serde(default)]
    pub yes: bool,
    /// Token of the confirmation that was asked for.
    #[serde(default)]
    pub confirm: Option<String>,
}

/// A secret: its content is part of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name in `RUN --mount=type=secret,id=…`.
    pub id: String,
    /// Its bytes.
    pub size: u64,
}
