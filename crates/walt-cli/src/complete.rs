//! Completion: what may stand at the cursor of a command line, for bash, zsh and fish.
//!
//! ```text
//! shell (shells/walt.*) ─▶ walt advanced complete SHELL … ─▶ line   words
//!                                                              place  the table of commands: which kind of value
//!                                                              fixed  what needs no server
//!                                                              values what the server knows, DEADLINE at most
//! shell ◀── a line for each candidate ◀── reply
//! ```
//! It says nothing on standard error, never asks, and always ends with status 0: whatever fails, there are fewer candidates.
//! The command is not in the table, and is read before it: it is for the scripts only.
//!
//! clap_complete has an engine of this kind, marked unstable: it knows neither a deadline nor words that go on (`vn1,`).

mod fixed;
mod kinds;
mod line;
mod paths;
mod place;
mod reply;
mod server;
mod values;

use crate::cli::Cli;
use clap::CommandFactory;
use line::Word;
use place::{At, Place};
use reply::Candidate;
use server::Server;
use std::{
    ffi::OsString,
    io::Write,
    os::unix::ffi::{OsStrExt, OsStringExt},
    time::Duration,
};
use walt_client::{ENV_SERVER, ENV_USERNAME};

/// How long the server, and the disk, may take.
const DEADLINE: Duration = Duration::from_millis(100);
/// The command, as the scripts write it.
const COMMAND: [&str; 2] = ["advanced", "complete"];

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shell {
    /// bash, with its `COMP_WORDBREAKS`.
    Bash {
        /// What ends a word for readline.
        breaks: Vec<u8>,
    },
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// A request of a script.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Candidates.
    Candidates {
        /// For whom.
        shell: Shell,
        /// Variables that stand before the command on the line.
        environment: Vec<(String, String)>,
        /// The words behind `walt`, and that at the cursor.
        words: Vec<Vec<u8>>,
        /// The word at the cursor.
        word: Word,
    },
    /// Put answers of a server that is far away into the cache.
    Refresh(Vec<String>),
    /// Not one that this version understands.
    Unknown,
}

impl Request {
    /// The request in the arguments of a process; `None` if they are another command.
    pub fn of(arguments: &[OsString]) -> Option<Self> {
        let rest = arguments.strip_prefix(&COMMAND.map(OsString::from))?;
        let bytes: Vec<&[u8]> = rest.iter().map(|word| word.as_bytes()).collect();
        Some(match bytes.as_slice() {
            [b"bash", breaks, line] => Self::of_line(Shell::Bash { breaks: breaks.to_vec() }, line),
            [b"fish", line] => Self::of_line(Shell::Fish, line),
            [b"zsh", words @ .., last] => Self::Candidates {
                shell: Shell::Zsh,
                environment: Vec::new(),
                words: words.iter().map(|w| w.to_vec()).collect(),
                word: Word::plain(last),
            },
            [b"refresh", paths @ ..] => {
                Self::Refresh(paths.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect())
            }
            _ => Self::Unknown,
        })
    }

    fn of_line(shell: Shell, line: &[u8]) -> Self {
        let mut words = line::words(line);
        let word = words.pop().unwrap_or_default();
        let mut words = words.into_iter().map(|w| w.text).peekable();
        let assignment = |word: &[u8]| -> Option<(String, String)> {
            let (name, value) = std::str::from_utf8(word).ok()?.split_once('=')?;
            let is_name = !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
            is_name.then(|| (name.to_owned(), value.to_owned()))
        };
        let mut environment = Vec::new();
        while let Some(pair) = words.peek().and_then(|word| assignment(word)) {
            environment.push(pair);
            words.next();
        }
        Self::Candidates { shell, environment, words: words.skip(1).collect(), word }
    }

    /// Answers it.
    pub fn run(self) {
        // A bug here must not show on the prompt.
        std::panic::set_hook(Box::new(|_| ()));
        let _fewer = std::panic::catch_unwind(|| match self {
            Self::Candidates { shell, environment, words, word } => {
                let candidates = candidates(&environment, &words, &word.text);
                let _gone = std::io::stdout().lock().write_all(&reply::lines(&candidates, &shell, &word));
            }
            Self::Refresh(paths) => {
                if let Some(runtime) = runtime() {
                    runtime.block_on(server::refresh(&paths));
                }
            }
            Self::Unknown => {}
        });
    }
}

fn runtime() -> Option<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().ok()
}

