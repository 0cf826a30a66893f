//! What the service manager is told, by the protocol of sd_notify(3): datagrams of `NAME=value` to the socket that
//! `NOTIFY_SOCKET` names.
//!
//! The variables are taken out of the environment before a child is started: a container runtime that finds
//! `NOTIFY_SOCKET` behaves differently, and a node could speak for the server.
//!
//! Ours and not the crate `sd-notify`: that one cannot remove variables without `unsafe` either, and the rest is short.

use parking_lot::Mutex;
use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// How long the manager waits from now on when it is asked for more time.
pub const MORE_TIME: Duration = Duration::from_secs(60);
/// Longest status, in bytes; the rest is cut off.
const STATUS_MAX: usize = 256;
/// How often an important message is tried while the manager has no room for it, and the pause: a second in all.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    status: Mutex<String>,
}

impl Notify {
    /// The one that the environment names. The variables are removed, so no other thread may exist.
    ///
    /// # Errors
    /// The socket cannot be used, or there are other threads.
    pub fn take() -> io::Result<Self> {
        let names = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
        let [socket, microseconds, pid] = walt_sys::process::take_variables(names)?;
        let Some(path) = socket.filter(|path| !path.is_empty()) else { return Ok(Self::default()) };
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&path)?,
        };
        let watchdog = watchdog(microseconds, pid, std::process::id());
        // A manager that is stuck must not hold up the server.
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some((socket, address)), watchdog, status: Mutex::default() })
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// How long the manager waits between two signs of life before it restarts the server.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends assignments, one to a line, and returns whether they were taken. A manager that does not listen is not a reason
    /// to fail.
    fn send(&self, message: &str, tries: usize) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        for number in 1..=tries {
            match socket.send_to_addr(message.as_bytes(), address) {
                Ok(_) => return true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && number < tries => {
                    std::thread::sleep(PAUSE)
                }
                Err(e) => tracing::debug!("the service manager cannot be told {message:?}: {e}"),
            }
        }
        false
    }

    /// What the server does now, for `systemctl status`. It is sent when it changes.
    pub fn status(&self, text: &str) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = &line[..line.floor_char_boundary(STATUS_MAX)];
        let mut last = self.status.lock();
        if *last != line && self.send(&format!("STATUS={line}"), 1) {
            line.clone_into(&mut last);
        }
    }

    /// All sockets listen, and what the last server has left is taken over.
    pub fn ready(&self) {
        self.send("READY=1", TRIES);
    }

    /// The start goes on, and needs [`MORE_TIME`].
    pub fn more_time(&self) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros()), 1);
    }

    /// The server is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1", TRIES);
    }

    /// The server ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=leaving: nodes and open shells go on", TRIES);
    }
}

/// The time of the watchdog, if it watches the process with this number (sd_watchdog_enabled(3)).
fn watchdog(microseconds: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let is_ours = pid.is_none_or(|pid| number(pid) == Some(own.into()));
    let time = Duration::from_micros(number(microseconds?)?);
    (is_ours && !time.is_zero()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_of_this_process() {
        let of = |usec: &str, pid: Option<&str>| watchdog(Some(usec.into()), pid.map(Into::into), 7);
        assert_eq!(of("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(of("2000000", Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(of("2000000", Some("8")), None);
        assert_eq!((of("0", None), of("soon", None)), (None, None));
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_status_is_one_short_line_and_sent_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = Some((socket, SocketAddr::from_pathname(&path).unwrap()));
        let notify = Notify { socket, ..Notify::default() };
        let mut buffer = [0; 1024];
        notify.status("a\nREADY=1");
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"STATUS=a READY=1");
        notify.status("a\nREADY=1");
        assert!(manager.recv(&mut buffer).is_err(), "it has not changed");
        notify.status(&"\u{e9}".repeat(STATUS_MAX));
        assert_eq!(manager.recv(&mut buffer).unwrap(), "STATUS=".len() + STATUS_MAX);

        // A manager that does not read holds up nothing, and hears what is true once it does.
        let start = std::time::Instant::now();
        for number in 0..2000 {
            notify.status(&number.to_string());
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        while manager.recv(&mut buffer).is_ok() {}
        notify.status("1999");
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"STATUS=1999");
    }
}
