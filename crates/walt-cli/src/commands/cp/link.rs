//! An open transfer: what the server says, what the user asks for by signals, and how much has passed.

use crate::confirm::{Attempt, confirmed};
use crate::context::Context;
use crate::error::Failure;
use crate::events;
use crate::ui::{self, Interrupt, Ui};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use walt_api::transfer::{ClientMessage, Open, ServerMessage, What};
use walt_client::{Error, TransferInput, TransferOutput, Transferred};

/// Frames between the thread that packs or unpacks and the connection.
pub const QUEUE: usize = 8;
/// What is shown while files are copied.
const LABEL: &str = "Transfering";

/// Does a transfer `once`, and again with the user's answer as often as the server asks for a confirmation; `yes`
/// answers all.
pub async fn transfer(
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

/// An open transfer, before its files and beside them.
pub struct Link<'a> {
    /// The user.
    pub ui: &'a mut Ui,
    /// Where files go to, until their sending begins.
    pub input: Option<TransferInput>,
    output: TransferOutput,
    /// The user does not want to wait for the node's boot any longer, or there is none to wait for.
    pub proceeded: bool,
    /// Once files are on their way.
    moved: Option<Moved>,
}

/// How much of the files has passed.
struct Moved {
    bytes: Rc<Cell<u64>>,
    /// 0 if it is not known.
    total: u64,
}

impl<'a> Link<'a> {
    /// Opens it.
    pub async fn open(context: &'a mut Context, open: &Open) -> Result<Self, Failure> {
        let (input, output) = context.ui.watch(context.client.transfer(open)).await?;
        // Nobody waits for an image to boot.
        let proceeded = matches!(open.what, What::ToImage { .. } | What::FromImage { .. });
        Ok(Self { ui: &mut context.ui, input: Some(input), output, proceeded, moved: None })
    }

    /// From here on files are on their way: gives the counter of their bytes, which is shown.
    pub fn transferring(&mut self, total: u64) -> Rc<Cell<u64>> {
        let bytes = Rc::new(Cell::new(0));
        self.moved = Some(Moved { bytes: bytes.clone(), total });
        bytes
    }

    /// The next message, while `work` goes on; `None` for a signal that was dealt with, or the end of the work.
    /// "Press ctrl-C to proceed anyway": the first one before the copy begins does, the others abort.
    pub async fn next(&mut self, work: &mut Option<Work>) -> Result<Option<Option<Transferred>>, Failure> {
        if let Some(Moved { bytes, total }) = &self.moved {
            self.ui.busy.progress(LABEL, bytes.get(), *total);
        }
        tokio::select! {
            message = self.output.next() => Ok(Some(message.inspect_err(|_| self.ui.busy.clear())?)),
            done = async { work.as_mut().expect("the guard says so").await }, if work.is_some() => {
                (*work, self.moved) = (None, None);
                match done {
                    Ok(()) => done_line(self.ui),
                    // What the server says about the end of the connection is better: go on reading.
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

/// Files on their way to the server.
pub type Work = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Shows a message of the server; `Break` at the last one of a copy that succeeded.
///
/// # Errors
/// The copy failed.
pub fn follow(ui: &mut Ui, message: Option<Transferred>) -> Result<ControlFlow<()>, Failure> {
    match message {
        Some(Transferred::Message(ServerMessage::Event { event })) => events::show(ui, event),
        Some(_) => Ok(ControlFlow::Continue(())),
        None => {
            ui.busy.clear();
            Err(Error::ended_early().into())
        }
    }
}

/// The end of the animation.
pub fn done_line(ui: &mut Ui) {
    ui.busy.clear();
    if ui.interactive {
        ui::note(&format!("{LABEL}... done"));
    }
    ui.busy.label("Server is working");
}

/// Lets the server copy: no files pass here.
pub async fn remote(context: &mut Context, what: What, yes: bool) -> Result<(), Failure> {
    transfer(context, what, yes, remote_once).await
}

async fn remote_once(context: &mut Context, open: &Open) -> Result<(), Failure> {
    let mut link = Link::open(context, open).await?;
    loop {
        let Some(message) = link.next(&mut None).await? else { continue };
        if follow(link.ui, message)?.is_break() {
            return Ok(());
        }
    }
}
