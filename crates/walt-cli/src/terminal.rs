//! The user's side of a terminal: both shells, `run`, `console` and `ping`.
//!
//! ```text
//! opened ──(Busy, Note: wait for a boot, for a container)──▶ Started ──(bytes)──▶ Exited
//!    └ a script is already sent here, up to MAX_SCRIPT           └ raw mode, if interactive
//! ```
//!
//! Image shells and consoles outlive the server. If the connection breaks, this side connects again, for [`RETRY_LIMIT`],
//! and goes on where it was: the server sends the output that is missing, and [`feed`] the input. The user reads of it after
//! [`SILENT`] only.
//!
//! A guard restores the local terminal in every case: return, error, panic, SIGTERM, SIGHUP. In raw mode ctrl-C is a
//! byte for the remote program; a real SIGINT ends the command.

mod console;
mod feed;
pub mod line;
mod raw;

use crate::{
    error::Failure,
    stdio::Output as LocalOutput,
    ui::{self, Interrupt, Signals, Ui},
};
use console::ClearFilter;
use feed::{Control, FeedEnd, feed};
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use walt_api::term::{ClientMessage, Place, ServerMessage, Tty};
use walt_client::{Error, Output, TerminalInput, TerminalOutput};

pub use raw::{NoEcho, RawMode, window_size};

/// Control messages that wait to be sent. More window sizes are dropped: newer ones replace them.
const CONTROL_QUEUE: usize = 16;
/// How many of them are kept free of window sizes.
const CONTROL_RESERVE: usize = 8;
/// Pause before an attempt to connect again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a server that was there is awaited.
const RETRY_LIMIT: Duration = Duration::from_secs(600);
/// How long it is awaited before the user is told.
const SILENT: Duration = Duration::from_secs(5);

/// How the user's terminal and the remote program are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The program has a terminal: the local one in raw mode.
    Raw,
    /// The console of a node: as `Raw` if interactive, with command keys, and with screen clearing filtered out.
    Console,
    /// Pipes; the end of input is passed on.
    Pipes,
    /// Pipes; all of the input is sent before the program starts.
    Script,
    /// Pipes; the program gets no input.
    NoInput,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program ended with this status.
    Exited(i32),
    /// The user left the console.
    Detached,
    /// ctrl-C, not in raw mode (or SIGINT).
    Interrupted,
}

/// How a terminal ended, and its session.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The session of an image shell, once it has started.
    pub session: Option<String>,
}

/// The caller's terminal, as the server is told; `None` if the command is not interactive.
pub fn local_tty(ui: &Ui) -> Option<Tty> {
    if !ui.interactive {
        return None;
    }
    let (rows, cols) = window_size();
    Some(Tty { term: std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()), rows, cols })
}

/// For programs that end with their connection.
pub async fn never_again(_: Place) -> Result<(TerminalInput, TerminalOutput), Error> {
    Err(Error::ended_early())
}

