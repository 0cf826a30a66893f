//! Pseudo-terminals.

use crate::{During, Result};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A new terminal: the master end, and the slave end for the program in it.
#[derive(Debug)]
pub struct Pty {
    /// What the emulating side reads and writes.
    pub master: OwnedFd,
    /// What the program has as its terminal.
    pub slave: OwnedFd,
}

/// Opens a pseudo-terminal.
pub fn open() -> Result<Pty> {
    let what = || "open a pseudo-terminal".into();
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).during(what)?;
    rustix::pty::grantpt(&master).during(what)?;
    rustix::pty::unlockpt(&master).during(what)?;
    let name = rustix::pty::ptsname(&master, Vec::new()).during(what)?;
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        .during(what)?;
    Ok(Pty { master, slave })
}

/// Sets the size of the window in character cells; the foreground programs get `SIGWINCH`.
pub fn set_size(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The size of the window in character cells: rows, columns.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Prepares a command to run in its own session, with `slave` as controlling terminal and as its
/// standard input, output and error.
pub fn attach(command: &mut Command, slave: OwnedFd) -> io::Result<()> {
    command.stdin(Stdio::from(slave.try_clone()?)).stdout(Stdio::from(slave.try_clone()?));
    command.stderr(Stdio::from(slave));
    // SAFETY: the closure runs between fork and exec and makes two system calls without allocating.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        });
    }
    Ok(())
}

/// Receives one descriptor that the peer sends over a unix socket: how `runc` hands over the master of a
/// container's terminal (`--console-socket`). Blocks as the socket does.
pub fn receive_master(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    ancillary
        .drain()
        .find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("the peer closed the console socket without sending a terminal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn command_has_a_terminal_of_the_right_size() {
        let pty = open().unwrap();
        set_size(&pty.master, 31, 97).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "tty >/dev/null && stty size && echo ok >/dev/tty"]);
        attach(&mut command, pty.slave).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command); // it holds the slave, and the end is seen only when nobody does
        let mut text = Vec::new();
        // A terminal whose other side is closed answers EIO.
        let _ = std::fs::File::from(pty.master).read_to_end(&mut text);
        assert!(child.wait().unwrap().success());
        assert_eq!(String::from_utf8_lossy(&text), "31 97\r\nok\r\n");
    }
}
