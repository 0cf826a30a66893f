//! Actions: asking for confirmation, and following what the server says while it works.

use crate::confirm::{MAX_CONFIRMATIONS, agree};
use crate::error::Failure;
use crate::ui::{self, Ui};
use walt_api::{Event, FoundImage, ImageAction, NodeAction, SessionAction};
use walt_client::{Client, EventStream, Reply};

/// An action of any kind.
#[derive(Debug, Clone)]
pub enum Action {
    /// On nodes.
    Node(NodeAction),
    /// On images.
    Image(ImageAction),
    /// On an image shell's session.
    Session(SessionAction),
}

impl Action {
    /// Sends it once.
    pub async fn send(&self, client: &mut Client, token: Option<&str>) -> walt_client::Result<Reply> {
        match self {
            Self::Node(action) => client.node_action(action, token).await,
            Self::Image(action) => client.image_action(action, token).await,
            Self::Session(action) => client.session_action(action, token).await,
        }
    }
}

impl From<NodeAction> for Action {
    fn from(action: NodeAction) -> Self {
        Self::Node(action)
    }
}

impl From<ImageAction> for Action {
    fn from(action: ImageAction) -> Self {
        Self::Image(action)
    }
}

impl From<SessionAction> for Action {
    fn from(action: SessionAction) -> Self {
        Self::Session(action)
    }
}

/// Does it: asks the user where the server wants that (not with `yes`), then follows it to its end.
pub async fn run(
    client: &mut Client,
    ui: &mut Ui,
    action: impl Into<Action>,
    yes: bool,
) -> Result<(), Failure> {
    let action = action.into();
    let mut token: Option<String> = None;
    for _ in 0..MAX_CONFIRMATIONS {
        match ui.watch(action.send(client, token.as_deref())).await? {
            Reply::Events(events) => return follow(ui, events).await,
            Reply::Confirm(confirmation) => {
                token = Some(agree(ui, confirmation, yes).await?);
            }
        }
    }
    Err(Failure::with_hint(
        "the nodes or images concerned changed each time you confirmed; nothing was done.",
        "Try again when the other users have finished.",
    ))
}

/// Prints events to their end. ctrl-C closes the stream, which cancels the action on the server.
pub async fn follow(ui: &mut Ui, events: EventStream) -> Result<(), Failure> {
    watch_events(ui, events, true).await
}

/// As [`follow`], without a word but for errors.
pub async fn follow_silently(ui: &mut Ui, events: EventStream) -> Result<(), Failure> {
    watch_events(ui, events, false).await
}

/// As [`follow`]; what a search finds is given to `found`.
pub async fn follow_search(
    ui: &mut Ui,
    events: EventStream,
    found: &mut dyn FnMut(&mut Ui, FoundImage),
) -> Result<(), Failure> {
    watch(ui, events, true, found).await
}

async fn watch_events(ui: &mut Ui, events: EventStream, print: bool) -> Result<(), Failure> {
    // Only searches find.
    watch(ui, events, print, &mut |_, _| {}).await
}

async fn watch(
    ui: &mut Ui,
    mut events: EventStream,
    print: bool,
    found: &mut dyn FnMut(&mut Ui, FoundImage),
) -> Result<(), Failure> {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            interrupt = ui.signals.next() => {
                ui.busy.clear();
                return Err(interrupt.failure());
            }
            () = ui.busy.tick() => continue,
        };
        let event = event.inspect_err(|_| ui.busy.clear())?;
        if !matches!(event, Some(Event::Busy { .. } | Event::Progress { .. } | Event::Found { .. })) {
            ui.busy.clear();
        }
        match event {
            Some(Event::Out { .. } | Event::Note { .. }) if !print => {}
            Some(Event::Out { text }) => ui::out(&text)?,
            Some(Event::Note { text }) => ui::note(&text),
            Some(Event::Busy { label }) => ui.busy.label(&label),
            Some(Event::Progress { label, done, total }) => ui.busy.progress(&label, done, total),
            Some(Event::Found { image }) => found(ui, image),
            Some(Event::Error { error }) => return Err(error.into()),
            Some(Event::Done { ok: true }) => return Ok(()),
            Some(Event::Done { ok: false }) => return Err(Failure::said()),
            None => {
                return Err(walt_client::Error::Broken("the server stopped before the end".to_owned()).into());
            }
        }
    }
}
