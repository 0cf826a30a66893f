//! A client of OCI registries (OCI distribution specification 1.1; Docker Registry HTTP API V2).
//!
//! ```text
//! Registry  one registry, as one user: manifests, blobs, tags, the list of its repositories
//!   ├─ http      connections, TLS, redirects, bounds of time and size
//!   └─ auth      challenges, tokens                                             (pure)
//! manifest       manifests, indexes, which image of an index fits a node model   (pure)
//! platform       which CPU an image is for, which image of an index fits a CPU   (pure)
//! pull           resolve: which image; Pull: its layers, in parallel, unpacked as they arrive
//! push           missing layers, configuration, manifest
//! gzip           compression on all CPUs
//! download       one file, by its URL
//! ```
//! Registries are not trusted: every answer is bounded, every blob is checked against the size and digest in its
//! descriptor, every layer against the diff-id in the image's configuration. A slow or interrupted registry fails
//! after the times in [`Limits`]; interrupted downloads continue where they stopped.
//!
//! Limits: documents of [`manifest::MAX_DOCUMENT`], blobs of [`manifest::MAX_BLOB`],
//! [`MAX_FOREIGN_LAYERS`](walt_images::MAX_FOREIGN_LAYERS) layers of an image, [`pull::PARALLEL`] downloads and
//! [`push::PARALLEL`] uploads at once, [`http::MAX_REDIRECTS`] redirections, [`MAX_PAGES`] pages of a list.

pub mod auth;
mod client;
mod download;
mod gzip;
pub(crate) mod http;
pub mod manifest;
pub mod platform;
mod post;
pub mod pull;
pub mod push;

pub use auth::Credentials;
pub use client::{MAX_PAGES, Registry, path_of};
pub use download::{Downloaded, download};
pub use http::{Endpoint, Limits, Protocol};
pub use platform::{Platform, Wanted};
pub use post::Poster;

use std::io;
use walt_types::{DiffId, Hash256};

/// Why an operation on a registry failed. `Display` is a sentence without its final stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no connection, it broke, or the answer was late.
    #[error("cannot reach the registry {registry}: {why}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// The cause.
        why: String,
    },
    /// It requires authentication, or rejects the credentials.
    #[error("{}", credentials_text(.registry, *.given))]
    Credentials {
        /// Host and port.
        registry: String,
        /// Whether credentials were given, which are wrong then.
        given: bool,
    },
    /// It does not have the object.
    #[error("the registry {registry} has no {what}")]
    NotFound {
        /// Host and port.
        registry: String,
        /// A manifest or a blob.
        what: String,
    },
    /// It refused, or failed.
    #[error("the registry {registry} answered {status} to {what}{}", with_detail(.message))]
    Refused {
        /// Host and port.
        registry: String,
        /// The requested object.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its message; may be empty.
        message: String,
    },
    /// Its answer violates the specification, one of our limits, or its own digests.
    #[error("invalid answer of the registry {registry}: {why}")]
    Invalid {
        /// Host and port.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// The image does not fit nodes, or this server.
    #[error("{0}")]
    Unfit(String),
    /// The store failed, or refused a layer.
    #[error(transparent)]
    Store(#[from] walt_images::Error),
    /// A local file.
    #[error("cannot {what}: {source}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Result of registry operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// May the same request succeed a moment later?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            _ => false,
        }
    }
}

fn credentials_text(registry: &str, given: bool) -> String {
    if given {
        format!("the registry {registry} does not accept these credentials")
    } else {
        format!("the registry {registry} requires credentials")
    }
}

fn with_detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// A layer as a blob of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// The layer.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Hash256,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}
