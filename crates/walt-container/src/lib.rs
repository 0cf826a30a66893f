//! Containers of image shells and of build steps: what they may do, who keeps them, how other CPUs are emulated.
//!
//! ```text
//! session    what a session is on the disk: specification, state, names of files
//! bundle     the OCI runtime bundle of a session (pure), and runc
//! hold       the holder: a process per session, which the server may leave and find again
//! emulation  programs of other CPUs, by binfmt_misc and qemu-user
//! ```
//! Limits are those of [`hold`] and [`bundle`].

pub mod bundle;
pub mod emulation;
mod error;
pub mod hold;
pub mod session;
pub mod setup;

pub use error::{Error, Result};
