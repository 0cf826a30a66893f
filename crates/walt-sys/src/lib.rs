//! The kernel: mounts, file handles, identities, terminals, processes and the network.
//!
//! This is the only crate with `unsafe`, and the only one that mounts, talks netlink or opens files by
//! handle. It offers safe functions with the kernel's meaning and decides nothing: names, paths and
//! policies come from the callers.
//!
//! ```text
//! binfmt    handlers of programs of other CPU families
//! mount     own mount namespace, overlay of layers, bind, tmpfs, remount read-only, unmount
//! file      replacing a file as a whole
//! handle    name_to_handle_at and open_by_handle_at
//! creds     one thread acts on files as another user
//! pty       pseudo-terminals, and receiving one from a container runtime
//! userns    user namespaces, and mounts that show files with their numbers
//! process   identity of a process across our restarts, detached children, signals, cgroups
//! net       bridges, addresses, routes, namespaces, taps, packet filter
//! ```
//!
//! Limits: Linux 5.10 or later (pidfd, `openat2`), 5.19 for [`userns`], 64-bit; 125 layers in an overlay (design: the option
//! string of mount(2) is one page).
#![allow(unsafe_code)] // The point of this crate; every block says why it is sound.

pub mod binfmt;
pub mod creds;
pub mod file;
pub mod handle;
pub mod mount;
pub mod net;
pub mod process;
pub mod pty;
pub mod sent;
pub mod userns;

/// A kernel operation that failed: what was tried, on what, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct Error {
    /// The operation and its object, as the rest of a sentence that starts with "cannot".
    pub what: String,
    /// The kernel's answer.
    #[source]
    pub source: std::io::Error,
}

impl Error {
    /// The kernel's error number, if the error came from the kernel.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// The result of a kernel operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an input/output error what was tried.
pub(crate) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error { what: what(), source: e.into() })
    }
}

/// The answer of a libc call that says -1 on failure.
pub(crate) fn checked(answer: libc::c_long) -> std::io::Result<libc::c_long> {
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
}

/// Wraps a descriptor for tokio that has no type of its own there: a terminal, a pidfd. Needs a running tokio runtime
/// with I/O enabled.
pub fn async_fd(fd: std::os::fd::OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and `AsyncFd` removes its
    // registration before it drops what it holds.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(|e| e.into_parts().1)
}
