//! The examples of help pages, run as they stand there.
//!
//! A block of code of a page says by its mark what it is (`crates/walt-cli/src/topics/tests.rs` refuses others):
//!
//! | mark         | what                                                            | checked                              |
//! |--------------|-----------------------------------------------------------------|--------------------------------------|
//! | `console`    | commands behind `$ `, and what they print                       | run by the test that [`RUN_BY`] names |
//! | `text`       | an illustration: screens, sessions with a keyboard, placeholders | its `walt` commands are of the grammar |
//! | `sh`         | a script                                                        | `sh -n`                              |
//! | `yaml`       | a part of a configuration                                       | read as the server reads it          |
//! | `dockerfile` | a Dockerfile, or a part of one                                  | read as a build reads it             |
//!
//! ```text
//! let server = …;                        what the examples name must be there: nodes vn1, …
//! help::run(&server, user, "node-config", |example| how this one is run);
//! ```
//! An example goes through a shell, as a reader would type it. A comment behind it is left out. The lines below it that are
//! not examples are what the page says that it prints: the first one must be printed, whatever the number of spaces between
//! its words. If that one begins with `Error: `, the command must fail with it.

use crate::{Ran, TestServer, User, repository};
use std::path::Path;
use std::process::{Command, Stdio};

/// Which test runs the examples of which page.
pub const RUN_BY: &[(&str, &str)] = &[
    ("boot-modes", "tests/api/help.rs"),
    ("device-config", "tests/api/settings.rs"),
    ("device-expose", "tests/api/settings.rs"),
    ("device-netsetup", "tests/api/settings.rs"),
    ("device-sets", "tests/api/help.rs"),
    ("help-intro", "tests/boot/tutorial.rs"),
    ("image-cp", "tests/api/help.rs"),
    ("image-history", "tests/api/help.rs"),
    ("log-cat", "tests/boot/tutorial.rs"),
    ("log-checkpoint", "tests/api/logs.rs"),
    ("log-echo", "tests/boot/tutorial.rs"),
    ("log-format", "tests/api/logs.rs"),
    ("log-history", "tests/api/logs.rs"),
    ("log-issuers", "tests/api/logs.rs"),
    ("log-monitor", "tests/boot/tutorial.rs"),
    ("log-realtime", "tests/api/logs.rs"),
    ("log-show", "tests/api/logs.rs"),
    ("log-tee", "tests/boot/tutorial.rs"),
    ("log-wait", "tests/boot/tutorial.rs"),
    ("logging", "tests/boot/tutorial.rs"),
    ("node-bootup", "tests/boot/boots.rs"),
    ("node-config", "tests/api/settings.rs"),
    ("node-expose", "tests/api/settings.rs"),
    ("node-netsetup", "tests/api/settings.rs"),
    ("node-ownership", "tests/api/node_leases.rs"),
    ("node-reboot", "tests/boot/boots.rs"),
    ("shells", "tests/boot/tutorial.rs"),
    ("troubleshooting", "tests/boot/boots.rs"),
    ("tutorial", "tests/boot/tutorial.rs"),
    ("unmanaged-devices", "tests/api/help.rs"),
    ("vnode-disks", "tests/api/settings.rs"),
    ("vnode-networks", "tests/api/links/server.rs"),
    ("web-api", "tests/api/web.rs"),
    ("web-server", "tests/api/web.rs"),
];

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
/// Begin of the message of a command that must fail.
const FAILURE: &str = "Error: ";

/// The examples of a page.
///
/// # Panics
/// The page does not exist.
pub fn examples(topic: &str) -> Vec<Example> {
    of_blocks(&blocks(topic, "console"))
}

