//! The server's end of a holder's socket.

use super::SOCKET;
use super::protocol::{
    DATA_MAX, Event, Kind, Request, VERSION, parse, read_frame, write_frame, write_message,
};
use crate::{Error, Result, session::State};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How long a holder may take to send its greeting. It never blocks for long.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// A message from a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Output of the shell or its terminal.
    Stdout(Vec<u8>),
    /// Error output of a shell without a terminal.
    Stderr(Vec<u8>),
    /// Anything else.
    Event(Event),
}

/// The receiving half. [`Reader::next`] is not cancel-safe: give it a task of its own.
#[derive(Debug)]
pub struct Reader {
    from: BufReader<OwnedReadHalf>,
}

/// The sending half.
#[derive(Debug)]
pub struct Writer {
    to: OwnedWriteHalf,
    path: PathBuf,
}

/// A connection to a holder.
#[derive(Debug)]
pub struct Client {
    /// State of the session in the holder's greeting.
    pub state: State,
    reader: Reader,
    writer: Writer,
}

/// A short path for a name in `dir`, however long that is: the address of a socket has at most 108 bytes (unix(7)).
pub(super) fn short(dir: &Path, name: &str) -> Result<(std::os::fd::OwnedFd, PathBuf)> {
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", dir, e.into()))?;
    let path = format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()).into();
    Ok((fd, path))
}

impl Client {
    /// Connects to the holder of the session in `dir`. An error of kind `Io` means that none is running.
    pub async fn connect(dir: &Path) -> Result<Self> {
        let path = dir.join(SOCKET);
        let (_dir, address) = short(dir, SOCKET)?;
        let stream = UnixStream::connect(address)
            .await
            .map_err(|e| Error::io("connect to the holder at", &path, e))?;
        let (from, to) = stream.into_split();
        let mut reader = Reader { from: BufReader::new(from) };
        let greeting = tokio::time::timeout(GREETING_LIMIT, reader.next()).await;
        match greeting
            .map_err(|_| Error::TooLong { what: "the holder's greeting".into(), limit: GREETING_LIMIT })??
        {
            Some(Incoming::Event(Event::Hello { version: VERSION, state })) => {
                Ok(Self { state, reader, writer: Writer { to, path } })
            }
            Some(Incoming::Event(Event::Hello { version, .. })) => {
                Err(Error::Version { what: "the session's holder", found: version, known: VERSION })
            }
            other => Err(Error::Protocol(format!("{other:?} instead of a greeting"))),
        }
    }

    /// The two halves, for an attached client.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Sends a request and waits for the answer. Events for an attached client are ignored.
    async fn ask(&mut self, request: &Request) -> Result<Event> {
        self.writer.request(request).await?;
        loop {
            match self.reader.next().await? {
                Some(Incoming::Event(Event::Refused { error })) => return Err(Error::Refused(error)),
                Some(Incoming::Event(
                    event @ (Event::Stopped { .. }
                    | Event::Sealed { .. }
                    | Event::Discarded
                    | Event::Started { .. }
                    | Event::Status { .. }),
                )) => return Ok(event),
                Some(_) => {}
                None => {
                    return Err(Error::Protocol(format!(
                        "the end of the connection instead of an answer to {request:?}"
                    )));
                }
            }
        }
    }

    /// Current state of the session.
    pub async fn status(&mut self) -> Result<State> {
        match self.ask(&Request::Status).await? {
            Event::Status { state } => Ok(state),
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }

    /// ShellStreams the shell, the OS and the container. Returns notes about what had to be killed.
    /// Takes at most 35 s.
    pub async fn stop(&mut self) -> Result<Vec<String>> {
        match self.ask(&Request::Stop).await? {
            Event::Stopped { notes } => Ok(notes),
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }

    /// Stops the container, unmounts the overlay and ends the holder: then `layer/fs` has the changes and nobody can
    /// write to it. [`Error::Refused`] leaves the session stopped or as it was.
    pub async fn seal(mut self) -> Result<Vec<String>> {
        match self.ask(&Request::Seal).await? {
            Event::Sealed { notes } => Ok(notes),
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }

    /// Kills the container, unmounts the overlay and ends the holder. The session's directory can be removed then.
    pub async fn discard(mut self) -> Result<()> {
        self.ask(&Request::Discard).await.map(drop)
    }

    /// Starts a new container with the changes of a stopped session, by the present `spec.json`.
    pub async fn restart(&mut self) -> Result<Vec<String>> {
        match self.ask(&Request::Restart).await? {
            Event::Started { notes } => Ok(notes),
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }
}

impl Reader {
    /// The next message of the holder; `None` once it has ended or closed the connection.
    pub async fn next(&mut self) -> Result<Option<Incoming>> {
        Ok(match read_frame(&mut self.from).await? {
            None => None,
            Some((Kind::Message, body)) => Some(Incoming::Event(parse(&body)?)),
            Some((Kind::Stdout, body)) => Some(Incoming::Stdout(body)),
            Some((Kind::Stderr, body)) => Some(Incoming::Stderr(body)),
            Some((Kind::Stdin, _)) => return Err(Error::Protocol("input".into())),
        })
    }
}

impl Writer {
    /// Sends a request.
    pub async fn request(&mut self, request: &Request) -> Result<()> {
        write_message(&mut self.to, request)
            .await
            .map_err(|e| Error::io("send a request to the holder at", &self.path, e))
    }

    /// Sends input for the shell, of any length.
    pub async fn input(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(DATA_MAX) {
            let sent = write_frame(&mut self.to, Kind::Stdin, piece).await;
            sent.map_err(|e| Error::io("send input to the holder at", &self.path, e))?;
        }
        Ok(())
    }
}
