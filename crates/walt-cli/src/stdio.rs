//! Standard input and output without threads and without changing their mode.
//!
//! `O_NONBLOCK` belongs to the open file description, which the calling shell shares: setting it would break the shell's
//! own reads. So the descriptors stay blocking. epoll reports readiness, and poll(2) with a zero timeout makes sure that the
//! read or write that follows returns immediately.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes per read.
const READ_SIZE: usize = 16 << 10;
/// Bytes per write: poll(2) promises room for this many in a pipe (`PIPE_BUF`).
const WRITE_SIZE: usize = 4 << 10;

#[derive(Debug)]
enum Descriptor {
    Polled(AsyncFd<OwnedFd>),
    /// Regular files and `/dev/null`: epoll refuses them, and they never block.
    Plain(OwnedFd),
}

impl Descriptor {
    fn new(fd: &impl AsFd, interest: Interest) -> io::Result<Self> {
        // A duplicate of our own, so that dropping it leaves the standard descriptor open.
        let own = fd.as_fd().try_clone_to_owned()?;
        // Deprecated for types that lie about their descriptor; an `OwnedFd` cannot, so the `unsafe`
        // successor would gain nothing.
        #[expect(deprecated)]
        let registered = AsyncFd::try_with_interest(own, interest);
        match registered {
            Ok(polled) => Ok(Self::Polled(polled)),
            Err(refused) => Ok(Self::Plain(refused.into_parts().0)),
        }
    }

    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Polled(polled) => polled.get_ref(),
            Self::Plain(fd) => fd,
        }
    }

    async fn ready(&self, interest: Interest, flags: PollFlags) -> io::Result<()> {
        let Self::Polled(polled) = self else { return Ok(()) };
        loop {
            if ready_now(polled.get_ref(), flags)? {
                return Ok(());
            }
            let mut guard = polled.ready(interest).await?;
            if ready_now(polled.get_ref(), flags)? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

fn ready_now(fd: &OwnedFd, flags: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, flags)];
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(!fds[0].revents().is_empty())
}

/// Standard input. Bytes read beyond a line are buffered for the next read.
#[derive(Debug)]
pub struct Input {
    descriptor: Option<Descriptor>,
    buffered: Vec<u8>,
    eof: bool,
}

impl Input {
    /// An input that is opened at the first read.
    pub fn new() -> Self {
        Self { descriptor: None, buffered: Vec::new(), eof: false }
    }

    /// The next bytes; empty at the end. Nothing is lost if the future is dropped.
    pub async fn bytes(&mut self) -> io::Result<Vec<u8>> {
        if self.buffered.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.buffered))
    }

    /// The next line without its end; `None` at the end of the input (an unfinished line counts).
    /// Nothing is lost if the future is dropped.
    pub async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffered.iter().position(|&b| b == b'\n') {
                let rest = self.buffered.split_off(end + 1);
                self.buffered.truncate(end);
                let line = std::mem::replace(&mut self.buffered, rest);
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.fill().await? == 0 {
                let line = std::mem::take(&mut self.buffered);
                return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
            }
        }
    }

    /// Reads more bytes into `buffered`; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.eof {
            return Ok(0);
        }
        let descriptor = match &mut self.descriptor {
            Some(descriptor) => descriptor,
            none => none.insert(Descriptor::new(&std::io::stdin(), Interest::READABLE)?),
        };
        descriptor.ready(Interest::READABLE, PollFlags::IN).await?;
        let mut buffer = vec![0; READ_SIZE];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(descriptor.fd(), &mut buffer[..]))?;
        self.buffered.extend_from_slice(&buffer[..count]);
        self.eof = count == 0;
        Ok(count)
    }

    /// Forgets an end of file: on a terminal (ctrl-D), reading can go on after it.
    pub fn clear_eof(&mut self) {
        self.eof = false;
    }
}

/// Standard output or standard error as a channel of a terminal session.
#[derive(Debug)]
pub struct Output(Descriptor);

impl Output {
    /// Standard output or error.
    pub fn new(fd: &impl AsFd) -> io::Result<Self> {
        Ok(Self(Descriptor::new(fd, Interest::WRITABLE)?))
    }

    /// Writes all bytes; waits, without blocking the runtime, while the reader is slow.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.ready(Interest::WRITABLE, PollFlags::OUT).await?;
            let part = &bytes[..bytes.len().min(WRITE_SIZE)];
            let count = rustix::io::retry_on_intr(|| rustix::io::write(self.0.fd(), part))?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}
