//! Candidates, and how each shell reads them: a line each.
//!
//! ```text
//! bash   what stands in the place of the word, with a space at its end if the word is complete
//! zsh    "open" if the word goes on, the word, what is shown of it, a description: with tabs between
//! fish   the word and a description, with a tab between
//! ```

use super::{Shell, line::Word};

/// Most candidates that a shell gets.
const CANDIDATES_MAX: usize = 5000;
/// Most characters of a description.
const HELP_MAX: usize = 100;

/// What a word may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The whole word.
    pub value: Vec<u8>,
    /// How many of its bytes are not shown in lists, such as the directory of a path.
    pub hidden: usize,
    /// What it is.
    pub help: String,
    /// Whether the word may go on: no space follows.
    pub open: bool,
    /// Whether it is, or has at its end, a path.
    pub is_path: bool,
}

impl Candidate {
    /// A whole word.
    pub fn word(value: impl Into<Vec<u8>>, help: impl Into<String>) -> Self {
        Self { value: value.into(), hidden: 0, help: help.into(), open: false, is_path: false }
    }

    /// The beginning of a word.
    pub fn open(value: impl Into<Vec<u8>>, help: impl Into<String>) -> Self {
        Self { open: true, ..Self::word(value, help) }
    }

    /// The same behind a prefix, which is not shown.
    #[must_use]
    pub fn behind(mut self, prefix: &[u8]) -> Self {
        self.value.splice(0..0, prefix.iter().copied());
        self.hidden += prefix.len();
        self
    }
}

/// The lines for a shell. `word` is what stands there now.
pub fn lines(candidates: &[Candidate], shell: &Shell, word: &Word) -> Vec<u8> {
    let mut out = Vec::new();
    // What cannot stand on one line is left out.
    let fits = |c: &&Candidate| !String::from_utf8_lossy(&c.value).chars().any(char::is_control);
    for candidate in candidates.iter().filter(fits).take(CANDIDATES_MAX) {
        let Candidate { value, hidden, open, is_path, .. } = candidate;
        let help: String = candidate.help.chars().filter(|c| !c.is_control()).take(HELP_MAX).collect();
        match shell {
            Shell::Bash { breaks } => {
                let Some(text) = word.replacement(value, breaks, *is_path) else { continue };
                out.extend(text);
                // Within quotes, bash itself knows what follows.
                if !open && word.open.is_none() {
                    out.push(b' ');
                }
            }
            Shell::Zsh => {
                out.extend(if *open { &b"open\t"[..] } else { b"\t" });
                out.extend(
                    [value, &b"\t"[..], &value[(*hidden).min(value.len())..], b"\t", help.as_bytes()]
                        .concat(),
                );
            }
            Shell::Fish => out.extend([value, &b"\t"[..], help.as_bytes()].concat()),
        }
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complete::line::words;

    #[test]
    fn each_shell_has_its_lines() {
        let candidates = [
            Candidate::word("vn1", "booted\n"),
            Candidate { is_path: true, ..Candidate::open("etc dir/", "").behind(b"vn1:/") },
            Candidate::word("a\nb", ""),
        ];
        let of = |shell: Shell, line: &str| {
            let word = words(line.as_bytes()).pop().unwrap();
            String::from_utf8(lines(&candidates, &shell, &word)).unwrap()
        };
        let bash = || Shell::Bash { breaks: b" :=".to_vec() };
        assert_eq!(of(bash(), "v"), "vn1 \nvn1:/etc\\ dir/\n");
        assert_eq!(of(bash(), "\"v"), "vn1\nvn1:/etc dir/\n");
        assert_eq!(of(Shell::Zsh, "v"), "\tvn1\tvn1\tbooted\nopen\tvn1:/etc dir/\tetc dir/\t\n");
        assert_eq!(of(Shell::Fish, "v"), "vn1\tbooted\nvn1:/etc dir/\t\n");
    }
}