/// The blocks of code of a page that have this mark.
///
/// # Panics
/// The page does not exist.
pub fn blocks(topic: &str, mark: &str) -> Vec<String> {
    let path = repository().join("docs/help").join(topic).with_extension("md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    of_page(&page, mark)
}

fn of_page(page: &str, mark: &str) -> Vec<String> {
    let blocks = page.split("\n```").skip(1).step_by(2);
    let marked = blocks.filter_map(|block| block.split_once('\n').filter(|(first, _)| *first == mark));
    marked.map(|(_, code)| format!("{code}\n")).collect()
}

fn of_blocks(blocks: &[String]) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    for block in blocks {
        let mut open = false;
        for line in block.lines() {
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
    run_in(server, user, topic, Path::new("/"), how);
}

/// Like [`run`], in a directory that has the files that the examples name.
///
/// # Panics
/// As [`run`].
pub fn run_in(server: &TestServer, user: User, topic: &str, dir: &Path, how: impl Fn(&Example) -> How) {
    let examples = examples(topic);
    assert!(!examples.is_empty(), "{topic} has no examples");
    for example in examples {
        let how = how(&example);
        let ran = match how {
            How::ElsewhereIn(test) => {
                eprintln!("{topic}: '{}' is run by {test}", example.command);
                continue;
            }
            How::Ends => {
                shell(server, user, dir, &["timeout", "-k", "5", LIMIT_S, "sh", "-c", &example.command])
            }
            How::UntilInterrupted | How::UntilAborted => {
                let command = format!("exec {}", example.command);
                let words = ["timeout", "--preserve-status", "-s", "INT", "-k", "5", INTERRUPT_S];
                shell(server, user, dir, &[&words[..], &["sh", "-c", &command]].concat())
            }
        };
        check(topic, &example, &ran, if how == How::UntilAborted { 1 } else { 0 });
    }
}

/// Runs the examples of a page on a node that has booted.
///
/// # Panics
/// As [`run`].
pub fn run_on(server: &TestServer, user: User, node: &str, topic: &str) {
    let examples = examples(topic);
    assert!(!examples.is_empty(), "{topic} has no examples");
    for example in examples {
        let ran = server.walt(user, &["node", "run", node, &example.command]);
        check(topic, &example, &ran, 0);
    }
}

/// Compares what happened with what the page says.
fn check(topic: &str, example: &Example, ran: &Ran, status: i32) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = words(example.output.first().map_or("", String::as_str));
    let (status, printed) = match first.starts_with(FAILURE) {
        true => (1, &ran.err),
        false => (status, &ran.out),
    };
    assert_eq!(ran.status, Some(status), "{topic}: '{}': {ran:?}", example.command);
    assert!(
        words(printed).contains(&first),
        "{topic} says that '{}' prints '{first}': {ran:?}",
        example.command
    );
}

fn shell(server: &TestServer, user: User, dir: &Path, words: &[&str]) -> Ran {
    let mut command = server.as_user(Command::new(words[0]), user);
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(&words[1..]).stdin(Stdio::null()).current_dir(dir);
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
    use std::collections::BTreeSet;

    #[test]
    fn examples_are_lines_with_a_prompt() {
        let page = "# T\n\n```console\n$ walt a b    # what it does\n$ walt c\nprinted\n\nmore\n```\n\n`$ no`\n\n\
                    ```yaml\nkey: value\n```\n\n```text\n$ walt d\n```\n";
        let found = of_blocks(&of_page(page, "console"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].command.as_str(), found[0].output.len()), ("walt a b", 0));
        assert_eq!(found[1].output, ["printed", "", "more"]);
        assert_eq!(of_page(page, "yaml"), ["key: value\n"]);
    }

    /// Each page with examples is run by the test that the table names, which names the page.
    #[test]
    fn all_examples_are_run() {
        let pages = std::fs::read_dir(repository().join("docs/help")).expect("the repository has help pages");
        let topics = pages.map(|entry| entry.expect("the directory can be read").path());
        let topics: BTreeSet<String> =
            topics.map(|path| path.file_stem().unwrap().to_string_lossy().into()).collect();
        let with_examples: Vec<&str> =
            topics.iter().map(String::as_str).filter(|topic| !blocks(topic, "console").is_empty()).collect();
        let listed: Vec<&str> = RUN_BY.iter().map(|(topic, _)| *topic).collect();
        assert_eq!(with_examples, listed, "pages with examples, and RUN_BY");
        for (topic, test) in RUN_BY {
            let source =
                std::fs::read_to_string(repository().join(test)).unwrap_or_else(|e| panic!("{test}: {e}"));
            let named = [format!("\"{topic}\""), format!("/{topic}.md\"")];
            assert!(named.iter().any(|name| source.contains(name)), "{test} does not run the page {topic}");
        }
    }

    #[test]
    fn scripts_are_of_the_language() {
        let pages = std::fs::read_dir(repository().join("docs/help")).expect("the repository has help pages");
        for page in pages {
            let path = page.expect("the directory can be read").path();
            let text = std::fs::read_to_string(&path).unwrap();
            for script in of_page(&text, "sh") {
                let ran = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
                assert!(ran.status.success(), "{}: {ran:?}: {script}", path.display());
            }
        }
    }
}
