//! Secure Boot: what nodes load with the setting `boot.secure`, each signed so that the one before starts it.
//!
//! | file | signed by | where from |
//! |---|---|---|
//! | shim | Microsoft, known to the firmware | package shim-signed |
//! | GRUB | Debian, known to shim | package grub-efi-amd64-signed |
//! | kernel | Debian | the image |
//!
//! The initial RAM disk, the command line and the root are not signed. The boot scripts of an image are for iPXE, which
//! nobody has signed: the server runs them, and GRUB gets the result.

use crate::{
    base::db::NodeRow,
    services::nodes::{
        Nodes, boot,
        boot_tree::BootTree,
        error::{Error, Result},
    },
};
use std::path::Path;
use walt_netboot::{dhcp::boot::SECURE_LOADER, grub};

/// A file that machines load, and where it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Loader {
    /// Its path for machines. shim looks for GRUB by this name next to itself.
    pub path: &'static str,
    /// The file on the server.
    pub file: &'static str,
    /// The Debian package that it is in.
    pub package: &'static str,
}

/// The directory of the loaders. It has no other files.
pub const DIRECTORY: &[u8] = b"secure/";
/// The loaders, in the order in which they run.
pub static LOADERS: [Loader; 2] = [
    Loader { path: SECURE_LOADER, file: "/usr/lib/shim/shimx64.efi.signed", package: "shim-signed" },
    Loader {
        path: "secure/grubx64.efi",
        file: "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        package: "grub-efi-amd64-signed",
    },
];

/// Checks that the loaders are installed.
///
/// # Errors
/// One is missing.
pub fn check_loaders() -> Result<()> {
    match LOADERS.iter().find(|loader| !Path::new(loader.file).is_file()) {
        Some(Loader { file, package, .. }) => Err(Error::NoLoader { file, package }),
        None => Ok(()),
    }
}

/// GRUB's configuration for a node, on a machine of this make: what the image's boot scripts decide, or why they fail.
pub fn configuration(
    nodes: &Nodes,
    node: &NodeRow,
    files: &BootTree,
    manufacturer: &str,
    product: &str,
) -> String {
    let machine = boot::machine(nodes, node, manufacturer, product);
    let text = machine.and_then(|machine| boot::scripts(node, files, &machine)).map_err(|e| format!("{e:#}"));
    text.and_then(|boot| grub::boot(&boot)).unwrap_or_else(|reason| {
        tracing::warn!(node = %node.facts.name, "the node cannot boot by Secure Boot: {reason}");
        grub::refusal(&reason)
    })
}
