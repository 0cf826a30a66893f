//! The user's side of a terminal: both shells, `run`, `console` and `ping`.
//!
//! ```text
//! opened ──(Busy, Note: wait for a boot, for a container)──▶ Started ──(bytes)──▶ Exited
//!    └ a script is sent already here, up to MAX_SCRIPT           └ raw mode, if interactive
//! ```
//!
//! The local terminal is restored by a guard at every end: return, error, panic, SIGTERM, SIGHUP.
//! In raw mode ctrl-C is a byte for the program there; a real SIGINT ends the command.

mod console;
mod raw;

use crate::error::Failure;
use crate::fds::{Input, Output as Fd};
use crate::ui::{self, Interrupt, Ui};
use console::{Cleaner, Keys};
use raw::RawMode;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use walt_api::term::{ClientMessage, MAX_SCRIPT, ServerMessage, Tty};
use walt_client::{Error, Output, TerminalInput, TerminalOutput};

pub use raw::{NoEcho, window_size};

/// Window sizes and the like that wait to be sent; what does not fit is superseded anyway.
const CONTROL_QUEUE: usize = 16;

/// How the user's terminal and the remote program are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The program has a terminal, which is ours in raw mode.
    Raw,
    /// The console of a node: as `Raw` if interactive, with keys of our own and without clearing.
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

/// The end of a terminal.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The session, once it started, for an image shell.
    pub session: Option<String>,
}

enum Control {
    Message(ClientMessage),
    Begin,
}

/// Whether the feeding of input still goes on, or the user asked to leave.
enum Fed {
    Gone(Failure),
    Detached,
}

/// Terminal of the caller, to be sent when one is opened; `None` if the command is not interactive.
pub fn local_tty(ui: &Ui) -> Option<Tty> {
    if !ui.interactive {
        return None;
    }
    let (rows, cols) = window_size();
    Some(Tty { term: std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()), rows, cols })
}

/// Connects the user with the program until one of them ends. `started(os)` is called once it runs; what
/// it returns is told to the user, in raw mode already: what is typed upon reading it is not edited or
/// translated by the local terminal.
pub async fn run(
    ui: &mut Ui,
    (sink, mut stream): (TerminalInput, TerminalOutput),
    mode: Mode,
    mut started: impl FnMut(bool) -> Option<&'static str>,
) -> Result<Outcome, Failure> {
    let Ui { input, signals, busy, interactive } = ui;
    let interactive = *interactive;
    let (control, orders) = mpsc::channel(CONTROL_QUEUE);
    let mut feeding = std::pin::pin!(feed(input, sink, orders, mode));
    let mut feeding_over = false;
    let mut resized = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let (stdout, stderr) = (Fd::new(&io::stdout())?, Fd::new(&io::stderr())?);
    let mut cleaner = (mode == Mode::Console).then(Cleaner::default);
    let mut raw: Option<RawMode> = None;
    let (mut running, mut proceeded) = (false, false);
    let mut session = None;
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            fed = &mut feeding, if !feeding_over => {
                feeding_over = true;
                match fed {
                    Fed::Detached => return Ok(Outcome { end: End::Detached, session }),
                    // What the server says about the end of the connection is better: go on reading.
                    Fed::Gone(Failure::Client(_)) => continue,
                    Fed::Gone(failure) => return Err(failure),
                }
            }
            interrupt = signals.next() => {
                busy.clear();
                match interrupt {
                    Interrupt::Interrupted if interactive && !running && !proceeded => {
                        // "Press ctrl-C to proceed anyway": the second one aborts.
                        proceeded = true;
                        let _ = control.try_send(Control::Message(ClientMessage::Proceed));
                        continue;
                    }
                    Interrupt::Interrupted => return Ok(Outcome { end: End::Interrupted, session }),
                    Interrupt::Terminated(_) => return Err(interrupt.failure()),
                }
            }
            _ = resized.recv() => {
                send_size(&control);
                continue;
            }
            _ = continued.recv() => {
                if let Some(raw) = &raw {
                    raw.again();
                }
                send_size(&control);
                continue;
            }
            () = busy.tick(), if !running => continue,
        };
        let message = message.inspect_err(|_| busy.clear())?;
        if !matches!(message, Some(Output::Message(ServerMessage::Busy { .. }))) {
            busy.clear();
        }
        let write = match message {
            Some(Output::Stdout(bytes)) => match &mut cleaner {
                Some(cleaner) => (&stdout, cleaner.clean(&bytes)),
                None => (&stdout, bytes),
            },
            Some(Output::Stderr(bytes)) => (&stderr, bytes),
            Some(Output::Message(ServerMessage::Busy { label })) => {
                busy.label(&label);
                continue;
            }
            Some(Output::Message(ServerMessage::Note { text })) => {
                tell(raw.as_ref(), &text);
                continue;
            }
            Some(Output::Message(ServerMessage::Started { session: id, os })) => {
                running = true;
                session = id;
                let said = started(os);
                if interactive && matches!(mode, Mode::Raw | Mode::Console) {
                    raw = Some(RawMode::enter()?);
                    // The window may have changed while the program was being started.
                    send_size(&control);
                }
                if let Some(said) = said {
                    tell(raw.as_ref(), said);
                }
                let _ = control.try_send(Control::Begin);
                continue;
            }
            Some(Output::Message(ServerMessage::Exited { status })) => {
                return Ok(Outcome { end: End::Exited(status), session });
            }
            // Builds only.
            Some(Output::Message(ServerMessage::Credentials { .. })) => continue,
            Some(Output::Message(ServerMessage::Error { error })) => return Err(error.into()),
            None => return Err(Error::Broken("the terminal ended without a status".to_owned()).into()),
        };
        tokio::select! {
            written = write.0.write(&write.1) => written?,
            // A reader that does not read must not make us immortal.
            interrupt = signals.next() => return match interrupt {
                Interrupt::Interrupted => Ok(Outcome { end: End::Interrupted, session }),
                Interrupt::Terminated(_) => Err(interrupt.failure()),
            },
        }
    }
}

