//! `walt image build`: the message that opens it.
//!
//! A terminal (see [`term`](crate::term)) whose input is one stream of bytes: the Dockerfile, the secrets in their
//! order, then the context as a tar, then [`Eof`](crate::term::ClientMessage::Eof). Its output is that of the build;
//! its status is 0 if the image was built. Closing the connection cancels the build.
//!
//! When `FROM` needs a registry, and only then, the server asks for the user's credentials for it
//! ([`ServerMessage::Credentials`](crate::term::ServerMessage::Credentials)): which registries a Dockerfile needs is not known
//! before.

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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenImageBuild {
    /// Name of the result.
    pub image: String,
    /// Bytes of the Dockerfile.
    pub dockerfile_size: u64,
    /// Secrets that follow.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Values for `ARG`.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; by default the last one.
    #[serde(default)]
    pub target: Option<String>,
    /// Do not use results of earlier builds.
    #[serde(default)]
    pub no_cache: bool,
    /// Ask the registries again what the names after `FROM` point to.
    #[serde(default)]
    pub pull: bool,
    /// The client answers [`ServerMessage::Credentials`](crate::term::ServerMessage::Credentials).
    #[serde(default)]
    pub answers: bool,
    /// The context is a directory of the client's user: print a line when it is received.
    #[serde(default)]
    pub receiving: bool,
    /// The command to record in the history of the image.
    #[serde(default)]
    pub command: String,
    /// Overwrite, and reboot the nodes that use the image, without asking.
    #[serde(default)]
    pub yes: bool,
    /// Token of an earlier [`Confirmation`](crate::Confirmation).
    #[serde(default)]
    pub confirm: Option<String>,
}

/// A secret; its contents are part of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Secret {
    /// Its name in `RUN --mount=type=secret,id=…`.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
}
