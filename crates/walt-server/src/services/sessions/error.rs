//! Errors of the service of sessions. `Display` is a sentence for the user.

use crate::base::failure::{Failure, Kind};
use walt_types::ImageName;

/// An error of the service of sessions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session has ended.
    #[error("this shell session does not exist any more: it was saved or discarded")]
    Ended,
    /// No session is open on the image.
    #[error("Image '{name}' has no open shell session.")]
    NoSession {
        /// The image.
        name: ImageName,
    },
    /// The server failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// Result of the service of sessions.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Internal(error) => Self::Internal(error),
            other => Self::refusal(Kind::NotFound, &other),
        }
    }
}
