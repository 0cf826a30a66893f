//! Programs of other packages.

use crate::base::failure::{Failure, refused};

/// The path of a program, by `PATH`.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    if name.contains('/') {
        return Some(name.into()).filter(|p: &std::path::PathBuf| p.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// The failure of a request whose program did not start.
pub fn cannot_start(program: &str, error: &std::io::Error) -> Failure {
    refused(format!("cannot start {program}: {error}; is it installed on the server?"))
}
