//! What a command works with: the server and the user.

use crate::{
    action::Action,
    confirm::{Attempt, confirmed},
    error::Failure,
    events, first_use,
    ui::{
        self, Ui,
        prompt::{Answer, Dialog},
    },
};
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use walt_client::{
    Client, EventStream, Patience, Reply,
    config::{self, Config},
};

/// How long a command waits for a server that restarts.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every command that talks to the server works with.
#[derive(Debug)]
pub struct Context {
    /// The server.
    pub client: Client,
    /// The user.
    pub ui: Ui,
    config: Config,
}

impl Context {
    /// The server of the environment or of the user's configuration, and the user at standard input and output.
    ///
    /// # Errors
    /// Nothing says which server, or signals cannot be watched.
    pub async fn new() -> Result<Self, Failure> {
        be_patient(tell);
        let loaded = config::load();
        let mut ui = Ui::new()?;
        loaded.notes.iter().for_each(|note| ui.note(note));
        let target = first_use::server(&mut ui, &loaded.config).await?;
        Ok(Self { client: Client::of(target)?, ui, config: loaded.config })
    }

    /// The user's name on the server. A name in the configuration that is another one is explained once, to people: the
    /// existing system believed it, here the account counts.
    pub async fn user(&mut self) -> Result<String, Failure> {
        let user = self.ui.watch(self.client.info()).await?.user.to_string();
        if let Some(name) = self.config.username()
            && name != user
            && io::stderr().is_terminal()
            && config::explain_once(&format!("username {name} {user}"))
        {
            self.note(&format!(
                "Note: ~/.walt/config says 'username: {name}', which has no effect: your name on this server is that of your \
                 account there, '{user}'. (see 'walt help show client-install')"
            ));
        }
        Ok(user)
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

/// Makes this process wait for a server that restarts; `tell` is called when that lasts.
pub fn be_patient(tell: fn()) {
    walt_client::be_patient(Patience { limit: PATIENCE, tell });
}

fn tell() {
    let limit = PATIENCE.as_secs();
    ui::note(&format!("The server does not answer: waiting up to {limit} s, in case it restarts."));
}

impl Dialog for Context {
    async fn ask(&mut self, question: &str) -> io::Result<Answer> {
        self.ui.ask(question).await
    }

    fn note(&mut self, line: &str) {
        self.ui.note(line);
    }
}