fn candidates(environment: &[(String, String)], words: &[Vec<u8>], partial: &[u8]) -> Vec<Candidate> {
    let place = match place::find(&Cli::command(), words, partial) {
        At::Words(mut words) => {
            words.retain(|word| word.value.starts_with(partial));
            return words;
        }
        At::Value(place) => place,
    };
    let mut found = fixed::candidates(&place);
    found.extend(from_disk(&place));
    if values::needs_server(&place)
        && let Some(runtime) = runtime()
    {
        let variable =
            |name: &str| environment.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let ask = async {
            let server = Server::new(variable(ENV_SERVER), variable(ENV_USERNAME))?;
            values::candidates(&place, server).await
        };
        let answer = runtime.block_on(async { tokio::time::timeout(DEADLINE, ask).await });
        found.extend(answer.ok().flatten().unwrap_or_default());
        // A thread that looks up a name, or the like, is not waited for.
        runtime.shutdown_background();
    }
    finish(&place, found)
}

/// Local files, unless the disk is slow: it may be that of a server.
fn from_disk(place: &Place) -> Vec<Candidate> {
    let Some(wanted) = paths::wanted(place) else { return Vec::new() };
    let partial = place.partial.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _late = sender.send(paths::local(&partial, wanted));
    });
    receiver.recv_timeout(DEADLINE).unwrap_or_default()
}

/// Those that the word may become, each once, with what stands before it.
fn finish(place: &Place, mut found: Vec<Candidate>) -> Vec<Candidate> {
    let partial = &place.partial;
    let is_beginning = |value: &[u8]| {
        let start = value.get(..partial.len());
        // Names of nodes and keywords are found however they are written; files are not.
        start.is_some_and(|s| s == partial || (place.ignores_case() && s.eq_ignore_ascii_case(partial)))
    };
    let mut seen = std::collections::HashSet::new();
    found.retain(|c| is_beginning(&c.value) && seen.insert(c.value.clone()));
    if let (true, [only]) = (place.is_set(), found.as_slice()) {
        // The set may go on.
        let mut longer = only.clone();
        longer.value.push(b',');
        longer.open = true;
        found.push(longer);
    }
    found.into_iter().map(|candidate| candidate.behind(&place.prefix)).collect()
}

/// An [`OsString`] of bytes.
fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Option<Request> {
        Request::of(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn values(line: &str) -> Vec<String> {
        let Some(Request::Candidates { environment, words, word, .. }) =
            request(&["advanced", "complete", "fish", line])
        else {
            panic!("{line}")
        };
        // A server that is not there.
        let environment = [environment, vec![("WALT_SERVER".into(), "unix:/nonexistent".into())]].concat();
        let found = candidates(&environment, &words, &word.text);
        found.into_iter().map(|c| String::from_utf8(c.value).unwrap()).collect()
    }

    #[test]
    fn requests_are_recognised() {
        assert_eq!(request(&["advanced", "complet"]), None);
        assert_eq!(request(&["node", "complete"]), None);
        assert_eq!(request(&["advanced", "complete"]), Some(Request::Unknown));
        assert_eq!(request(&["advanced", "complete", "tcsh", "x"]), Some(Request::Unknown));
        let Some(Request::Candidates { environment, words, word, shell }) =
            request(&["advanced", "complete", "bash", ":", "WALT_SERVER=ssh://a X=1 ./walt node sh"])
        else {
            panic!("bash")
        };
        assert_eq!(shell, Shell::Bash { breaks: b":".to_vec() });
        assert_eq!(environment, [("WALT_SERVER".into(), "ssh://a".into()), ("X".to_owned(), "1".to_owned())]);
        assert_eq!((words, word.text), (vec![b"node".to_vec()], b"sh".to_vec()));
        let Some(Request::Candidates { words, word, .. }) =
            request(&["advanced", "complete", "zsh", "node", "a b", ""])
        else {
            panic!("zsh")
        };
        assert_eq!((words.len(), words[1].as_slice(), word.text.len()), (2, &b"a b"[..], 0));
    }

    #[test]
    fn without_a_server() {
        assert_eq!(values("walt node sh"), ["show", "shell"]);
        assert_eq!(values("walt node boot my"), ["my-nodes", "my-nodes,"]);
        assert_eq!(values("walt node boot vn1,MY"), ["vn1,my-nodes", "vn1,my-nodes,"]);
        assert_eq!(values("walt node boot all-nodes,all"), Vec::<String>::new(), "it is there already");
        assert_eq!(values("walt node boot vn1 d"), ["default"]);
        assert_eq!(values("walt help  show tut"), ["tutorial"]);
        assert_eq!(values("walt log wait --mode=A"), ["--mode=ANY", "--mode=ALL"]);
        assert_eq!(values("walt image clone w"), ["walt:"]);
        assert!(values("walt node shell ").is_empty());
        assert_eq!(values("walt node link n lab do"), ["down"]);
        assert_eq!(values("walt node link n lab lat=1"), ["lat=1ms", "lat=10ms", "lat=100ms"]);
        assert_eq!(values("walt node link n lab lat=1ms lo"), ["loss=", "loss.up="]);
    }
}
