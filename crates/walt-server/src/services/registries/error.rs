//! Errors of the service of registries. `Display` is a sentence for the user.

use crate::{
    base::failure::{Failure, Kind},
    services::images,
};
use std::time::Duration;

/// An error of the service of registries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such registry.
    #[error("unknown registry '{label}' ({known}).")]
    UnknownRegistry {
        /// Its label.
        label: String,
        /// The known ones, as part of the sentence.
        known: String,
    },
    /// A registry requires credentials, or refused the given ones.
    #[error("credentials for {label} registry are missing or invalid.")]
    Credentials {
        /// Its label.
        label: String,
        /// Whether some were given; then they are invalid.
        given: bool,
    },
    /// A registry cannot be reached.
    #[error("Failed to communicate with {label} registry. Aborted.")]
    Unreachable {
        /// Its label.
        label: String,
        /// Why.
        why: String,
    },
    /// A registry refused the request, or its image cannot be used here.
    #[error("{0}.")]
    Registry(walt_registry::Error),
    /// The image has too many layers.
    #[error("{0}.")]
    TooManyLayers(String),
    /// The registry or daemon does not have the image.
    #[error("No such remote image. Use walt image search <keyword>.")]
    NoSuchImage,
    /// The daemon of this machine does not answer.
    #[error("{0:#}.")]
    Daemon(anyhow::Error),
    /// The daemon refuses to send an image.
    #[error("the daemon refused to send the image: status {status}.")]
    DaemonRefused {
        /// Its HTTP status.
        status: u16,
    },
    /// The image could not be transferred from the daemon.
    #[error("cannot get the image from the daemon: {0:#}.")]
    DaemonFailed(anyhow::Error),
    /// The daemon sent nothing for too long.
    #[error("the daemon sent nothing for {} s.", limit.as_secs())]
    DaemonSilent {
        /// The limit.
        limit: Duration,
    },
    /// An error of the service of images.
    #[error(transparent)]
    Image(#[from] images::error::Error),
    /// The server failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// Result of the service of registries.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a client of the registry with this label.
    pub fn of(label: &str, error: walt_registry::Error) -> Self {
        let label = label.to_owned();
        match error {
            walt_registry::Error::Credentials { given, .. } => Self::Credentials { label, given },
            walt_registry::Error::Unreachable { .. } => Self::Unreachable { label, why: error.to_string() },
            walt_registry::Error::Store(error) => Self::Internal(error.into()),
            walt_registry::Error::Local { .. } => Self::Internal(error.into()),
            other => Self::Registry(other),
        }
    }
}

impl From<walt_images::Error> for Error {
    fn from(error: walt_images::Error) -> Self {
        Self::Image(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Image(error) => return error.into(),
            Error::Internal(error) => return Self::Internal(error),
            Error::UnknownRegistry { .. } => Kind::BadRequest,
            Error::Credentials { .. } => Kind::Credentials,
            Error::NoSuchImage => Kind::NotFound,
            _ => Kind::Refused,
        };
        let failure = Self::refusal(kind, &error);
        match error {
            Error::Credentials { given: true, .. } => failure.hint("(they are invalid)"),
            Error::Credentials { given: false, .. } => failure.hint("(they are missing)"),
            Error::Unreachable { why, .. } => failure.hint(format!("{why}.")),
            _ => failure,
        }
    }
}
