//! The shell's terminal or pipes, on our side.

use super::holder::Holder;
use super::output::KEEP;
use super::protocol::Kind;
use crate::{Error, Result};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

/// Most pieces of input that wait for the shell; beyond that, their sender waits.
const INPUT_QUEUE: usize = 16;

/// Something for the shell's input.
#[derive(Debug)]
pub enum Input {
    /// Bytes.
    Data(Vec<u8>),
    /// The end (pipes only).
    Eof,
}

/// Our side of a shell's streams.
#[derive(Debug)]
pub enum ShellStreams {
    /// The master of its terminal.
    Tty(OwnedFd),
    /// Pipes; without `stdin`, the input is a file.
    Pipes {
        /// Writes its input.
        stdin: Option<OwnedFd>,
        /// Reads its output.
        stdout: OwnedFd,
        /// Reads its errors.
        stderr: OwnedFd,
    },
}

/// The tasks that move a shell's data.
#[derive(Debug)]
pub struct Console {
    /// Where input goes.
    pub input: mpsc::Sender<Input>,
    /// The terminal, for its size.
    pub master: Option<Rc<AsyncFd<OwnedFd>>>,
    /// The tasks that read until nobody can write any more.
    pub readers: Vec<JoinHandle<()>>,
    aborts: Vec<AbortHandle>,
}

fn asynchronous(fd: OwnedFd) -> Result<Rc<AsyncFd<OwnedFd>>> {
    let failed = |e: io::Error| Error::io("watch", std::path::Path::new("the shell's streams"), e);
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(|e| failed(e.into()))?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
    Ok(Rc::new(walt_sys::async_fd(fd).map_err(failed)?))
}

impl Console {
    /// Starts moving data between `ends` and the holder.
    pub fn new(holder: &Rc<Holder>, ends: ShellStreams) -> Result<Self> {
        let (input, queue) = mpsc::channel(INPUT_QUEUE);
        let read = |fd: &Rc<AsyncFd<OwnedFd>>, kind| {
            tokio::task::spawn_local(read_all(Rc::clone(holder), Rc::clone(fd), kind))
        };
        let mut console = match ends {
            ShellStreams::Tty(master) => {
                let master = asynchronous(master)?;
                tokio::task::spawn_local(write_all(Rc::clone(&master), queue, false));
                let readers = vec![read(&master, Kind::Stdout)];
                Self { input, readers, master: Some(master), aborts: Vec::new() }
            }
            ShellStreams::Pipes { stdin, stdout, stderr } => {
                if let Some(stdin) = stdin {
                    tokio::task::spawn_local(write_all(asynchronous(stdin)?, queue, true));
                }
                let readers = vec![
                    read(&asynchronous(stdout)?, Kind::Stdout),
                    read(&asynchronous(stderr)?, Kind::Stderr),
                ];
                Self { input, master: None, readers, aborts: Vec::new() }
            }
        };
        console.aborts = console.readers.iter().map(JoinHandle::abort_handle).collect();
        Ok(console)
    }

    /// Hangs up: readers of the terminal or pipe get the end of file. A shell that is process 1 ignores signals
    /// without a handler (pid_namespaces(7)), but not this.
    pub fn hang_up(self) {
        for reader in self.aborts {
            reader.abort();
        }
    }
}

/// Reads until the end: for a terminal that is EIO, when no program has it open.
async fn read_all(holder: Rc<Holder>, fd: Rc<AsyncFd<OwnedFd>>, kind: Kind) {
    let mut changed: watch::Receiver<u64> = holder.changed.subscribe();
    let mut buffer = vec![0; KEEP.min(super::protocol::DATA_MAX)];
    loop {
        changed.borrow_and_update();
        let room = holder.output.borrow_mut().room();
        if room == 0 {
            // The client must read first; the holder lives as long as its sender.
            if changed.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Ok(mut ready) = fd.readable().await else { return };
        let got = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer[..room])?));
        match got {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => {
                // Another reader may have used the space meanwhile: the limit is exceeded by one piece.
                holder.output.borrow_mut().push(kind, &buffer[..count]);
                holder.notify();
            }
            Err(_would_block) => {}
        }
    }
}

async fn write_all(fd: Rc<AsyncFd<OwnedFd>>, mut queue: mpsc::Receiver<Input>, may_close: bool) {
    while let Some(item) = queue.recv().await {
        let bytes = match item {
            Input::Data(bytes) => bytes,
            Input::Eof if may_close => return,
            Input::Eof => continue,
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), rest)?)) {
                Ok(Ok(count)) => rest = &rest[count..],
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                // The shell has closed its input: the rest is dropped.
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}
