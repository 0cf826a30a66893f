//! What the kernel says about the machine as a whole: its clock and its random numbers.

use std::io;

/// Whether something keeps the clock of the machine right, such as an NTP client (adjtimex(2)).
///
/// # Errors
/// The kernel refuses.
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: timex is plain data, for which zeros are valid; `modes` 0 only reads.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the argument is writable for a timex.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0)
}

/// Whether the kernel has gathered enough to give random numbers (getrandom(2)). Until then, whoever makes a key waits.
///
/// # Errors
/// The kernel refuses.
pub fn random_is_ready() -> io::Result<bool> {
    let mut byte = [0_u8; 1];
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::getrandom(byte.as_mut_ptr().cast(), byte.len(), libc::GRND_NONBLOCK) };
    match got {
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        clock_is_synchronised().unwrap();
        // A machine that runs tests has been up for a while.
        assert!(random_is_ready().unwrap());
    }
}
