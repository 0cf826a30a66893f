//! Confirmations: the server asks for one before it does something that others would notice.
//!
//! ```text
//! attempt ──Done──▶ Done
//!   ▲    └──Question──▶ warnings, "Are you sure?" ──n──▶ Declined, ──ctrl-C, end of input──▶ Interrupted
//!   └── with the token ◀──y──────────┘                     after MAX_CONFIRMATIONS: Unsettled
//! ```
//! The token is valid for the state that the warnings describe; if it has changed, the server asks again.

use crate::{
    error::Failure,
    ui::prompt::{Decision, Dialog, decide},
};
use walt_api::Confirmation;

/// How often the user is asked about one request, each time because the state has changed.
const MAX_CONFIRMATIONS: usize = 10;

/// What one attempt at a request led to.
#[derive(Debug)]
pub enum Attempt<T> {
    /// It was carried out.
    Done(T),
    /// Nothing was done: the server asks first.
    Question(Confirmation),
}

impl<T> Attempt<T> {
    /// The attempt whose refusal may carry the server's question.
    ///
    /// # Errors
    /// All other failures.
    pub fn from_result(result: Result<T, Failure>) -> Result<Self, Failure> {
        match result {
            Ok(value) => Ok(Self::Done(value)),
            Err(Failure::Api(mut error)) => match error.confirmation.take() {
                Some(confirmation) => Ok(Self::Question(confirmation)),
                None => Err(Failure::Api(error)),
            },
            Err(failure) => Err(failure),
        }
    }
}

/// How a request ended that the user may have had to confirm.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It was carried out.
    Done(T),
    /// The user answered no.
    Declined,
    /// The user did not answer: ctrl-C, or the end of the input.
    Interrupted,
    /// The state changed each time the user confirmed.
    Unsettled,
}

/// Makes `attempt`, first without a token, then with one as long as the server asks and the user agrees. `yes`
/// answers all questions; the warnings are shown all the same.
///
/// # Errors
/// Those of `attempt`, and SIGTERM or SIGHUP while a question is open.
pub async fn attempt_until_confirmed<D: Dialog, T>(
    dialog: &mut D,
    yes: bool,
    mut attempt: impl AsyncFnMut(&mut D, Option<String>) -> Result<Attempt<T>, Failure>,
) -> Result<Outcome<T>, Failure> {
    let mut token = None;
    for _ in 0..MAX_CONFIRMATIONS {
        let confirmation = match attempt(dialog, token.take()).await? {
            Attempt::Done(value) => return Ok(Outcome::Done(value)),
            Attempt::Question(confirmation) => confirmation,
        };
        for warning in &confirmation.warnings {
            dialog.note(warning);
        }
        let decision = if yes { Decision::Yes } else { decide(dialog, "Are you sure?").await? };
        match decision {
            Decision::Yes => token = Some(confirmation.token),
            Decision::No => return Ok(Outcome::Declined),
            Decision::None => return Ok(Outcome::Interrupted),
        }
    }
    Ok(Outcome::Unsettled)
}

/// [`attempt_until_confirmed`] for a command that ends unless the user agrees. `subject` names what the warnings
/// are about, for the message about a state that kept changing.
///
/// # Errors
/// As above, and [`Failure::Aborted`].
pub async fn confirmed<D: Dialog, T>(
    dialog: &mut D,
    yes: bool,
    subject: &str,
    attempt: impl AsyncFnMut(&mut D, Option<String>) -> Result<Attempt<T>, Failure>,
) -> Result<T, Failure> {
    match attempt_until_confirmed(dialog, yes, attempt).await? {
        Outcome::Done(value) => Ok(value),
        Outcome::Declined => Err(Failure::Aborted { newline: false }),
        Outcome::Interrupted => Err(Failure::Aborted { newline: true }),
        Outcome::Unsettled => Err(Failure::with_hint(
            format!("{subject} changed each time you confirmed; nothing was done."),
            "Try again when the other users have finished.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::prompt::Answer;
    use crate::ui::prompt::fake::{Script, block_on};

    /// A request that asks `questions` times, and the tokens it was given.
    fn request(user: &mut Script, yes: bool, questions: usize) -> (Result<(), Failure>, Vec<Option<String>>) {
        let mut tokens = Vec::new();
        let end = block_on(confirmed(user, yes, "the image", async |_: &mut Script, token| {
            tokens.push(token);
            if tokens.len() > questions {
                return Ok(Attempt::Done(()));
            }
            let warnings = vec!["This would reboot 1 node.".to_owned()];
            Ok(Attempt::Question(Confirmation { warnings, token: format!("t{}", tokens.len()) }))
        }));
        (end, tokens)
    }

    #[test]
    fn anything_but_yes_aborts() {
        let ask = |answers: &[&str]| {
            let mut user = Script::new(answers);
            let (end, tokens) = request(&mut user, false, 1);
            assert_eq!(user.transcript[0], "!This would reboot 1 node.");
            assert_eq!(user.transcript[1], "?Are you sure? (y/n): ");
            (end, tokens.len())
        };
        assert!(matches!(ask(&["y"]), (Ok(()), 2)));
        assert!(matches!(ask(&["n"]), (Err(Failure::Aborted { newline: false }), 1)));
        assert!(matches!(ask(&["^C"]), (Err(Failure::Aborted { newline: true }), 1)));
        assert!(matches!(ask(&[]), (Err(Failure::Aborted { newline: true }), 1)));
        let mut gone = Script { answers: [Answer::Terminated(1)].into(), transcript: vec![] };
        assert!(matches!(request(&mut gone, false, 1).0, Err(Failure::Status(129))));
    }

    #[test]
    fn each_answer_confirms_its_own_question() {
        let mut user = Script::new(&["y", "y"]);
        let (end, tokens) = request(&mut user, false, 2);
        assert!(end.is_ok());
        assert_eq!(tokens, [None, Some("t1".to_owned()), Some("t2".to_owned())]);
    }

    #[test]
    fn yes_warns_without_asking_and_gives_up_in_the_end() {
        let mut user = Script::default();
        let (end, tokens) = request(&mut user, true, 1);
        assert!(end.is_ok() && tokens.len() == 2);
        assert_eq!(user.transcript, ["!This would reboot 1 node."]);
        let (end, tokens) = request(&mut user, true, usize::MAX);
        assert_eq!(tokens.len(), MAX_CONFIRMATIONS);
        let text = end.unwrap_err().text();
        assert!(
            text.starts_with("Error: the image changed each time you confirmed; nothing was done.\n"),
            "{text}"
        );
    }
}
