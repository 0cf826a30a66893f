//! Decompression in a process of its own: its code reads bytes that anybody may have made, and some of it is C.
//!
//! ```text
//! input ──▶ this process ──pipe──▶ decompressor ──pipe──▶ this process ──▶ reader
//!                                  (no rights at all)
//! ```
//! The program that is started is the server itself, by [`use_program`]; without it, decompression happens in this process, as
//! in tests of this crate. The process gets the compressed bytes on standard input, gives the plain ones on standard output,
//! and reports what is wrong on standard error, with its exit status. It is killed when the reader is dropped.

use super::{Compression, Peek};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use std::{
    io::{self, BufRead, Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Exit status of a decompressor that ignored bytes after the end.
const STATUS_REST: i32 = 3;
/// Size of the pipes in bytes: with the usual 64 KiB, the processes would wait for each other more often. It is what a user
/// may ask for (`pipe-max-size`, proc(5)).
const PIPE: usize = 1 << 20;
/// How long the process may take for the next bytes, in seconds: far more than a block of any format needs.
const STALL: i64 = 300;
/// Longest message of the process, in bytes.
const MESSAGE_MAX: u64 = 512;

/// Makes the command of a decompressor, without its streams.
pub type Program = fn(Compression) -> Command;

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// From now on, all decompression happens in processes of this program, which call [`serve`]. Later calls have no effect.
pub fn use_program(program: Program) {
    let _set_before = PROGRAM.set(program);
}

/// The program, if there is one.
pub(super) fn program() -> Option<Program> {
    PROGRAM.get().copied()
}

/// What a decompressor does: standard input to standard output. Returns its exit status. Whoever calls this has given up
/// all rights before.
pub fn serve(compression: Compression) -> i32 {
    let work = || -> io::Result<bool> {
        let mut plain = super::within(compression, Peek::new(Input))?;
        let mut out = Output;
        let mut buffer = vec![0; super::CHUNK];
        loop {
            match plain.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => out.write_all(&buffer[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(plain.has_trailing_data())
    };
    match work() {
        Ok(false) => 0,
        Ok(true) => STATUS_REST,
        Err(e) => {
            let _ = write!(io::stderr(), "{e}");
            1
        }
    }
}

/// Standard input and output without the buffers of the standard library, which look for newlines.
struct Input;
struct Output;

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The plain bytes of a decompressor.
pub(super) struct Outside<R> {
    input: Peek<R>,
    /// None once all of the input is there, or the process wants no more.
    to: Option<OwnedFd>,
    from: OwnedFd,
    child: Child,
    rest: Arc<AtomicBool>,
    has_ended: bool,
}

impl<R: Read> Outside<R> {
    /// Starts a decompressor.
    pub fn start(
        program: Program,
        compression: Compression,
        input: Peek<R>,
        rest: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("cannot start the decompressor: {e}"));
        let mut command = program(compression);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        // Invariant: they were just asked for.
        let to = OwnedFd::from(child.stdin.take().expect("a pipe"));
        let from = OwnedFd::from(child.stdout.take().expect("a pipe"));
        // From here on, it is killed if this fails.
        let mut started = Self { input, to: None, from, child, rest, has_ended: false };
        for pipe in [&to, &started.from] {
            // Slower, but right, where the kernel refuses.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
            rustix::io::ioctl_fionbio(pipe, true).map_err(|e| failed(e.into()))?;
        }
        started.to = Some(to);
        Ok(started)
    }
}

impl<R> Outside<R> {
    /// The process has given all it had: whether it was content.
    fn end(&mut self) -> io::Result<usize> {
        if self.has_ended {
            return Ok(0);
        }
        self.to = None;
        let mut message = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(MESSAGE_MAX).read_to_end(&mut message)?;
        }
        let status = self.child.wait()?;
        self.has_ended = true;
        match status.code() {
            Some(0) => Ok(0),
            Some(STATUS_REST) => {
                self.rest.store(true, Ordering::Relaxed);
                Ok(0)
            }
            _ => {
                let said = String::from_utf8_lossy(&message);
                let why = match (said.trim(), status.code()) {
                    ("", _) | (_, None) => format!("the decompressor ended: {status}"),
                    (said, _) => said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
                };
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }
}

impl<R: Read> Read for Outside<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.has_ended {
            return Ok(0);
        }
        loop {
            match rustix::io::read(&self.from, &mut *buffer) {
                Ok(0) => return self.end(),
                Ok(n) => return Ok(n),
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            if let Some(to) = &self.to {
                let there = self.input.fill_buf()?;
                let written = match there.is_empty() {
                    true => Err(Errno::PIPE),
                    false => rustix::io::write(to, there),
                };
                match written {
                    Ok(n) => {
                        self.input.consume(n);
                        continue;
                    }
                    // It is all there; or the process wants no more, such as what follows the end.
                    Err(Errno::PIPE) => self.to = None,
                    Err(Errno::AGAIN) => {}
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                }
            }
            let mut wanted = vec![PollFd::new(&self.from, PollFlags::IN)];
            wanted.extend(self.to.as_ref().map(|to| PollFd::new(to, PollFlags::OUT)));
            let limit = Timespec { tv_sec: STALL, tv_nsec: 0 };
            match poll(&mut wanted, Some(&limit)) {
                Ok(0) => {
                    let why = format!("the decompressor gave nothing for {STALL} s");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl<R> Drop for Outside<R> {
    fn drop(&mut self) {
        if !self.has_ended {
            // It may have ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn start(program: Program, input: &[u8]) -> (Outside<&[u8]>, Arc<AtomicBool>) {
        let rest = Arc::new(AtomicBool::new(false));
        let outside = Outside::start(program, Compression::Gzip, Peek::new(input), rest.clone()).unwrap();
        (outside, rest)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn all(mut outside: Outside<&[u8]>) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        outside.read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn all_bytes_go_through() {
        // More than the pipes hold, in both directions.
        let bytes: Vec<u8> = (0..12u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let (outside, rest) = start(|_| Command::new("cat"), &bytes);
        assert!(all(outside).unwrap() == bytes);
        assert!(!rest.load(Ordering::Relaxed));
        let (outside, _) = start(|_| Command::new("cat"), b"");
        assert_eq!(all(outside).unwrap(), b"");
    }

    #[test]
    fn the_end_is_what_the_process_says() {
        let (outside, rest) = start(|_| shell("head -c 3; exit 3"), &[b'a'; 4 << 20]);
        assert_eq!(all(outside).unwrap(), b"aaa");
        assert!(rest.load(Ordering::Relaxed), "what follows was ignored");
        let (outside, _) = start(|_| shell("cat; echo the data is damaged >&2; exit 1"), b"a");
        assert_eq!(all(outside).unwrap_err().to_string(), "the data is damaged");
        let (outside, _) = start(|_| shell("cat; kill -9 $$"), b"a");
        let why = all(outside).unwrap_err().to_string();
        assert!(why.starts_with("the decompressor ended: signal: 9"), "{why}");
        let rest = Arc::new(AtomicBool::new(false));
        let none: Program = |_| Command::new("/no/such/program");
        let failed = Outside::start(none, Compression::Xz, Peek::new(&b""[..]), rest).map(drop).unwrap_err();
        assert!(failed.to_string().starts_with("cannot start the decompressor: "), "{failed}");
    }

    #[test]
    fn it_is_killed_when_nobody_reads() {
        let (mut outside, _) = start(|_| shell("echo x; exec sleep 60"), b"a");
        let mut buffer = [0; 8];
        assert_eq!(outside.read(&mut buffer).unwrap(), 2);
        let (pid, dropped) = (outside.child.id(), Instant::now());
        drop(outside);
        assert!(dropped.elapsed() < Duration::from_secs(20));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
