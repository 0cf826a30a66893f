//! What can go wrong in the image store.

use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of the image store. `Display` is a sentence that says what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried: a verb and its object's kind.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A layer's tar, or an OCI document, breaks its specification or one of our limits.
    #[error("the layer cannot be used: {0}")]
    Layer(String),
    /// A session's changes cannot be written down as an OCI layer.
    #[error("the changes cannot be saved: {0}")]
    Commit(String),
    /// The state directory cannot hold an image store.
    #[error("the state directory {} cannot be used: {why}", path.display())]
    State {
        /// The state directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A stored object is absent.
    #[error("the image store has no {kind} {id}")]
    Missing {
        /// `layer`, `image` or `view`.
        kind: &'static str,
        /// Its digest.
        id: String,
    },
    /// The bytes of a stored object are not what was written.
    #[error("{} is damaged ({why}); remove the image that uses it and get it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The work was cancelled ([`crate::cancel`]).
    #[error("the operation was cancelled")]
    Cancelled,
    /// An image has more layers than can be mounted.
    #[error("an image can have at most {max} layers, and this one would have {count}")]
    TooManyLayers {
        /// Layers wanted.
        count: usize,
        /// The limit.
        max: usize,
    },
}

impl Error {
    /// Whether the work ended because it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        let inner = |e: &io::Error| {
            e.get_ref().and_then(|e| e.downcast_ref::<Self>()).is_some_and(Self::is_cancelled)
        };
        match self {
            Self::Cancelled => true,
            Self::Io { source, .. } => inner(source),
            _ => false,
        }
    }
}

impl From<walt_tar::Error> for Error {
    fn from(e: walt_tar::Error) -> Self {
        Self::Layer(e.0)
    }
}

/// Result of the image store.
pub type Result<T> = std::result::Result<T, Error>;

/// Attaches what was tried, and on what, to an I/O error.
pub(crate) trait Context<T> {
    fn on(self, what: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn on(self, what: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::Io { what, path: path.as_ref().to_owned(), source: e.into() })
    }
}
