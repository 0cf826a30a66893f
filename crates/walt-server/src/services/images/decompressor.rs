//! `walt-server decompress FORMAT`: the process without rights that undoes the compression of layers and archives.
//!
//! ```text
//! server ── compressed bytes ──▶ decompressor ── plain bytes ──▶ server: hashes, tar headers, files
//! ```
//! It is this program, so it is always the right version, and gives up all rights ([`walt_sys::sandbox`]) before it reads a
//! byte. The names of files, owners and device nodes of a layer need root and are made by the server, from the plain tar.

use std::{io::Write, os::unix::process::CommandExt, process::Command};
use walt_images::compression::{Compression, outside};

/// This program, whatever has replaced its file since.
const PROGRAM: &str = "/proc/self/exe";

/// From now on, this process decompresses nothing itself.
pub fn use_own_process() {
    outside::use_program(|compression| {
        let mut command = Command::new(PROGRAM);
        let name = Compression::ALL.iter().find(|(_, format)| *format == compression);
        command.arg0("walt-server").arg("decompress").arg(name.map_or("none", |(name, _)| name));
        command.env_clear().current_dir("/");
        command
    });
}

/// The process. Returns its exit status.
pub fn run(format: &str) -> i32 {
    let refused = |why: String| {
        let _ = write!(std::io::stderr(), "{why}");
        1
    };
    let Some((_, compression)) = Compression::ALL.iter().find(|(name, _)| *name == format) else {
        return refused(format!("'{format}' is not a format of compression"));
    };
    match walt_sys::sandbox::enter() {
        Ok(()) => outside::serve(*compression),
        Err(e) => refused(format!("the decompressor does not start with its rights: {e}")),
    }
}
