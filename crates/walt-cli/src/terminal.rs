//! The user's side of a terminal: both shells, `run`, `console` and `ping`.
//!
//! ```text
//! opened ──(Busy, Note: wait for a boot, for a container)──▶ Started ──(bytes)──▶ Exited
//!    └ a script is already sent here, up to MAX_SCRIPT           └ raw mode, if interactive
//! ```
//!
//! A guard restores the local terminal in every case: return, error, panic, SIGTERM, SIGHUP. In raw mode ctrl-C is a
//! byte for the remote program; a real SIGINT ends the command.

mod console;
mod raw;

use crate::{
    error::Failure,
    stdio::{Input, Output as LocalOutput},
    ui::{self, Interrupt, Ui},
};
use console::{ClearFilter, Keys};
use raw::RawMode;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use walt_api::term::{ClientMessage, MAX_SCRIPT, ServerMessage, Tty};
use walt_client::{Error, Output, TerminalInput, TerminalOutput};

pub use raw::{NoEcho, window_size};

/// Control messages, such as window sizes, that wait to be sent. More are dropped: newer sizes replace them.
const CONTROL_QUEUE: usize = 16;

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

/// What the side that reads the keyboard sends besides input.
enum Control {
    Message(ClientMessage),
    /// The program runs: send it the input.
    Begin,
}

/// Why no more input is sent.
enum FeedEnd {
    Failed(Failure),
    Detached,
}

/// The caller's terminal, as the server is told; `None` if the command is not interactive.
pub fn local_tty(ui: &Ui) -> Option<Tty> {
    if !ui.interactive {
        return None;
    }
    let (rows, cols) = window_size();
    Some(Tty { term: std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()), rows, cols })
}

/// Connects the user with the program until one of them ends. `started(os)` is called once the program runs. The note
/// that it returns is shown after the switch to raw mode, so that the local terminal does not edit or translate what the
/// user types as soon as he reads it.
///
/// # Errors
/// A broken connection, an error of the server, SIGTERM or SIGHUP.
pub async fn run(
    ui: &mut Ui,
    (sink, mut stream): (TerminalInput, TerminalOutput),
    mode: Mode,
    mut started: impl FnMut(bool) -> Option<&'static str>,
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
        let message = message.inspect_err(|_| busy.clear())?;
        if !matches!(message, Some(Output::Message(ServerMessage::Busy { .. }))) {
            busy.clear();
        }
        let (to, bytes) = match message {
            Some(Output::Stdout(bytes)) => (&stdout, local.filtered(bytes)),
            Some(Output::Stderr(bytes)) => (&stderr, bytes),
            Some(Output::Message(ServerMessage::Busy { label })) => {
                busy.label(&label);
                continue;
            }
            Some(Output::Message(message)) => match local.message(message, &mut started)? {
                Some(outcome) => return Ok(outcome),
                None => continue,
            },
            Some(Output::NodeStdout(..) | Output::NodeStderr(..)) => {
                return Err(Error::Broken("the server sent output of several nodes".to_owned()).into());
            }
            None => {
                return Err(Error::Broken(
                    "the server closed the terminal without an exit status".to_owned(),
                )
                .into());
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
        }
    }

    fn outcome(&mut self, end: End) -> Outcome {
        Outcome { end, session: self.session.take() }
    }

    /// Output of the program, as the local terminal shows it.
    fn filtered(&mut self, bytes: Vec<u8>) -> Vec<u8> {
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
            ServerMessage::Started { session, os } => {
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
                let _ = self.control.try_send(Control::Begin);
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

    fn send_size(&self) {
        let (rows, cols) = window_size();
        let _ = self.control.try_send(Control::Message(ClientMessage::Resize { rows, cols }));
    }
}

/// Sends input and control messages; ends only when the connection or the user is gone.
async fn feed(
    input: &mut Input,
    mut sink: TerminalInput,
    mut controls: mpsc::Receiver<Control>,
    mode: Mode,
) -> FeedEnd {
    let mut reading = mode == Mode::Script;
    let mut ended = false;
    let mut total = 0;
    let mut keys = (mode == Mode::Console).then(Keys::default);
    loop {
        let sent = tokio::select! {
            control = controls.recv() => match control {
                Some(Control::Message(message)) => sink.message(&message).await,
                Some(Control::Begin) if mode == Mode::NoInput => sink.message(&ClientMessage::Eof).await,
                Some(Control::Begin) => {
                    reading = true;
                    Ok(())
                }
                None => std::future::pending().await,
            },
            bytes = input.bytes(), if reading && !ended => match bytes {
                Ok(bytes) if bytes.is_empty() => {
                    ended = true;
                    // A user who only watches a console has no input to end.
                    if keys.is_some() { Ok(()) } else { sink.message(&ClientMessage::Eof).await }
                }
                Ok(mut bytes) => {
                    total += bytes.len();
                    if mode == Mode::Script && total > MAX_SCRIPT {
                        let most = MAX_SCRIPT >> 20;
                        return FeedEnd::Failed(Failure::new(format!("the script on standard input is larger than {most} MiB.")));
                    }
                    let detach = keys.as_mut().is_some_and(|keys| keys.read(&mut bytes));
                    let sent = sink.bytes(&bytes).await;
                    if detach {
                        return FeedEnd::Detached;
                    }
                    sent
                }
                // A terminal that hung up, or a closed standard input.
                Err(_) => {
                    ended = true;
                    sink.message(&ClientMessage::Eof).await
                }
            },
        };
        if let Err(error) = sent {
            return FeedEnd::Failed(error.into());
        }
    }
}