/// Connects the user with the program until one of them ends. `started(os)` is called once the program runs. The note
/// that it returns is shown after the switch to raw mode, so that the local terminal does not edit or translate what the
/// user types as soon as he reads it. `reopen` opens the same terminal again, from a place in its output, after the
/// connection broke.
///
/// # Errors
/// A broken connection, an error of the server, SIGTERM or SIGHUP.
pub async fn run(
    ui: &mut Ui,
    (sink, mut stream): (TerminalInput, TerminalOutput),
    mode: Mode,
    mut started: impl FnMut(bool) -> Option<&'static str>,
    reopen: impl AsyncFn(Place) -> Result<(TerminalInput, TerminalOutput), Error>,
) -> Result<Outcome, Failure> {
    let Ui { input, signals, busy, interactive } = ui;
    let (control, controls) = mpsc::channel(CONTROL_QUEUE);
    let mut feeding = std::pin::pin!(feed(input, sink, controls, mode));
    let mut feeding_ended = false;
    let mut resized = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let (stdout, stderr) = (LocalOutput::new(&io::stdout())?, LocalOutput::new(&io::stderr())?);
    let mut local = Local::new(mode, *interactive, control);
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            end = &mut feeding, if !feeding_ended => {
                feeding_ended = true;
                match end {
                    FeedEnd::Detached => return Ok(local.outcome(End::Detached)),
                    // The server may explain the end of the connection better: go on reading.
                    FeedEnd::Failed(Failure::Client(_)) => continue,
                    FeedEnd::Failed(failure) => return Err(failure),
                }
            }
            interrupt = signals.next() => {
                busy.clear();
                match local.interrupted(interrupt)? {
                    Some(end) => return Ok(end),
                    None => continue,
                }
            }
            _ = resized.recv() => {
                local.send_size();
                continue;
            }
            _ = continued.recv() => {
                local.continued();
                continue;
            }
            () = busy.tick(), if !local.running => continue,
        };
        let message = match message {
            Ok(Some(message)) => message,
            broken => {
                busy.clear();
                let why = broken.err().unwrap_or_else(|| {
                    Error::Broken("the server closed the terminal without an exit status".to_owned())
                });
                stream = local.go_on(signals, why, &reopen).await?;
                continue;
            }
        };
        if !matches!(message, Output::Message(ServerMessage::Busy { .. })) {
            busy.clear();
        }
        let (to, bytes) = match message {
            Output::Stdout(bytes) => (&stdout, local.output(bytes)),
            Output::Stderr(bytes) => {
                local.count(&bytes);
                (&stderr, bytes)
            }
            Output::Message(ServerMessage::Busy { label }) => {
                busy.label(&label);
                continue;
            }
            Output::Message(message) => match local.message(message, &mut started)? {
                Some(outcome) => return Ok(outcome),
                None => continue,
            },
            Output::NodeStdout(..) | Output::NodeStderr(..) => {
                return Err(Error::Broken("the server sent output of several nodes".to_owned()).into());
            }
        };
        tokio::select! {
            written = to.write(&bytes) => written?,
            // A reader that does not read must not keep us from ending.
            interrupt = signals.next() => return match interrupt {
                Interrupt::Interrupted => Ok(local.outcome(End::Interrupted)),
                Interrupt::Terminated(_) => Err(interrupt.failure()),
            },
        }
    }
}

/// The local terminal, and the state of the remote program.
struct Local {
    mode: Mode,
    interactive: bool,
    control: mpsc::Sender<Control>,
    /// For the console only.
    clear_filter: Option<ClearFilter>,
    /// Raw mode, once the program runs.
    raw: Option<RawMode>,
    running: bool,
    /// The user pressed ctrl-C in order not to wait for the node's boot any longer.
    proceeded: bool,
    session: Option<String>,
    /// How far the program is; none if it does not outlive its connection.
    place: Option<Place>,
    /// When the connection broke, until the program runs again for this side.
    lost: Option<Instant>,
}

impl Local {
    fn new(mode: Mode, interactive: bool, control: mpsc::Sender<Control>) -> Self {
        let clear_filter = (mode == Mode::Console).then(ClearFilter::default);
        Self {
            mode,
            interactive,
            control,
            clear_filter,
            raw: None,
            running: false,
            proceeded: false,
            session: None,
            place: None,
            lost: None,
        }
    }

    fn outcome(&mut self, end: End) -> Outcome {
        Outcome { end, session: self.session.take() }
    }

    /// Output of the program has come.
    fn count(&mut self, bytes: &[u8]) {
        if let Some(place) = &mut self.place {
            place.output += bytes.len() as u64;
        }
    }

    /// Output of the program, as the local terminal shows it.
    fn output(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.count(&bytes);
        match &mut self.clear_filter {
            Some(clear_filter) => clear_filter.filter(&bytes),
            None => bytes,
        }
    }

    /// Acts on a signal; the outcome if it ends the command.
    fn interrupted(&mut self, interrupt: Interrupt) -> Result<Option<Outcome>, Failure> {
        match interrupt {
            // "Press ctrl-C to proceed anyway": the second one aborts.
            Interrupt::Interrupted if self.interactive && !self.running && !self.proceeded => {
                self.proceeded = true;
                let _ = self.control.try_send(Control::Message(ClientMessage::Proceed));
                Ok(None)
            }
            Interrupt::Interrupted => Ok(Some(self.outcome(End::Interrupted))),
            Interrupt::Terminated(_) => Err(interrupt.failure()),
        }
    }

