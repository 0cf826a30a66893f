//! Raw mode of the local terminal, and its size.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;

/// Size assumed if the terminal does not report one: lines, columns.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Raw mode; dropping this restores the former mode.
#[derive(Debug)]
pub struct RawMode {
    saved: Termios,
}

impl RawMode {
    /// Sets the terminal on standard input to raw mode.
    pub fn enter() -> io::Result<Self> {
        let raw = Self { saved: tcgetattr(io::stdin())? };
        raw.reapply();
        Ok(raw)
    }

    /// Sets raw mode again: after a stop, the calling shell has set its own mode.
    pub fn reapply(&self) {
        let mut raw = self.saved.clone();
        raw.make_raw();
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// No echo while a password is typed; dropping this restores the former mode.
#[derive(Debug)]
pub struct NoEcho {
    saved: Termios,
}

impl NoEcho {
    /// Turns the echo of the terminal on standard input off.
    pub fn enter() -> io::Result<Self> {
        let saved = tcgetattr(io::stdin())?;
        let mut silent = saved.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { saved })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// Lines and columns of the terminal on standard output.
pub fn window_size() -> (u16, u16) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => DEFAULT_SIZE,
    }
}
