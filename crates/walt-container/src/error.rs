//! What can go wrong with a container, its holder and its session.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Why something about a session failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or socket.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel.
    #[error(transparent)]
    Sys(#[from] walt_sys::Error),
    /// The container's network.
    #[error(transparent)]
    Net(#[from] walt_sys::net::NetError),
    /// The runtime is missing or cannot be run.
    #[error("cannot run the container runtime {}: {source}: install the package 'runc'", program.display())]
    NoRuntime {
        /// The program.
        program: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// The runtime refused.
    #[error("cannot {action}: {message}")]
    Runtime {
        /// What was tried.
        action: String,
        /// The runtime's message.
        message: String,
    },
    /// The holder could not start; the message is its own.
    #[error("cannot start the session: {0}")]
    Start(String),
    /// Another holder is running.
    #[error("session {} already has a holder: connect to it", .0.display())]
    Held(PathBuf),
    /// Files in the session are open for writing.
    #[error("files of the session are still open for writing by {0}: end these processes and try again")]
    Busy(String),
    /// The holder refused a request.
    #[error("{0}")]
    Refused(String),
    /// The other side does not follow the protocol.
    #[error("unexpected message from the session's holder: {0}")]
    Protocol(String),
    /// Data or protocol of another version.
    #[error(
        "{what} has version {found}, but this program supports {known}: use the program that made the session"
    )]
    Version {
        /// Which data.
        what: &'static str,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Something took longer than it may.
    #[error("{what} took more than {} s", limit.as_secs())]
    TooLong {
        /// What was waited for.
        what: String,
        /// The limit.
        limit: Duration,
    },
}

/// The result of an operation on a session.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A call of the kernel that failed on a file.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}
