//! Errors of the service of images. `Display` is a sentence for the user.

use crate::{
    base::failure::{Failure, Kind},
    services::images::labels::{LABEL_MINVERSION, LABEL_MODELS},
};
use std::time::Duration;
use walt_types::{ImageName, ImageRef};

/// An error of the service of images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of an image is invalid.
    #[error("{0}.")]
    Name(walt_types::ParseError),
    /// The user has no image of that name.
    #[error("No such image '{name}'. (tip: walt image show)")]
    NoSuchImage {
        /// The name.
        name: ImageName,
    },
    /// This server has no such default image.
    #[error("the default image '{reference}' is missing on this server.")]
    NoDefaultImage {
        /// The reference.
        reference: ImageRef,
        /// The recipe for it, if there is one.
        recipe: Option<String>,
    },
    /// The name is taken.
    #[error("Image '{name}' already exists.")]
    Exists {
        /// The name.
        name: ImageName,
    },
    /// A shell session is open on the image.
    #[error("Image '{name}' has an open shell session.")]
    SessionOpen {
        /// The name.
        name: ImageName,
    },
    /// The server cannot run programs for the image's CPU.
    #[error("This image is for another CPU than this server's: {0}.")]
    OtherCpu(#[from] walt_container::emulation::Error),
    /// The image is not for nodes.
    #[error(
        "this image does not indicate compatible node models (label {LABEL_MODELS}): it is not an image for WalT nodes."
    )]
    NotForNodes,
    /// The image needs a newer server.
    #[error(
        "this image needs a newer server: [Need server upgrade, version>={version}] (label {LABEL_MINVERSION})."
    )]
    NeedsNewerServer {
        /// The version that it needs.
        version: u32,
    },
    /// A recipe took too long.
    #[error("its recipe took more than {} s", limit.as_secs())]
    RecipeTooLong {
        /// The limit.
        limit: Duration,
    },
    /// A recipe failed.
    #[error("its recipe failed ({why}); the log of the server has its output")]
    RecipeFailed {
        /// Exit status and last line.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] walt_images::Error),
    /// The server failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// Result of the service of images.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Name(_) => Kind::BadRequest,
            Error::NoSuchImage { .. } | Error::NoDefaultImage { .. } => Kind::NotFound,
            Error::Store(error) => return Self::Internal(error.into()),
            Error::Internal(error) => return Self::Internal(error),
            _ => Kind::Refused,
        };
        let failure = Self::refusal(kind, &error);
        match error {
            Error::NoDefaultImage { recipe: Some(name), .. } => {
                failure.hint(format!("run 'walt-server default-image build {name}' on the server, as root"))
            }
            Error::NoDefaultImage { .. } => {
                failure.hint("it has no recipe: 'walt-server default-image list' lists the recipes")
            }
            Error::SessionOpen { name } => failure.hint(session_hint(&name)),
            _ => failure,
        }
    }
}

/// What a user can do about an open shell session on an image.
pub fn session_hint(name: &ImageName) -> String {
    format!(
        "'walt image shell --resume {name}' continues it, \
         'walt image shell --discard {name}' ends it and drops its changes"
    )
}