/// A note; a terminal in raw mode does not return the carriage by itself.
fn tell(raw: Option<&RawMode>, text: &str) {
    match raw {
        Some(_) => ui::note(&(text.replace('\n', "\r\n") + "\r")),
        None => ui::note(text),
    }
}

fn send_size(control: &mpsc::Sender<Control>) {
    let (rows, cols) = window_size();
    let _ = control.try_send(Control::Message(ClientMessage::Resize { rows, cols }));
}

/// Sends input and control messages; ends only when the connection or the user is gone.
async fn feed(
    input: &mut Input,
    mut sink: TerminalInput,
    mut orders: mpsc::Receiver<Control>,
    mode: Mode,
) -> Fed {
    let mut reading = mode == Mode::Script;
    let mut over = false;
    let mut total = 0;
    let mut keys = (mode == Mode::Console).then(Keys::default);
    loop {
        let sent = tokio::select! {
            order = orders.recv() => match order {
                Some(Control::Message(message)) => sink.message(&message).await,
                Some(Control::Begin) if mode == Mode::NoInput => sink.message(&ClientMessage::Eof).await,
                Some(Control::Begin) => {
                    reading = true;
                    Ok(())
                }
                None => std::future::pending().await,
            },
            bytes = input.bytes(), if reading && !over => match bytes {
                Ok(bytes) if bytes.is_empty() => {
                    over = true;
                    // Whoever only watches a console has no input to end.
                    if keys.is_some() { Ok(()) } else { sink.message(&ClientMessage::Eof).await }
                }
                Ok(mut bytes) => {
                    total += bytes.len();
                    if mode == Mode::Script && total > MAX_SCRIPT {
                        let most = MAX_SCRIPT >> 20;
                        return Fed::Gone(Failure::new(format!("the script on standard input has more than {most} MiB.")));
                    }
                    let detach = keys.as_mut().is_some_and(|keys| keys.read(&mut bytes));
                    let sent = sink.bytes(&bytes).await;
                    if detach {
                        return Fed::Detached;
                    }
                    sent
                }
                // A terminal that hung up, or a closed standard input.
                Err(_) => {
                    over = true;
                    sink.message(&ClientMessage::Eof).await
                }
            },
        };
        if let Err(error) = sent {
            return Fed::Gone(error.into());
        }
    }
}
