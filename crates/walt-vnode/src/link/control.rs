//! Questions to the process of a link: a line of JSON each way, one question per connection.

use super::{CONTROL_TIMEOUT, SOCKET, model::Counters};
use crate::{Error, Result, failed};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use walt_types::Shape;

/// Longest question or answer, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// What happens to frames now, and what has happened so far.
    Report,
    /// Let this happen from now on.
    Set {
        /// The new shape. If it is the present one, nothing changes: random decisions go on where they are.
        shape: Shape,
    },
}

/// The answer, to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What happens to frames.
    pub shape: Shape,
    /// What has happened to those towards the node.
    pub down: Counters,
    /// What has happened to those from the node.
    pub up: Counters,
}

/// A question for the loop that forwards, and where the answer goes.
pub(super) type Asked = (Request, Sender<Report>);

/// Asks the process of this directory.
pub(super) fn ask(directory: &Path, request: &Request) -> Result<Report> {
    let what = || format!("ask the link in {}", directory.display());
    let io = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout("answer for a link"),
        _ => failed(what())(e),
    };
    // The address of a socket has at most 108 bytes (unix(7)), however long the directory is.
    let opened =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|e| failed(what())(e.into()))?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd())).map_err(io)?;
    stream.set_read_timeout(Some(CONTROL_TIMEOUT)).map_err(io)?;
    stream.set_write_timeout(Some(CONTROL_TIMEOUT)).map_err(io)?;
    let mut line = serde_json::to_vec(request).map_err(|e| failed(what())(e.into()))?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(io)?;
    let mut answer = String::new();
    BufReader::new(&stream).take(LINE_MAX).read_line(&mut answer).map_err(io)?;
    serde_json::from_str(&answer).map_err(|e| Error::Protocol(directory.display().to_string(), e.to_string()))
}

/// Answers questions for ever, on a thread of its own; `wake` is called after each one was handed over.
pub(super) fn serve(listener: &UnixListener, asked: &Sender<Asked>, wake: impl Fn()) {
    for stream in listener.incoming().flatten() {
        // The directory is for root only: who sends nonsense gets no answer, and the next one is heard.
        let _ = answer(&stream, asked, &wake);
    }
}

fn answer(stream: &UnixStream, asked: &Sender<Asked>, wake: &impl Fn()) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
    stream.set_write_timeout(Some(CONTROL_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream).take(LINE_MAX).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let (reply, answers) = channel();
    asked.send((request, reply)).map_err(std::io::Error::other)?;
    wake();
    let report = answers.recv_timeout(CONTROL_TIMEOUT).map_err(std::io::Error::other)?;
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    (&*stream).write_all(&line)
}
