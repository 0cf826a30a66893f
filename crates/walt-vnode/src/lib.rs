//! Virtual nodes: a qemu process each, that outlives the server which started it.
//!
//! ```text
//!            launch                       guest reboots, panics, powers off; kill; stop
//!  (nothing) ──────► running, detached ─────────────────────────────────────────────► (nothing)
//!                       │        ▲
//!           server dies ▼        │ adopt: pid + start time, then the uuid by QMP
//!                    running, no server
//! ```
//!
//! One directory per node, 0700, belongs to the server; qemu, under an account of its own, gets everything it needs as
//! open descriptors and reads no path of the server's:
//!
//! | file | what |
//! |---|---|
//! | `vm.json` | identity of the process ([`Identity`]) |
//! | `console.log` | what the guest wrote on its serial port ([`console::Log`]) |
//! | `console.sock` | to type ([`console::Keyboard`]) |
//! | `qmp.sock` | control ([`qmp::Qmp`]) |
//! | `qemu.log` | messages of qemu itself |
//! | `disks/` | its disks, a sparse file each ([`disks`]) |
//!
//! [`command_line`] is pure. [`probe`] finds out whether KVM works for a kernel, not only whether `/dev/kvm` exists.
//!
//! A node has a network card for each of its networks; [`link`] is what happens to frames on a shaped one.
//!
//! Machines that boot the same files share them, mark their memory as mergeable (by KSM, if the server's kernel does
//! that), and give back what the guest does not use, if it has a driver for `virtio_balloon`.
//!
//! Limits: x86-64 guests on x86-64 hosts. Two boot methods ([`BootMethod`]): with a given kernel
//! and initrds, where a guest's reboot ends qemu (`-no-reboot`) and the caller starts it again; and from the network
//! card by iPXE, where qemu keeps running. All waits are bounded by the constants below.

mod boot_files;
pub mod console;
pub mod disks;
mod launch;
pub mod link;
pub mod probe;
mod qemu;
pub mod qmp;

pub use launch::{Account, BootFiles, Card, Identity, Launch, Vm, adopt, launch, remove_group};
pub use qemu::{
    Acceleration, BootMethod, Descriptors, MANUFACTURER, PRODUCT, PROGRAM, VmSpec, command_line, version,
};

use std::io;
use std::time::Duration;

/// How long qemu may take from its start to its first answer by QMP.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one exchange by QMP may take.
pub const QMP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new file system may take.
pub const MKFS_TIMEOUT: Duration = Duration::from_secs(120);
/// How long qemu may take to end after `quit`, and again after `SIGKILL`.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What can go wrong with a virtual node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, socket or program could not be used.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was to be done, and on what.
        what: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// A kernel facility refused.
    #[error(transparent)]
    Sys(#[from] walt_sys::Error),
    /// qemu ended while it started.
    #[error("qemu did not start: {0}")]
    NotStarted(String),
    /// A program that makes file systems is not installed.
    #[error("cannot make {disk}: {program} is missing on the server; install its Debian package {package}")]
    NoProgram {
        /// The disk.
        disk: String,
        /// The program.
        program: &'static str,
        /// Where it is.
        package: &'static str,
    },
    /// A program that makes file systems failed.
    #[error("cannot make {disk}: {program} failed: {words}")]
    Mkfs {
        /// The disk.
        disk: String,
        /// The program.
        program: &'static str,
        /// What it said.
        words: String,
    },
    /// qemu did not carry out a command in time.
    #[error("qemu did not {0} in time")]
    Timeout(&'static str),
    /// qemu answered a QMP command by an error.
    #[error("qemu refused '{command}': {message}")]
    Refused {
        /// The command.
        command: String,
        /// qemu's words.
        message: String,
    },
    /// The other end of the QMP socket does not speak QMP.
    #[error("unexpected answer on {0}: {1}")]
    Protocol(String, String),
}

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// A random uuid (version 4), in its usual form.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn new_uuid() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| failed("get random bytes")(io::Error::other(e.to_string())))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}
