//! The events that the server sends while it works, shown to the user.

use crate::{
    error::Failure,
    ui::{self, Ui},
};
use std::ops::ControlFlow;
use walt_api::{Event, FoundImage};
use walt_client::{Error, EventStream};

/// Shows one event; `Break` if it is the last one of an action that succeeded.
///
/// # Errors
/// The action failed.
pub fn show(ui: &mut Ui, event: Event) -> Result<ControlFlow<()>, Failure> {
    if !matches!(
        event,
        Event::Busy { .. } | Event::Progress { .. } | Event::Found { .. } | Event::Item { .. }
    ) {
        ui.busy.clear();
    }
    match event {
        Event::Out { text } => ui::out(&text)?,
        Event::Note { text } => ui::note(&text),
        Event::Busy { label } => ui.busy.label(&label),
        Event::Progress { label, done, total } => ui.busy.progress(&label, done, total),
        // Sent by searches only: see `follow_search`.
        Event::Found { .. } => {}
        // Its text has been printed.
        Event::Item { .. } => {}
        Event::Error { error } => return Err(error.into()),
        Event::Done { ok: true } => return Ok(ControlFlow::Break(())),
        Event::Done { ok: false } => return Err(Failure::reported()),
    }
    Ok(ControlFlow::Continue(()))
}

/// Shows events to their end. ctrl-C closes the stream, which cancels the action on the server.
pub async fn follow(ui: &mut Ui, mut events: EventStream) -> Result<(), Failure> {
    loop {
        let event = next(ui, &mut events).await?;
        if show(ui, event)?.is_break() {
            return Ok(());
        }
    }
}

/// As [`follow`], but prints nothing.
pub async fn follow_silently(ui: &mut Ui, mut events: EventStream) -> Result<(), Failure> {
    loop {
        match next(ui, &mut events).await? {
            Event::Out { .. } | Event::Note { .. } => ui.busy.clear(),
            event => {
                if show(ui, event)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// As [`follow`]; calls `found` for each image that a search finds.
pub async fn follow_search(
    ui: &mut Ui,
    mut events: EventStream,
    found: &mut dyn FnMut(&mut Ui, FoundImage),
) -> Result<(), Failure> {
    loop {
        match next(ui, &mut events).await? {
            Event::Found { image } => found(ui, image),
            event => {
                if show(ui, event)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

async fn next(ui: &mut Ui, events: &mut EventStream) -> Result<Event, Failure> {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            interrupt = ui.signals.next() => return Err(ui.interrupted(interrupt)),
            () = ui.busy.tick() => continue,
        };
        return event.inspect_err(|_| ui.busy.clear())?.ok_or_else(|| {
            ui.busy.clear();
            Error::ended_early().into()
        });
    }
}
