//! Questions. They go to standard error, and are asked even if standard input is not a terminal, so that `echo y | walt …`
//! works. The end of the input counts as "no".

use crate::error::Failure;
use std::io;

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A line, without its end.
    Line(String),
    /// The end of the input (ctrl-D).
    End,
    /// ctrl-C.
    Interrupted,
    /// SIGTERM or SIGHUP, by its number: the user's terminal is gone.
    Terminated(i32),
}

impl Answer {
    /// The line, for a question that must be answered.
    ///
    /// # Errors
    /// There is no line, so the command ends.
    pub fn line(self) -> Result<String, Failure> {
        match self {
            Self::Line(line) => Ok(line),
            Self::End | Self::Interrupted => Err(Failure::Aborted { newline: true }),
            Self::Terminated(number) => Err(Failure::signal(number)),
        }
    }
}

/// A conversation with the user, or in tests with a script.
pub trait Dialog {
    /// Asks and waits for one line.
    async fn ask(&mut self, question: &str) -> io::Result<Answer>;
    /// Prints a note.
    fn note(&mut self, line: &str);
}

/// How a yes-or-no question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// `y`.
    Yes,
    /// `n`.
    No,
    /// No answer: the end of the input, or ctrl-C (then there is a `^C` on the line).
    None,
}

/// Asks `<question> (y/n): ` until the answer is `y` or `n`. Prints `OK.` after a yes, nothing after a no.
pub async fn decide(dialog: &mut impl Dialog, question: &str) -> Result<Decision, Failure> {
    loop {
        match dialog.ask(&format!("{question} (y/n): ")).await? {
            Answer::Line(line) if line == "y" => {
                dialog.note("OK.\n");
                return Ok(Decision::Yes);
            }
            Answer::Line(line) if line == "n" => return Ok(Decision::No),
            Answer::Line(_) => dialog.note("Invalid response."),
            Answer::End | Answer::Interrupted => return Ok(Decision::None),
            Answer::Terminated(number) => return Err(Failure::signal(number)),
        }
    }
}

#[cfg(test)]
pub mod fake {
    //! A conversation with a script.

    use super::{Answer, Dialog};
    use std::collections::VecDeque;
    use std::io;

    /// Gives the answers in order, then the end of the input; records all that passes.
    #[derive(Debug, Default)]
    pub struct Script {
        /// What the user will answer.
        pub answers: VecDeque<Answer>,
        /// All that was asked and printed: `?` question, `!` note.
        pub transcript: Vec<String>,
    }

    impl Script {
        /// A user who answers with these lines; `^C` is ctrl-C.
        pub fn new(answers: &[&str]) -> Self {
            let answer =
                |a: &&str| if *a == "^C" { Answer::Interrupted } else { Answer::Line((*a).to_owned()) };
            Self { answers: answers.iter().map(answer).collect(), transcript: Vec::new() }
        }
    }

    impl Dialog for Script {
        async fn ask(&mut self, question: &str) -> io::Result<Answer> {
            self.transcript.push(format!("?{question}"));
            Ok(self.answers.pop_front().unwrap_or(Answer::End))
        }
        fn note(&mut self, line: &str) {
            self.transcript.push(format!("!{line}"));
        }
    }

    /// Runs a future that never waits for anything real.
    pub fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{Script, block_on};
    use super::*;

    #[test]
    fn only_y_and_n_are_answers() {
        let mut user = Script::new(&["yes", "", "y"]);
        assert_eq!(block_on(decide(&mut user, "Are you sure?")).unwrap(), Decision::Yes);
        assert_eq!(
            user.transcript,
            [
                "?Are you sure? (y/n): ",
                "!Invalid response.",
                "?Are you sure? (y/n): ",
                "!Invalid response.",
                "?Are you sure? (y/n): ",
                "!OK.\n"
            ]
        );
    }
}
