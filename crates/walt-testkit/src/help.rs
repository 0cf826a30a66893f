//! The examples of help pages, run as they stand there: lines that begin with `$ ` in blocks of code.
//!
//! ```text
//! let server = …;                        what the examples name must be there: nodes vn1, …
//! help::run(&server, user, "node-config", |example| how this one is run);
//! ```
//! An example goes through a shell, as a reader would type it. A comment behind it is left out. The line below it that is
//! not an example is what the page says that it prints: its first line must be printed.

use crate::{Ran, TestServer, User, repository};
use std::process::{Command, Stdio};

/// How an example is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It must end by itself, with the status 0.
    Ends,
    /// It goes on until ctrl-C, which comes after two seconds; it must end without a failure then.
    UntilInterrupted,
    /// As above; ctrl-C is not its normal end, so its status is 1 then.
    UntilAborted,
    /// It is not run: another test does what it says; and which.
    ElsewhereIn(&'static str),
}

/// One example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What is typed.
    pub command: String,
    /// What the page shows as its output.
    pub output: Vec<String>,
}

/// Seconds before ctrl-C, and bound of an example in seconds.
const INTERRUPT_S: &str = "2";
const LIMIT_S: &str = "120";

/// The examples of a page.
///
/// # Panics
/// The page does not exist.
pub fn examples(topic: &str) -> Vec<Example> {
    let path = repository().join("docs/help").join(topic).with_extension("md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    of_page(&page)
}

fn of_page(page: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    for block in page.split("\n```").skip(1).step_by(2) {
        let mut open = false;
        for line in block.lines().skip(1) {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => {
                    let command = command.split(" #").next().unwrap_or_default().trim().to_owned();
                    found.push(Example { command, output: Vec::new() });
                    open = true;
                }
                (None, Some(last)) if open => last.output.push(line.to_owned()),
                (None, _) => {}
            }
        }
    }
    found
}

/// Runs the examples of a page in their order.
///
/// # Panics
/// One fails, or does not print what the page says.
pub fn run(server: &TestServer, user: User, topic: &str, how: impl Fn(&Example) -> How) {
    let examples = examples(topic);
    assert!(!examples.is_empty(), "{topic} has no examples");
    for example in examples {
        let how = how(&example);
        let ran = match how {
            How::ElsewhereIn(test) => {
                eprintln!("{topic}: '{}' is run by {test}", example.command);
                continue;
            }
            How::Ends => shell(server, user, &["timeout", "-k", "5", LIMIT_S, "sh", "-c", &example.command]),
            How::UntilInterrupted | How::UntilAborted => {
                let command = format!("exec {}", example.command);
                let words = ["timeout", "--preserve-status", "-s", "INT", "-k", "5", INTERRUPT_S];
                shell(server, user, &[&words[..], &["sh", "-c", &command]].concat())
            }
        };
        let first = example.output.first().cloned().unwrap_or_default();
        let status = if how == How::UntilAborted { 1 } else { 0 };
        assert_eq!(ran.status, Some(status), "{topic}: {ran:?}");
        assert!(
            ran.out.contains(&first),
            "{topic} says that '{}' prints '{first}': {ran:?}",
            example.command
        );
    }
}

fn shell(server: &TestServer, user: User, words: &[&str]) -> Ran {
    let mut command = server.as_user(Command::new(words[0]), user);
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(&words[1..]).stdin(Stdio::null());
    command.env("PATH", format!("{}:{path}", server.dir().join("bin").display()));
    let output = command.output().unwrap_or_else(|e| panic!("{words:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran {
        command: words.join(" "),
        status: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_lines_with_a_prompt() {
        let page = "# T\n\n```\n$ walt a b    # what it does\n$ walt c\nprinted\n\nmore\n```\n\n`$ no`\n\n```\nkey: value\n```\n";
        let found = of_page(page);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].command.as_str(), found[0].output.len()), ("walt a b", 0));
        assert_eq!(found[1].output, ["printed", "", "more"]);
    }
}
