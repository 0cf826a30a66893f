//! What a command works with: the server and the user.

use crate::{
    action::Action,
    confirm::{Attempt, confirmed},
    error::Failure,
    events,
    ui::{
        Ui,
        prompt::{Answer, Dialog},
    },
};
use std::io;
use walt_client::{Client, EventStream, Reply};

/// What every command that talks to the server works with.
#[derive(Debug)]
pub struct Context {
    /// The server.
    pub client: Client,
    /// The user.
    pub ui: Ui,
}

impl Context {
    /// The server of the environment, and the user at standard input and output.
    ///
    /// # Errors
    /// The environment names no server, or signals cannot be watched.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { client: Client::from_env()?, ui: Ui::new()? })
    }

    /// Carries out an action and prints what it says; `yes` confirms without asking.
    pub async fn action(&mut self, action: impl Into<Action>, yes: bool) -> Result<(), Failure> {
        let action = action.into();
        let subject = "the nodes, devices or images concerned";
        let events = confirmed(self, yes, subject, async |context, token| {
            context.attempt(&action, token.as_deref()).await
        })
        .await?;
        events::follow(&mut self.ui, events).await
    }

    /// Sends an action once: its events, or the server's question.
    pub async fn attempt(
        &mut self,
        action: &Action,
        token: Option<&str>,
    ) -> Result<Attempt<EventStream>, Failure> {
        Ok(match self.ui.watch(action.send(&mut self.client, token)).await? {
            Reply::Confirm(confirmation) => Attempt::Question(confirmation),
            Reply::Events(events) => Attempt::Done(events),
        })
    }

    /// Starts an action that disturbs nobody, so that the server has nothing to ask.
    pub async fn start(&mut self, action: impl Into<Action>) -> Result<EventStream, Failure> {
        match self.attempt(&action.into(), None).await? {
            Attempt::Done(events) => Ok(events),
            Attempt::Question(_) => {
                Err(Failure::new("the server asks for a confirmation that this command does not expect."))
            }
        }
    }
}

impl Dialog for Context {
    async fn ask(&mut self, question: &str) -> io::Result<Answer> {
        self.ui.ask(question).await
    }

    fn note(&mut self, line: &str) {
        self.ui.note(line);
    }
}
