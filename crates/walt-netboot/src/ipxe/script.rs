//! A script, cut into lines: labels, words, and the operators between commands.

use super::Problem;

/// Words that end a command, and decide whether the next one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// `&&`
    IfDone,
    /// `||`
    IfFailed,
    /// `;`
    Always,
    /// The end of the line, or a comment.
    End,
}

/// One command, before its words are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub words: Vec<String>,
    pub then: Then,
}

/// One line, continuations joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of its first physical line, from 1.
    pub number: usize,
    pub label: Option<String>,
    pub commands: Vec<Command>,
}

/// Whether the bytes are an iPXE script at all.
pub fn is_script(bytes: &[u8]) -> bool {
    let magic = bytes.strip_prefix(b"#!ipxe").or_else(|| bytes.strip_prefix(b"#!gpxe"));
    magic.is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_whitespace))
}

/// Cuts a script into lines.
///
/// # Errors
/// [`Problem::NotAScript`] when it does not begin as one.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Line>, Problem> {
    if !is_script(bytes) {
        return Err(Problem::NotAScript(name.to_owned()));
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (index, physical) in text.split('\n').enumerate() {
        let (number, mut joined) = pending.take().unwrap_or((index + 1, String::new()));
        joined.push_str(physical.strip_suffix('\r').unwrap_or(physical));
        if joined.ends_with('\\') {
            joined.pop();
            pending = Some((number, joined));
        } else {
            lines.push(line(number, &joined));
        }
    }
    // A continuation at the end of the file continues with nothing.
    lines.extend(pending.map(|(number, joined)| line(number, &joined)));
    Ok(lines)
}

fn line(number: usize, text: &str) -> Line {
    let text = text.trim_start();
    let (label, rest) = match text.strip_prefix(':') {
        None => (None, text),
        Some(labelled) => {
            let end = labelled.find(char::is_whitespace).unwrap_or(labelled.len());
            (Some(labelled[..end].to_owned()), &labelled[end..])
        }
    };
    let mut commands = Vec::new();
    let mut words = Vec::new();
    for word in rest.split_whitespace() {
        let then = match word {
            "||" => Then::IfFailed,
            "&&" => Then::IfDone,
            ";" => Then::Always,
            comment if comment.starts_with('#') => break,
            plain => {
                words.push(plain.to_owned());
                continue;
            }
        };
        commands.push(Command { words: std::mem::take(&mut words), then });
    }
    commands.push(Command { words, then: Then::End });
    Line { number, label, commands }
}
