//! How much of what was written to a connection the other side has not acknowledged.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that were written to a TCP socket and that the other machine has not acknowledged (`SIOCOUTQ`, tcp(7)).
///
/// # Errors
/// It is not a TCP socket, or it is not connected.
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and SIOCOUTQ (the value of TIOCOUTQ) writes one int.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn what_was_received_is_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        one.write_all(b"x").unwrap();
        let began = Instant::now();
        while unacknowledged(&one).unwrap() > 0 {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        // Nobody reads: the window fills, and what does not fit stays.
        one.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        while one.write(&[0; 1 << 16]).is_ok() {}
        assert!(unacknowledged(&one).unwrap() > 0);
        other.read_exact(&mut [0; 1]).unwrap();
        assert!(unacknowledged(&std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
