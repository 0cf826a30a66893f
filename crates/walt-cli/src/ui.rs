//! The only place that writes: results to standard output, everything else to standard error.

pub mod busy;
pub mod prompt;
pub mod table;

use crate::{error::Failure, stdio::Input};
use busy::Busy;
use prompt::{Answer, Dialog};
use std::io::{self, IsTerminal, Write};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// One result line on standard output.
pub fn out(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Text that ends with its own newline, on standard output.
pub fn out_text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// A value as JSON on standard output.
pub fn out_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(format!("cannot format this as JSON: {e}")))?;
    Ok(out(&text)?)
}

/// One line or more on standard error; errors while writing are ignored.
pub fn note(line: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(line.as_bytes());
    let _ = stderr.write_all(b"\n");
}

/// The title of a table: bold on a terminal.
pub fn title(text: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m\n") } else { format!("{text}\n") }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// ctrl-C.
    Interrupted,
    /// SIGTERM or SIGHUP, by its number: end without a message.
    Terminated(i32),
}

impl Interrupt {
    /// The failure of a command that the signal ends.
    pub fn failure(self) -> Failure {
        match self {
            Self::Interrupted => Failure::Aborted { newline: true },
            Self::Terminated(number) => Failure::signal(number),
        }
    }
}

/// Signals that end a command. Once this is created, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them.
    pub async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.interrupt.recv() => Interrupt::Interrupted,
            _ = self.terminate.recv() => Interrupt::Terminated(SignalKind::terminate().as_raw_value()),
            _ = self.hangup.recv() => Interrupt::Terminated(SignalKind::hangup().as_raw_value()),
        }
    }
}

/// Input from the user, and the state of the output to the user.
#[derive(Debug)]
pub struct Ui {
    /// Standard input.
    pub input: Input,
    /// ctrl-C, SIGTERM and SIGHUP.
    pub signals: Signals,
    /// The busy indicator.
    pub busy: Busy,
    /// Standard input and output are terminals.
    pub interactive: bool,
}

impl Ui {
    /// Must be called within the runtime.
    pub fn new() -> io::Result<Self> {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        Ok(Self {
            input: Input::new(),
            signals: Signals::new()?,
            busy: Busy::new(interactive && io::stderr().is_terminal()),
            interactive,
        })
    }

    /// Waits for `work` with the busy indicator; a signal ends it.
    pub async fn watch<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.busy.clear();
                    return done.map_err(Into::into);
                }
                interrupt = self.signals.next() => return Err(self.interrupted(interrupt)),
                () = self.busy.tick() => {}
            }
        }
    }

    /// The failure of a command that a signal ends; erases the busy indicator.
    pub fn interrupted(&mut self, interrupt: Interrupt) -> Failure {
        self.busy.clear();
        interrupt.failure()
    }
}

impl Dialog for Ui {
    async fn ask(&mut self, question: &str) -> io::Result<Answer> {
        self.busy.clear();
        {
            let mut stderr = io::stderr().lock();
            stderr.write_all(question.as_bytes())?;
            stderr.flush()?;
        }
        self.input.clear_eof();
        tokio::select! {
            line = self.input.line() => Ok(line?.map_or(Answer::End, Answer::Line)),
            interrupt = self.signals.next() => Ok(match interrupt {
                Interrupt::Interrupted => Answer::Interrupted,
                Interrupt::Terminated(number) => Answer::Terminated(number),
            }),
        }
    }

    fn note(&mut self, line: &str) {
        self.busy.clear();
        note(line);
    }
}

/// A count of bytes for people, in decimal units: `0 B`, `12.3 kB`, `4.5 GB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    // Invariant: 2^64 bytes are less than 1000 EB, so there is a unit for every count.
    let mut unit = units.next().unwrap_or("B");
    while value >= 999.95 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A time for people, by its two largest units: `45s`, `12m 3s`, `1h 59m`, `3d 4h`.
pub fn time_left(seconds: u64) -> String {
    let parts =
        [(seconds / 86400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts[first..].iter().take(2).filter(|(count, _)| *count > 0 || seconds == 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (60, "1m"),
            (723, "12m 3s"),
            (7199, "1h 59m"),
            (7200, "2h"),
            (3 * 86400 + 4 * 3600 + 59, "3d 4h"),
            (86400 + 59, "1d"),
        ] {
            assert_eq!(time_left(seconds), text);
        }
    }
}