    /// Acts on a message of the server; the outcome if it is the last one.
    fn message(
        &mut self,
        message: ServerMessage,
        started: &mut impl FnMut(bool) -> Option<&'static str>,
    ) -> Result<Option<Outcome>, Failure> {
        match message {
            ServerMessage::Note { text } => self.note(&text),
            ServerMessage::Started { session, place, .. } if self.running => {
                // Again, after the connection broke.
                self.lost = None;
                if let Some(raw) = &self.raw {
                    raw.reapply();
                }
                self.session = session;
                self.began(place)?;
                self.send_size();
            }
            ServerMessage::Started { session, os, place } => {
                (self.running, self.session) = (true, session);
                let note = started(os);
                if self.interactive && matches!(self.mode, Mode::Raw | Mode::Console) {
                    self.raw = Some(RawMode::enter()?);
                    // The window may have changed while the program was being started.
                    self.send_size();
                }
                if let Some(note) = note {
                    self.note(note);
                }
                self.began(place)?;
            }
            ServerMessage::Exited { status } => return Ok(Some(self.outcome(End::Exited(status)))),
            ServerMessage::Error { error } => return Err(error.into()),
            // The first is shown by the caller; the others are sent by builds, by commands on several nodes, and by connections.
            ServerMessage::Busy { .. }
            | ServerMessage::Credentials { .. }
            | ServerMessage::Nodes { .. }
            | ServerMessage::NodeExited { .. }
            | ServerMessage::NodeFailed { .. }
            | ServerMessage::Consumed { .. }
            | ServerMessage::Eof => {}
        }
        Ok(None)
    }

    /// Shows a note; a terminal in raw mode does not return the carriage by itself.
    fn note(&self, text: &str) {
        match &self.raw {
            Some(_) => ui::note(&(text.replace('\n', "\r\n") + "\r")),
            None => ui::note(text),
        }
    }

    /// After a stop: the calling shell has set its own mode, and the window may have changed.
    fn continued(&self) {
        if let Some(raw) = &self.raw {
            raw.reapply();
        }
        self.send_size();
    }

    /// The program runs, and gets the input.
    fn began(&mut self, place: Option<Place>) -> Result<(), Failure> {
        let given = place.as_ref().map(|place| place.input);
        self.place = place;
        self.control(Control::Begin(given))
    }

    fn control(&self, control: Control) -> Result<(), Failure> {
        self.control.try_send(control).map_err(|_| Failure::new("the input of the terminal is stuck."))
    }

    /// Connects again after the connection broke, if the program can go on.
    async fn go_on(
        &mut self,
        signals: &mut Signals,
        why: Error,
        reopen: &impl AsyncFn(Place) -> Result<(TerminalInput, TerminalOutput), Error>,
    ) -> Result<TerminalOutput, Failure> {
        let (true, Some(place), Error::Broken(_)) = (self.running, self.place.clone(), &why) else {
            return Err(why.into());
        };
        self.control(Control::Lost)?;
        let lost = *self.lost.get_or_insert_with(Instant::now);
        let mut told = false;
        loop {
            let attempt = async {
                tokio::time::sleep(RETRY).await;
                reopen(place.clone()).await
            };
            let opened = tokio::select! {
                opened = attempt => opened,
                interrupt = signals.next() => return Err(match interrupt {
                    Interrupt::Interrupted => why.into(),
                    Interrupt::Terminated(_) => interrupt.failure(),
                }),
                () = tokio::time::sleep_until((lost + SILENT).into()), if !told => {
                    told = true;
                    self.note("The server is away: connecting again (ctrl-C gives up).");
                    if let Some(raw) = &self.raw {
                        raw.with_signals();
                    }
                    continue;
                }
            };
            match opened {
                Ok((sink, stream)) => {
                    self.control(Control::Sink(sink))?;
                    return Ok(stream);
                }
                Err(Error::Broken(_) | Error::Connect { .. }) if lost.elapsed() < RETRY_LIMIT => {}
                Err(other) => return Err(other.into()),
            }
        }
    }

    fn send_size(&self) {
        if self.control.capacity() <= CONTROL_RESERVE {
            return;
        }
        let (rows, cols) = window_size();
        let _ = self.control.try_send(Control::Message(ClientMessage::Resize { rows, cols }));
    }
}
