//! Programs of other packages: where they are, how they end, and their pseudo-terminals.

use crate::base::failure::{Failure, Outcome, refused};
use std::{
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitStatus,
};
use tokio::{
    io::unix::AsyncFd,
    process::{Child, Command},
};
use walt_api::term::Tty;

/// Exit status of ssh itself, when it could not run the program (ssh(1)).
pub const SSH_FAILED: i32 = 255;

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

/// How a program ended, as a shell reports it.
pub fn exit_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Starts a program on a pseudo-terminal of its own. It is killed when it is dropped.
///
/// # Errors
/// The terminal cannot be made, or the program does not start.
pub fn on_pty(mut command: std::process::Command, tty: &Tty) -> Outcome<(Child, Pty)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let pty = walt_sys::pty::open()?;
    walt_sys::pty::set_size(&pty.master, tty.rows, tty.cols)?;
    command.env("TERM", &tty.term);
    walt_sys::pty::attach(&mut command, pty.slave)?;
    // The command holds the slave end, and is gone at the end of this: the output ends only when no process but the
    // program has it.
    let child = Command::from(command).kill_on_drop(true).spawn().map_err(|e| cannot_start(&name, &e))?;
    rustix::io::ioctl_fionbio(&pty.master, true)?;
    Ok((child, Pty(walt_sys::async_fd(pty.master)?)))
}

/// The master end of a pseudo-terminal, for async reads and writes.
pub struct Pty(AsyncFd<OwnedFd>);

impl Pty {
    /// Changes the size of the window.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_size(&self, rows: u16, cols: u16) -> std::io::Result<()> {
        walt_sys::pty::set_size(&self.0, rows, cols)
    }

    /// Reads output of the program; an error once no process has the terminal.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(done) = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)) {
                return done;
            }
        }
    }

    /// Writes input of the program.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(done) = ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                bytes = &bytes[done?..];
            }
        }
        Ok(())
    }
}
