//! The user's side of a command on several nodes.
//!
//! ```text
//! Nodes ──▶ output of nodes, NodeExited, NodeFailed, Busy … ──▶ Exited
//!    └ standard input, at most INPUT_WINDOW bytes that nobody has read
//!    └ ctrl-C: Interrupt; the commands end on the nodes. Again, or after STOP_WAIT: leave
//! ```

pub mod lines;
pub mod report;

use crate::{
    error::Failure,
    stdio::Output as LocalOutput,
    ui::{self, Interrupt, Ui},
};
use lines::Lines;
use report::{NodeReport, Report};
use std::{io, time::Duration};
use tokio::time::Instant;
use walt_api::term::{ClientMessage, INPUT_WINDOW, ServerMessage};
use walt_client::{Error, Output, TerminalInput, TerminalOutput};

/// How long the commands may take to end after ctrl-C: longer than the server takes for its hardest signal.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// What is done with the output.
enum Shown {
    /// Passed on: there is one node.
    Plain,
    /// Lines with names: standard output and error of each node.
    Prefixed(Vec<[Lines; 2]>),
    /// Kept for the report.
    Kept,
}

/// One command on several nodes.
pub struct NodeRun {
    names: Vec<String>,
    shown: Shown,
    reports: Vec<NodeReport>,
    stdout: LocalOutput,
    stderr: LocalOutput,
    /// What is waited for, if anything.
    label: Option<String>,
    /// Bytes of input that no program has read yet.
    unread: usize,
    /// When to leave after ctrl-C.
    leave: Option<Instant>,
    proceeded: bool,
}

impl NodeRun {
    /// The command on these nodes; `of_terminal` if it has a terminal on each.
    ///
    /// # Errors
    /// Standard output or error cannot be used.
    pub fn new(names: Vec<String>, json: bool, of_terminal: bool) -> io::Result<Self> {
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let lines = |name: &String| [(); 2].map(|()| Lines::new(name, width, of_terminal));
        let shown = match names.len() {
            _ if json => Shown::Kept,
            1 => Shown::Plain,
            _ => Shown::Prefixed(names.iter().map(lines).collect()),
        };
        let reports = names.iter().cloned().map(NodeReport::new).collect();
        let (stdout, stderr) = (LocalOutput::new(&io::stdout())?, LocalOutput::new(&io::stderr())?);
        let (label, unread, leave, proceeded) = (None, 0, None, false);
        Ok(Self { names, shown, reports, stdout, stderr, label, unread, leave, proceeded })
    }

    /// Connects the user with the command until it has ended on all nodes.
    ///
    /// # Errors
    /// The highest status if that is not 0; ctrl-C, a signal, a broken connection, or an error of the server.
    pub async fn run(
        mut self,
        ui: &mut Ui,
        (mut sink, mut stream): (TerminalInput, TerminalOutput),
    ) -> Result<(), Failure> {
        let mut is_input_open = true;
        let status = loop {
            let Ui { input, signals, busy, interactive } = &mut *ui;
            let leave = self.leave;
            tokio::select! {
                message = stream.next() => {
                    let message = message.inspect_err(|_| busy.clear())?;
                    if !matches!(message, Some(Output::Message(ServerMessage::Consumed { .. }))) {
                        busy.clear();
                    }
                    if let Some(status) = self.message(ui, message).await? {
                        break status;
                    }
                }
                bytes = input.bytes(), if is_input_open && self.unread < INPUT_WINDOW => {
                    // An error: a terminal that hung up, or a closed standard input.
                    let bytes = bytes.unwrap_or_default();
                    self.unread += bytes.len();
                    is_input_open = !bytes.is_empty();
                    let sent = match is_input_open {
                        true => sink.bytes(&bytes).await,
                        false => sink.message(&ClientMessage::Eof).await,
                    };
                    // The server may explain the end of the connection better: go on reading.
                    is_input_open &= sent.is_ok();
                }
                interrupt = signals.next() => {
                    busy.clear();
                    let message = self.interrupted(interrupt, *interactive)?;
                    let _the_same = sink.message(&message).await;
                }
                () = tokio::time::sleep_until(leave.unwrap_or_else(Instant::now)), if leave.is_some() => {
                    ui::note("The command does not end on all nodes.");
                    return Err(Failure::Aborted { newline: true });
                }
                () = busy.tick(), if self.label.is_some() => {}
            }
        };
        self.end(ui, status).await
    }

    /// Acts on a signal; what the server is told.
    fn interrupted(&mut self, interrupt: Interrupt, interactive: bool) -> Result<ClientMessage, Failure> {
        match interrupt {
            Interrupt::Terminated(_) => Err(interrupt.failure()),
            // One node that boots: the first ctrl-C means not to wait, as for a shell.
            Interrupt::Interrupted
                if interactive && self.names.len() == 1 && self.label.is_some() && !self.proceeded =>
            {
                self.proceeded = true;
                Ok(ClientMessage::Proceed)
            }
            Interrupt::Interrupted if self.leave.is_none() => {
                self.leave = Some(Instant::now() + STOP_WAIT);
                Ok(ClientMessage::Interrupt)
            }
            // The server ends the commands also without us.
            Interrupt::Interrupted => Err(interrupt.failure()),
        }
    }

