//! `walt image build`: builds layers of the store from Dockerfiles.
//!
//! ```text
//! text ─▶ lines ─▶ dockerfile ─▶ state ─▶ actions ─▶ execute ─▶ layers, a configuration
//!         split    stages,       what an   run, copy,  containers, composer,
//!                  steps         instruction  mkdir    cache
//!                                means here
//! ```
//! Everything up to the actions is pure: [`dockerfile`] parses, and `state` determines what each instruction means
//! with the variables and the configuration at its place. [`execute`] carries out the actions, with the services of a
//! [`Host`]. Commands run in a process of their own ([`step`]), and so do downloads for `ADD` ([`fetch`]).
//!
//! Limits: files, lines and words have those of `lines` and `expand`; layers have those of [`walt_images`]; sources
//! of `ADD` have those of [`fetch`].

mod accounts;
mod chmod;
mod copy;
pub mod dockerfile;
pub mod execute;
mod expand;
pub mod fetch;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
mod lines;
mod mounts;
mod remote;
mod state;
pub mod step;
mod target;

pub use dockerfile::Dockerfile;
pub use execute::{Host, Request, execute};
pub use state::BuildArgs;
pub use target::label;

use std::path::{Path, PathBuf};

/// Why a build failed. `Display` is a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is wrong.
    #[error("Dockerfile, line {line}: {why}")]
    Dockerfile {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The image store.
    #[error(transparent)]
    Store(walt_images::Error),
    /// The container of a command.
    #[error(transparent)]
    Container(#[from] walt_container::Error),
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// A command failed; its output says why.
    #[error("Dockerfile, line {line}: the command '{text}' ended with status {status}")]
    Command {
        /// The line, from 1.
        line: usize,
        /// The command.
        text: String,
        /// Its status, or 128 and the number of a signal.
        status: i32,
    },
    /// The build was cancelled, or its client is gone.
    #[error("the build was cancelled")]
    Cancelled,
}

impl From<walt_images::Error> for Error {
    fn from(e: walt_images::Error) -> Self {
        if e.is_cancelled() { Self::Cancelled } else { Self::Store(e) }
    }
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

/// Result of a build, or of a part of it.
pub type Result<T> = std::result::Result<T, Error>;
