//! What becomes of an image shell's changes once its shell has ended: the questions of a terminal.
//!
//! ```text
//! name? ──empty: same name──▶ save ──409──▶ sure? ──y──▶ save with token ──▶ done
//!   ▲ ▲                        │               │n
//!   │ └── bad name, exists ────┘               │
//!   └──────────────────────────────────────────┘      ctrl-C, end of input: dropped, exit 1
//! ```

use crate::confirm::MAX_CONFIRMATIONS;
use crate::error::Failure;
use crate::ui::prompt::{Answer, Decision, Dialog, decide};
use walt_api::ErrorCode;

/// What the server says to a request to save.
#[derive(Debug)]
pub enum Saved {
    /// It would overwrite something.
    Ask {
        /// What it would do.
        warnings: Vec<String>,
        /// Agrees to it.
        token: String,
    },
    /// It is done, and what the server said has been printed.
    Done,
}

/// The user and the session.
pub trait Desk: Dialog {
    /// Saves under a name; `None` is the name of the image that was opened.
    async fn save(&mut self, name: Option<&str>, token: Option<&str>) -> Result<Saved, Failure>;
    /// Drops all changes.
    async fn discard(&mut self) -> Result<(), Failure>;
}

/// Asks what to do with the changes, and does it. `yes` answers the confirmations.
pub async fn ask_and_keep(desk: &mut impl Desk, image: &str, yes: bool) -> Result<(), Failure> {
    desk.note("------");
    desk.note("Your changes can be saved as a new image, or overwrite the image you opened.");
    desk.note("Enter a name, or just press <enter> to keep the same name; ctrl-C drops the changes.");
    desk.note("------");
    'name: loop {
        let name = match desk.ask("New image name: ").await? {
            Answer::Line(line) if line.trim().is_empty() => {
                desk.note(&format!("Selected: {image}"));
                None
            }
            Answer::Line(line) => Some(line.trim().to_owned()),
            Answer::End | Answer::Interrupted => return abort(desk).await,
            // The user has gone, without a word: the session stays, to be resumed.
            Answer::Terminated(number) => return Err(Failure::signal(number)),
        };
        let mut token = None;
        for _ in 0..MAX_CONFIRMATIONS {
            match desk.save(name.as_deref(), token.as_deref()).await {
                Ok(Saved::Done) => return Ok(()),
                Ok(Saved::Ask { warnings, token: new }) => {
                    warnings.iter().for_each(|w| desk.note(w));
                    let decision = if yes { Decision::Yes } else { decide(desk, "Are you sure?").await? };
                    match decision {
                        Decision::Yes => token = Some(new),
                        Decision::No => continue 'name,
                        Decision::None => return abort(desk).await,
                    }
                }
                Err(failure) if may_ask_again(&failure) => {
                    desk.note(&failure.text());
                    continue 'name;
                }
                Err(failure) => return Err(failure),
            }
        }
        desk.note("What this would overwrite changed each time you confirmed.");
    }
}

/// Whether another name may help.
fn may_ask_again(failure: &Failure) -> bool {
    matches!(failure, Failure::Api(e) if matches!(e.code, ErrorCode::BadRequest | ErrorCode::Refused))
}

async fn abort(desk: &mut impl Desk) -> Result<(), Failure> {
    desk.note("\nAborted.");
    desk.discard().await?;
    desk.note("The changes of this session were dropped.");
    Err(Failure::said())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::prompt::fake::{Script, block_on};
    use std::io;
    use walt_api::ApiError;

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

    impl Desk for Fake {
        async fn save(&mut self, name: Option<&str>, token: Option<&str>) -> Result<Saved, Failure> {
            if name == Some("other") {
                return Err(ApiError::new(ErrorCode::Refused, "Bad name: Image already exists.").into());
            }
            let name = name.unwrap_or("used");
            // The first token is out of date by the time it comes back.
            if name == "used" && token != Some("t2") {
                self.tokens += 1;
                let warnings = vec!["It would reboot 1 node.".to_owned()];
                return Ok(Saved::Ask { warnings, token: format!("t{}", self.tokens) });
            }
            self.saved = Some(name.to_owned());
            Ok(Saved::Done)
        }
        async fn discard(&mut self) -> Result<(), Failure> {
            self.dropped = true;
            Ok(())
        }
    }

    fn run(answers: &[&str]) -> (Result<(), Failure>, Fake) {
        let mut desk = Fake { user: Script::new(answers), dropped: false, saved: None, tokens: 0 };
        let end = block_on(ask_and_keep(&mut desk, "used", false));
        (end, desk)
    }

    #[test]
    fn a_new_name_is_saved_at_once() {
        let (end, desk) = run(&["mine"]);
        assert!(end.is_ok());
        assert_eq!(desk.saved.as_deref(), Some("mine"));
        assert_eq!(desk.user.said.first().unwrap(), "!------");
        assert_eq!(desk.user.said.last().unwrap(), "?New image name: ");
    }

    #[test]
    fn overwriting_asks_again_when_the_state_changed() {
        let (end, desk) = run(&["", "y", "y"]);
        assert!(end.is_ok());
        assert_eq!(desk.saved.as_deref(), Some("used"));
        assert_eq!(desk.user.said.iter().filter(|s| s.starts_with("?Are")).count(), 2);
        assert!(desk.user.said.contains(&"!Selected: used".to_owned()));
    }

    #[test]
    fn no_and_bad_names_lead_back_to_the_name() {
        let (end, desk) = run(&["", "n", "other", "mine"]);
        assert!(end.is_ok());
        assert_eq!(desk.saved.as_deref(), Some("mine"));
        assert_eq!(desk.user.said.iter().filter(|s| s.starts_with("?New")).count(), 3);
        assert!(!desk.user.said.iter().any(|s| s.contains("Aborted")));
    }

    #[test]
    fn ctrl_c_and_the_end_of_input_drop() {
        for answers in [&["^C"][..], &[], &["", "^C"], &[""]] {
            let (end, desk) = run(answers);
            assert!(matches!(end, Err(Failure::Status(1))), "{answers:?}");
            assert!(desk.dropped && desk.saved.is_none());
            assert_eq!(desk.user.said.last().unwrap(), "!The changes of this session were dropped.");
        }
    }

    #[test]
    fn a_user_who_vanishes_leaves_the_session() {
        let mut desk = Fake {
            user: Script { answers: [Answer::Terminated(1)].into(), said: vec![] },
            dropped: false,
            saved: None,
            tokens: 0,
        };
        assert!(matches!(block_on(ask_and_keep(&mut desk, "used", false)), Err(Failure::Status(129))));
        assert!(!desk.dropped);
    }
}