    /// Acts on a message; the status if it is the last one.
    async fn message(&mut self, ui: &mut Ui, message: Option<Output>) -> Result<Option<i32>, Failure> {
        match message {
            Some(Output::NodeStdout(node, bytes)) => self.output(ui, node, false, &bytes).await?,
            Some(Output::NodeStderr(node, bytes)) => self.output(ui, node, true, &bytes).await?,
            Some(Output::Message(message)) => return self.notice(ui, message).await,
            Some(Output::Stdout(_) | Output::Stderr(_)) => {
                return Err(Error::Broken("the server sent output of an unknown node".to_owned()).into());
            }
            None => return Err(Error::ended_early().into()),
        }
        Ok(None)
    }

    async fn notice(&mut self, ui: &mut Ui, message: ServerMessage) -> Result<Option<i32>, Failure> {
        match message {
            ServerMessage::Busy { label } => {
                ui.busy.label(&label);
                self.label = Some(label).filter(|label| !label.is_empty());
            }
            ServerMessage::Note { text } => ui::note(&text),
            ServerMessage::Consumed { bytes } => self.unread = self.unread.saturating_sub(bytes),
            ServerMessage::NodeExited { node, status } => {
                self.known(node)?.status = Some(status);
                self.last_lines(ui, node).await?;
            }
            ServerMessage::NodeFailed { node, reason, .. } => {
                self.last_lines(ui, node).await?;
                match (&self.shown, self.names.len()) {
                    (Shown::Kept, _) => {}
                    (_, 1) => ui::note(&format!("Error: {reason}")),
                    // Known: its last lines were just looked for.
                    _ => ui::note(&format!("Error: {}: {reason}", self.names[node])),
                }
                self.known(node)?.error = Some(reason);
            }
            ServerMessage::Exited { status } => return Ok(Some(status)),
            ServerMessage::Error { error } => return Err(error.into()),
            ServerMessage::Nodes { .. }
            | ServerMessage::Started { .. }
            | ServerMessage::Credentials { .. }
            | ServerMessage::Eof => {}
        }
        Ok(None)
    }

    fn known(&mut self, node: usize) -> Result<&mut NodeReport, Failure> {
        let unknown = || Error::Broken(format!("the server speaks of an unknown node ({node})"));
        self.reports.get_mut(node).ok_or_else(|| unknown().into())
    }

    /// Output of a node: standard output, or error.
    async fn output(&mut self, ui: &mut Ui, node: usize, is_err: bool, bytes: &[u8]) -> Result<(), Failure> {
        self.known(node)?;
        match &mut self.shown {
            Shown::Kept => {
                let report = &mut self.reports[node];
                let (stream, count) = match is_err {
                    false => (&mut report.stdout, &mut report.stdout_bytes),
                    true => (&mut report.stderr, &mut report.stderr_bytes),
                };
                stream.push(bytes);
                *count += bytes.len() as u64;
                Ok(())
            }
            Shown::Plain => self.write(ui, is_err, bytes).await,
            Shown::Prefixed(lines) => {
                let lines = lines[node][usize::from(is_err)].push(bytes);
                self.write(ui, is_err, &lines).await
            }
        }
    }

    /// What a node has said without an end of line.
    async fn last_lines(&mut self, ui: &mut Ui, node: usize) -> Result<(), Failure> {
        self.known(node)?;
        for is_err in [false, true] {
            if let Shown::Prefixed(lines) = &mut self.shown {
                let line = lines[node][usize::from(is_err)].end();
                self.write(ui, is_err, &line).await?;
            }
        }
        Ok(())
    }

    async fn write(&self, ui: &mut Ui, is_err: bool, bytes: &[u8]) -> Result<(), Failure> {
        let to = if is_err { &self.stderr } else { &self.stdout };
        tokio::select! {
            written = to.write(bytes) => Ok(written?),
            // A reader that does not read must not keep us from ending.
            interrupt = ui.signals.next() => Err(interrupt.failure()),
        }
    }

    /// The end of the command.
    async fn end(mut self, ui: &mut Ui, status: i32) -> Result<(), Failure> {
        for node in 0..self.names.len() {
            self.last_lines(ui, node).await?;
        }
        if matches!(self.shown, Shown::Kept) {
            ui::out_json(&Report { status, nodes: self.reports })?;
        }
        match status {
            _ if self.leave.is_some() => Err(Failure::Aborted { newline: true }),
            0 => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }
}
