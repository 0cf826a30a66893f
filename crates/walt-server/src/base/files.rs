//! Helpers for directories.

use anyhow::{Context, Result};
use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

/// Makes a directory and those above it, with this mode.
///
/// # Errors
/// The kernel refuses.
pub fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make the directory {}", dir.display()))
}

/// Makes a new directory with this mode, in a directory that exists.
///
/// # Errors
/// Something of that name exists, or the kernel refuses.
pub fn new_dir(dir: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(mode)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))
}

/// Removes a directory and its content, if it exists.
///
/// # Errors
/// The kernel refuses.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
