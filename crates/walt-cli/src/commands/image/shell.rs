//! `walt image shell`

mod save_prompt;

use crate::{
    action::Action,
    commands::options::Confirmed,
    confirm::Attempt,
    context::Context,
    error::Failure,
    events,
    terminal::{self, End, Mode},
    ui::{
        self,
        prompt::{Answer, Dialog},
    },
};
use clap::Args;
use save_prompt::Session;
use std::io;
use walt_api::SessionAction;
use walt_api::term::OpenImageShell;

/// Printed if the image's operating system was started.
const NOTE_OS: &str = "Note: the OS was started in a virtual environment.\n\
                       Run 'walt help show shells' for more info.\n";
/// Printed if it was not.
const NOTE_SHELL_ONLY: &str = "Note: this is a limited virtual environment (with just the shell process).\n\
                           Run 'walt help show shells' for more info.\n";

/// `walt image shell`
#[derive(Debug, Args)]
pub struct Shell {
    image_name: String,
    /// save without asking if the shell's status is 0, as the same image or as NAME
    #[arg(
        long,
        value_name = "NAME:str",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        allow_hyphen_values = true
    )]
    save: Option<String>,
    /// resume the open session of this image
    #[arg(long)]
    resume: bool,
    /// end the open session of this image and drop its changes
    #[arg(long, conflicts_with_all = ["resume", "save"])]
    discard: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Shell {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.discard {
            return context.action(SessionAction::DiscardImage { image: self.image_name }, true).await;
        }
        let tty = terminal::local_tty(&context.ui);
        let interactive = tty.is_some();
        let mode = match (interactive, self.resume) {
            (true, _) => Mode::Raw,
            (false, true) => Mode::Pipes,
            (false, false) => Mode::Script,
        };
        let open = OpenImageShell { image: self.image_name.clone(), tty, resume: self.resume };
        let pair = context.ui.watch(context.client.image_shell(&open)).await?;
        let resume = self.resume;
        let mut running = false;
        let outcome = terminal::run(&mut context.ui, pair, mode, |os| {
            running = true;
            (!resume).then_some(if os { NOTE_OS } else { NOTE_SHELL_ONLY })
        })
        .await;
        let outcome = match outcome {
            Err(failure @ Failure::Client(_)) if running => return Err(self.session_kept(failure)),
            other => other?,
        };
        let Some(id) = outcome.session else {
            return Err(match outcome.end {
                End::Exited(status) => Failure::Status(status.max(1)),
                End::Interrupted | End::Detached => Failure::Aborted { newline: true },
            });
        };
        let mut session = OpenSession { context, id };
        let status = match outcome.end {
            End::Exited(status) => status,
            End::Interrupted | End::Detached => return save_prompt::abort(&mut session).await,
        };
        let result = match &self.save {
            Some(name) if status == 0 => session.save_at_once(name).await,
            // An interactive shell returns the status of its last command: a failure there does not drop the work.
            _ if interactive => {
                save_prompt::ask_and_save(&mut session, &self.image_name, self.confirmed.yes).await
            }
            save => {
                session.discard().await?;
                ui::note(&match save {
                    Some(_) => format!("The shell exited with status {status}: its changes were dropped."),
                    None => {
                        "Note: the changes were dropped, because there is no terminal to ask what to do with \
                         them. Use --save to save them."
                            .to_owned()
                    }
                });
                return if status == 0 { Ok(()) } else { Err(Failure::Status(status)) };
            }
        };
        match result {
            Err(failure @ (Failure::Client(_) | Failure::Api(_) | Failure::Aborted { .. })) => {
                Err(self.session_kept(failure))
            }
            other => other,
        }
    }

    /// Prints the failure, and that the session is still there.
    fn session_kept(&self, failure: Failure) -> Failure {
        ui::note(&failure.text());
        ui::note(&format!(
            "The session is kept: resume it by 'walt image shell --resume {0}', or drop it by \
             'walt image shell --discard {0}'.",
            self.image_name
        ));
        Failure::reported()
    }
}

/// The user, and a session whose shell has ended.
struct OpenSession<'a> {
    context: &'a mut Context,
    id: String,
}

impl OpenSession<'_> {
    async fn save_at_once(&mut self, name: &str) -> Result<(), Failure> {
        let name = (!name.is_empty()).then(|| name.to_owned());
        let action = SessionAction::Save { session: self.id.clone(), name, yes: true };
        self.context.action(action, true).await
    }
}

impl Dialog for OpenSession<'_> {
    async fn ask(&mut self, question: &str) -> io::Result<Answer> {
        self.context.ask(question).await
    }
    fn note(&mut self, line: &str) {
        self.context.note(line);
    }
}

impl Session for OpenSession<'_> {
    async fn save(&mut self, name: Option<&str>, token: Option<&str>) -> Result<Attempt<()>, Failure> {
        let name = name.map(str::to_owned);
        let action: Action = SessionAction::Save { session: self.id.clone(), name, yes: false }.into();
        match self.context.attempt(&action, token).await? {
            Attempt::Question(confirmation) => Ok(Attempt::Question(confirmation)),
            Attempt::Done(events) => {
                events::follow(&mut self.context.ui, events).await?;
                Ok(Attempt::Done(()))
            }
        }
    }

    /// Prints nothing: the caller does.
    async fn discard(&mut self) -> Result<(), Failure> {
        let events = self.context.start(SessionAction::Discard { session: self.id.clone() }).await?;
        events::follow_silently(&mut self.context.ui, events).await
    }
}
