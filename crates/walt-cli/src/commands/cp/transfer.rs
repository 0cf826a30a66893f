//! One copy over an open connection: the server's messages, the user's signals, and the progress shown.

use crate::{
    confirm::{Attempt, confirmed},
    context::Context,
    error::Failure,
    events,
    ui::{self, Interrupt, Ui},
};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use walt_api::transfer::{ClientMessage, Open, ServerMessage, What};
use walt_client::{Error, TransferInput, TransferOutput, Transferred};

/// Frames that wait between the thread that packs or unpacks and the connection.
pub const QUEUE: usize = 8;
/// What is shown while files are copied.
const LABEL: &str = "Transfering";

/// Makes a transfer, and repeats it with the user's answer as long as the server asks for a confirmation; `yes`
/// answers all questions.
pub async fn run_confirmed(
    context: &mut Context,
    what: What,
    yes: bool,
    once: impl AsyncFn(&mut Context, &Open) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut open = Open { what, confirm: None, yes: false };
    let subject = "what this would overwrite or disturb";
    confirmed(context, yes, subject, async |context: &mut Context, token| {
        open.confirm = token;
        Attempt::from_result(once(context, &open).await)
    })
    .await
}

/// An open transfer.
pub struct Transfer<'a> {
    /// The user.
    pub ui: &'a mut Ui,
    /// The direction to the server, until the upload takes it.
    pub input: Option<TransferInput>,
    output: TransferOutput,
    /// Nothing is left to wait for: the copy has begun, an image needs no boot, or the user pressed ctrl-C.
    pub proceeded: bool,
    /// Set once the copy has begun.
    progress: Option<Progress>,
}

/// How much has been copied.
struct Progress {
    bytes: Rc<Cell<u64>>,
    /// Bytes in all; 0 if unknown.
    total: u64,
}

impl<'a> Transfer<'a> {
    /// Opens it.
    pub async fn open(context: &'a mut Context, open: &Open) -> Result<Self, Failure> {
        let (input, output) = context.ui.watch(context.client.transfer(open)).await?;
        let proceeded = matches!(open.what, What::ToImage { .. } | What::FromImage { .. });
        Ok(Self { ui: &mut context.ui, input: Some(input), output, proceeded, progress: None })
    }

    /// Begins to show progress; the caller counts the copied bytes in the result.
    pub fn transferring(&mut self, total: u64) -> Rc<Cell<u64>> {
        let bytes = Rc::new(Cell::new(0));
        self.progress = Some(Progress { bytes: bytes.clone(), total });
        bytes
    }

    /// Waits for the next message while `upload` goes on. `None` after a signal that was handled, a tick, or the end
    /// of the upload; `Some(None)` once the server has closed.
    ///
    /// "Press ctrl-C to proceed anyway": the first ctrl-C does so if the copy has not begun; any other one aborts.
    pub async fn next(
        &mut self,
        upload: &mut Option<Upload>,
    ) -> Result<Option<Option<Transferred>>, Failure> {
        if let Some(Progress { bytes, total }) = &self.progress {
            self.ui.busy.progress(LABEL, bytes.get(), *total);
        }
        tokio::select! {
            message = self.output.next() => Ok(Some(message.inspect_err(|_| self.ui.busy.clear())?)),
            done = async { upload.as_mut().expect("the guard says so").await }, if upload.is_some() => {
                (*upload, self.progress) = (None, None);
                match done {
                    Ok(()) => finish_progress(self.ui),
                    // The server may explain the end of the connection better: go on reading.
                    Err(Failure::Client(_)) => {}
                    Err(failure) => {
                        self.ui.busy.clear();
                        return Err(failure);
                    }
                }
                Ok(None)
            }
            interrupt = self.ui.signals.next() => {
                self.ui.busy.clear();
                match &mut self.input {
                    Some(input) if interrupt == Interrupt::Interrupted && self.ui.interactive && !self.proceeded => {
                        self.proceeded = true;
                        input.message(&ClientMessage::Proceed).await?;
                        Ok(None)
                    }
                    _ => Err(interrupt.failure()),
                }
            }
            () = self.ui.busy.tick() => Ok(None),
        }
    }
}

/// The task that sends the files.
pub type Upload = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Shows a message of the server; `Break` at the last one of a copy that succeeded.
///
/// # Errors
/// The copy failed.
pub fn show_message(ui: &mut Ui, message: Option<Transferred>) -> Result<ControlFlow<()>, Failure> {
    match message {
        Some(Transferred::Message(ServerMessage::Event { event })) => events::show(ui, event),
        Some(_) => Ok(ControlFlow::Continue(())),
        None => {
            ui.busy.clear();
            Err(Error::ended_early().into())
        }
    }
}

/// Replaces the progress bar with a line that says it is done.
pub fn finish_progress(ui: &mut Ui) {
    ui.busy.clear();
    if ui.interactive {
        ui::note(&format!("{LABEL}... done"));
    }
    ui.busy.label("Server is working");
}

/// Copies from a node to an image: the server does it, no files pass through this machine.
pub async fn copy_on_server(context: &mut Context, what: What, yes: bool) -> Result<(), Failure> {
    run_confirmed(context, what, yes, copy_on_server_once).await
}

async fn copy_on_server_once(context: &mut Context, open: &Open) -> Result<(), Failure> {
    let mut transfer = Transfer::open(context, open).await?;
    loop {
        let Some(message) = transfer.next(&mut None).await? else { continue };
        if show_message(transfer.ui, message)?.is_break() {
            return Ok(());
        }
    }
}
