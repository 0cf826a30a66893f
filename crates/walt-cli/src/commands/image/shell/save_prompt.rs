//! Asks the user what to do with the changes of an image shell that has ended.
//!
//! ```text
//! name? ──empty: same name──▶ save ──409──▶ sure? ──y──▶ save with token ──▶ done
//!   ▲ ▲                        │               │n
//!   │ └── bad name, exists ────┘               │
//!   └──────────────────────────────────────────┘      ctrl-C, end of input: dropped, exit 1
//! ```

use crate::{
    confirm::{Attempt, Outcome, attempt_until_confirmed},
    error::Failure,
    ui::prompt::{Answer, Dialog},
};
use walt_api::ErrorCode;

/// A session whose shell has ended, and its user.
pub trait Session: Dialog {
    /// Saves under a name; `None` is the name of the image that was opened.
    async fn save(&mut self, name: Option<&str>, token: Option<&str>) -> Result<Attempt<()>, Failure>;
    /// Drops all changes.
    async fn discard(&mut self) -> Result<(), Failure>;
}

/// Asks what to do with the changes, and does it. `yes` answers the confirmations.
pub async fn ask_and_save(session: &mut impl Session, image: &str, yes: bool) -> Result<(), Failure> {
    session.note("------");
    session.note("Your changes can be saved as a new image, or overwrite the image you opened.");
    session.note("Enter a name, or just press <enter> to keep the same name; ctrl-C drops the changes.");
    session.note("------");
    loop {
        let name = match session.ask("New image name: ").await? {
            Answer::Line(line) if line.trim().is_empty() => {
                session.note(&format!("Selected: {image}"));
                None
            }
            Answer::Line(line) => Some(line.trim().to_owned()),
            Answer::End | Answer::Interrupted => return abort(session).await,
            // The user's terminal is gone: the session stays, to be resumed.
            Answer::Terminated(number) => return Err(Failure::signal(number)),
        };
        let saved = attempt_until_confirmed(session, yes, async |session: &mut _, token: Option<String>| {
            Session::save(session, name.as_deref(), token.as_deref()).await
        });
        match saved.await {
            Ok(Outcome::Done(())) => return Ok(()),
            Ok(Outcome::Declined) => {}
            Ok(Outcome::Interrupted) => return abort(session).await,
            Ok(Outcome::Unsettled) => {
                session.note("What this would overwrite changed each time you confirmed.");
            }
            Err(failure) if another_name_may_help(&failure) => session.note(&failure.text()),
            Err(failure) => return Err(failure),
        }
    }
}

fn another_name_may_help(failure: &Failure) -> bool {
    matches!(failure, Failure::Api(e) if matches!(e.code, ErrorCode::BadRequest | ErrorCode::Refused))
}

/// Drops the changes, and prints that.
pub async fn abort(session: &mut impl Session) -> Result<(), Failure> {
    session.note("\nAborted.");
    session.discard().await?;
    session.note("The changes of this session were dropped.");
    Err(Failure::reported())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::prompt::fake::{Script, block_on};
    use std::io;
    use walt_api::{ApiError, Confirmation};

    /// `used` is an image with a node, `other` exists and cannot be overwritten.
    struct Fake {
        user: Script,
        dropped: bool,
        saved: Option<String>,
        tokens: u32,
    }

    impl Dialog for Fake {
        async fn ask(&mut self, question: &str) -> io::Result<Answer> {
            self.user.ask(question).await
        }
        fn note(&mut self, line: &str) {
            self.user.note(line);
        }
    }

    impl Session for Fake {
        async fn save(&mut self, name: Option<&str>, token: Option<&str>) -> Result<Attempt<()>, Failure> {
            if name == Some("other") {
                return Err(ApiError::new(ErrorCode::Refused, "Bad name: Image already exists.").into());
            }
            let name = name.unwrap_or("used");
            // The first token is out of date by the time it comes back.
            if name == "used" && token != Some("t2") {
                self.tokens += 1;
                let warnings = vec!["It would reboot 1 node.".to_owned()];
                let token = format!("t{}", self.tokens);
                return Ok(Attempt::Question(Confirmation { warnings, token }));
            }
            self.saved = Some(name.to_owned());
            Ok(Attempt::Done(()))
        }
        async fn discard(&mut self) -> Result<(), Failure> {
            self.dropped = true;
            Ok(())
        }
    }

    fn run(answers: &[&str]) -> (Result<(), Failure>, Fake) {
        let mut session = Fake { user: Script::new(answers), dropped: false, saved: None, tokens: 0 };
        let end = block_on(ask_and_save(&mut session, "used", false));
        (end, session)
    }

    #[test]
    fn a_new_name_is_saved_at_once() {
        let (end, session) = run(&["mine"]);
        assert!(end.is_ok());
        assert_eq!(session.saved.as_deref(), Some("mine"));
        assert_eq!(session.user.transcript.first().unwrap(), "!------");
        assert_eq!(session.user.transcript.last().unwrap(), "?New image name: ");
    }

    #[test]
    fn overwriting_asks_again_when_the_state_changed() {
        let (end, session) = run(&["", "y", "y"]);
        assert!(end.is_ok());
        assert_eq!(session.saved.as_deref(), Some("used"));
        assert_eq!(session.user.transcript.iter().filter(|s| s.starts_with("?Are")).count(), 2);
        assert!(session.user.transcript.contains(&"!Selected: used".to_owned()));
    }

    #[test]
    fn no_and_bad_names_lead_back_to_the_name() {
        let (end, session) = run(&["", "n", "other", "mine"]);
        assert!(end.is_ok());
        assert_eq!(session.saved.as_deref(), Some("mine"));
        assert_eq!(session.user.transcript.iter().filter(|s| s.starts_with("?New")).count(), 3);
        assert!(!session.user.transcript.iter().any(|s| s.contains("Aborted")));
    }

    #[test]
    fn ctrl_c_and_the_end_of_input_drop() {
        for answers in [&["^C"][..], &[], &["", "^C"], &[""]] {
            let (end, session) = run(answers);
            assert!(matches!(end, Err(Failure::Status(1))), "{answers:?}");
            assert!(session.dropped && session.saved.is_none());
            assert_eq!(session.user.transcript.last().unwrap(), "!The changes of this session were dropped.");
        }
    }

    #[test]
    fn a_user_who_vanishes_leaves_the_session() {
        let mut session = Fake {
            user: Script { answers: [Answer::Terminated(1)].into(), transcript: vec![] },
            dropped: false,
            saved: None,
            tokens: 0,
        };
        assert!(matches!(block_on(ask_and_save(&mut session, "used", false)), Err(Failure::Status(129))));
        assert!(!session.dropped);
    }
}
