//! Containers of image shells and build steps: what they may do, which process keeps them, and how other CPUs are
//! emulated.
//!
//! ```text
//! session    a session on disk: specification, state, file names
//! bundle     the OCI runtime bundle of a session (pure), and runc
//! hold       the holder: one process per session, which survives a restart of the server
//! emulation  programs of other CPUs, by binfmt_misc and qemu-user
//! setup      what holders and build steps do alike before their container runs
//! ```
//! Limits are those of [`hold`] and [`bundle`].

pub mod bundle;
pub mod emulation;
mod error;
pub mod hold;
pub mod session;
pub mod setup;

pub use error::{Error, Result};
