//! Errors of the service of nodes. `Display` is a sentence for the user.

use crate::base::failure::{Failure, Kind};
use walt_vnode::PROGRAM;

/// An error of the service of nodes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// qemu is not installed.
    #[error("the program '{PROGRAM}' is missing on the server.")]
    NoQemu,
    /// The account of virtual nodes is missing.
    #[error("the account '{account}', under which virtual nodes run, is missing on the server.")]
    NoAccount {
        /// Its name.
        account: &'static str,
    },
    /// A program that makes file systems is not installed.
    #[error("the program '{name}' is missing on the server.", name = .0.name)]
    NoMkfs(walt_vnode::disks::Program),
    /// A loader for Secure Boot is not installed.
    #[error("the file {file} is missing on the server.")]
    NoLoader {
        /// The file.
        file: &'static str,
        /// The Debian package that it is in.
        package: &'static str,
    },
    /// ssh cannot reach a node that is known to run.
    #[error("Could not reach this node. Try again later. ({0})")]
    Unreachable(String),
    /// A node was removed while something was done with it.
    #[error("the node was removed in the meantime.")]
    Removed,
    /// The server failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// Result of the service of nodes.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What to do about it, on the server.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoQemu => Some("install it there (Debian package qemu-system-x86)".into()),
            Self::NoMkfs(program) => Some(format!("install it there (Debian package {})", program.package)),
            Self::NoLoader { package, .. } => Some(format!("install it there (Debian package {package})")),
            Self::NoAccount { account } => Some(format!(
                "create it on the server: useradd --system --no-create-home --shell /usr/sbin/nologin {account}"
            )),
            Self::Unreachable(_) | Self::Removed | Self::Internal(_) => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Error::Internal(error) = error {
            return Self::Internal(error);
        }
        let failure = Self::refusal(Kind::Refused, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
