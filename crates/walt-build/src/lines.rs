//! Logical lines of a Dockerfile: directives, comments, continuations, and the texts of here-documents.
//!
//! Source: Dockerfile reference, "Format", "Parser directives", "Here-Documents". The parser library reads one
//! instruction at a time; what spans lines is put together here, since it knows here-documents of `RUN` only where
//! they are the whole command.

use std::collections::HashMap;

/// Largest Dockerfile, in bytes.
pub(crate) const MAX_FILE: usize = 1 << 20;
/// Most instructions of one.
pub(crate) const MAX_LINES: usize = 10_000;

/// A here-document: its delimiter and its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HereDoc {
    /// The delimiter, without quotes.
    pub name: String,
    /// Whether variables are replaced: the delimiter has no quotes.
    pub expand: bool,
    /// Whether leading tabs are taken away: `<<-`.
    pub chomp: bool,
    /// The lines, as they are in the file.
    pub text: String,
}

impl HereDoc {
    /// The text, without leading tabs if so asked.
    pub fn content(&self) -> String {
        match self.chomp {
            false => self.text.clone(),
            true => self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
        }
    }
}

/// One instruction: continuations joined, comments gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it starts in the file, from 1.
    pub number: usize,
    /// The instruction and its arguments.
    pub text: String,
    /// Its here-documents, in order.
    pub here_docs: Vec<HereDoc>,
    /// The first line of the file that is part of it and is not UTF-8.
    pub damaged: Option<usize>,
}

/// A file, cut into instructions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// The escape character: backslash unless a directive says otherwise.
    pub escape: char,
    /// Value of the directive `syntax`, which is ignored.
    pub syntax: Option<String>,
    /// The instructions.
    pub lines: Vec<Line>,
}

/// The line, and what is wrong with it.
pub(crate) type Wrong = (usize, String);

/// Splits a file as it is on disk.
pub(crate) fn cut_bytes(file: &[u8]) -> Result<Lines, Wrong> {
    let damaged: Vec<bool> = match std::str::from_utf8(file) {
        Ok(_) => Vec::new(),
        Err(_) => file.split(|b| *b == b'\n').map(|line| std::str::from_utf8(line).is_err()).collect(),
    };
    cut_marked(&String::from_utf8_lossy(file), &damaged)
}

/// Cuts a file.
pub(crate) fn cut(file: &str) -> Result<Lines, Wrong> {
    cut_marked(file, &[])
}

/// Splits a file; `damaged` marks the lines that were not UTF-8.
fn cut_marked(file: &str, damaged: &[bool]) -> Result<Lines, Wrong> {
    if file.len() > MAX_FILE {
        return Err((1, format!("the file is larger than {MAX_FILE} bytes")));
    }
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let (escape, syntax) = directives(file)?;
    let mut rest = file.split_inclusive('\n').enumerate();
    // The last line of each text: where a here-document may end.
    let ends: HashMap<&str, usize> =
        rest.clone().map(|(at, raw)| (raw.trim_end_matches(['\n', '\r']), at)).collect();
    let mut lines = Vec::new();
    while let Some((at, raw)) = rest.next() {
        let (number, mut last) = (at + 1, at);
        let mut bad = None;
        let mut look = |at: usize| {
            if damaged.get(at) == Some(&true) {
                bad.get_or_insert(at + 1);
            }
        };
        let (mut text, mut ended) = continuation(raw.trim_start(), escape);
        if raw.trim().is_empty() || is_comment(raw) {
            continue;
        }
        look(at);
        while !ended {
            let Some((at, raw)) = rest.next() else { break };
            // Comments and empty lines inside an instruction are skipped.
            if is_comment(raw) || raw.trim().is_empty() {
                continue;
            }
            look(at);
            last = at;
            let (more, end) = continuation(raw, escape);
            text.push_str(&more);
            ended = end;
        }
        let text = text.trim_end().to_owned();
        if text.is_empty() {
            continue;
        }
        let mut here_docs = delimiters(&text, &|name| ends.get(name).is_some_and(|end| *end > last));
        for here in &mut here_docs {
            loop {
                let Some((at, raw)) = rest.next() else {
                    return Err((number, format!("the here-document '{}' has no end", here.name)));
                };
                let bare = raw.trim_end_matches(['\n', '\r']);
                let bare = if here.chomp { bare.trim_start_matches('\t') } else { bare };
                if bare == here.name {
                    break;
                }
                look(at);
                here.text.push_str(raw);
            }
        }
        if lines.len() >= MAX_LINES {
            return Err((number, format!("more than {MAX_LINES} instructions")));
        }
        lines.push(Line { number, text, here_docs, damaged: bad });
    }
    Ok(Lines { escape, syntax, lines })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The line without its end, and without the escape that continues it; whether the instruction ends here.
fn continuation(raw: &str, escape: char) -> (String, bool) {
    let line = raw.trim_end_matches('\n').trim_end_matches('\r');
    let bare = line.trim_end_matches([' ', '\t']);
    match bare.strip_suffix(escape) {
        // An escaped escape is an ordinary character.
        Some(start) if !start.ends_with(escape) => (start.to_owned(), false),
        _ => (line.to_owned(), true),
    }
}

/// The directives at the start of the file.
fn directives(file: &str) -> Result<(char, Option<String>), Wrong> {
    let (mut escape, mut syntax, mut seen) = (None, None, Vec::new());
    for (at, line) in file.lines().enumerate() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|l| l.split_once('=')) else {
            break;
        };
        let name = name.trim().to_ascii_lowercase();
        if !matches!(name.as_str(), "syntax" | "escape" | "check") || value.trim().is_empty() {
            break;
        }
        if seen.contains(&name) {
            return Err((at + 1, format!("the directive '{name}' is given twice")));
        }
        match (name.as_str(), value.trim()) {
            ("escape", "\\") => escape = Some('\\'),
            ("escape", "`") => escape = Some('`'),
            ("escape", other) => {
                return Err((at + 1, format!("'{other}' cannot be the escape character: use \\ or `")));
            }
            ("syntax", value) => syntax = Some(value.to_owned()),
            _ => {}
        }
        seen.push(name);
    }
    Ok((escape.unwrap_or('\\'), syntax))
}

/// The instruction, that of an `ONBUILD` too, in upper case.
fn instruction(text: &str) -> String {
    let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
    let first = words.next().unwrap_or_default();
    if first == "ONBUILD" { words.next().unwrap_or_default() } else { first }
}

/// The here-documents that a line announces; their texts are still empty. As BuildKit has it, there may be blanks
/// between `<<` and the word of `RUN`; they are in `$((1 << n))`, too, so that there must be a line that ends it.
fn delimiters(text: &str, has_end: &dyn Fn(&str) -> bool) -> Vec<HereDoc> {
    let blanks = match instruction(text).as_str() {
        "RUN" => true,
        "COPY" | "ADD" => false,
        _ => return Vec::new(),
    };
    // The escape of a here-document's delimiter is always the backslash.
    let words = super::expand::split(text, '\\');
    let (mut found, mut words) = (Vec::new(), words.iter().peekable());
    while let Some(word) = words.next() {
        let joined = match words.peek() {
            Some(next) if blanks && is_bare(word) && !next.starts_with('-') => {
                here_doc(&format!("{word}{next}"))
            }
            _ => None,
        };
        if let Some(here) = joined.filter(|here| has_end(&here.name)) {
            found.push(here);
            words.next();
        } else {
            found.extend(here_doc(word));
        }
    }
    found
}

/// Whether a word is `<<` alone, perhaps with a file descriptor.
fn is_bare(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()) == "<<"
}

/// The here-document that a word announces, if it does.
pub(crate) fn here_doc(word: &str) -> Option<HereDoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest.trim()),
        None => (false, rest.trim()),
    };
    if rest.contains('<') || super::expand::split(rest, '\\').len() != 1 {
        return None;
    }
    let none: [(String, String); 0] = [];
    // Dollars in a delimiter are ordinary characters.
    let name = super::expand::word(&rest.replace('$', "\\$"), '\\', none.as_slice()).ok()?;
    let expand = !rest.contains(['"', '\'', '\\']);
    (!name.is_empty()).then(|| HereDoc { name, expand, chomp, text: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<String> {
        cut(file).unwrap().lines.into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn continuations_and_comments() {
        assert_eq!(texts("# c\n\nFROM a\n  RUN b \\\n  # c\n\n\tc\\\nd\n"), ["FROM a", "RUN b \tcd"]);
        assert_eq!(texts("RUN a \\\\\nRUN b"), ["RUN a \\\\", "RUN b"]);
        assert_eq!(texts("RUN a\\ \t\r\nb\r\nRUN c"), ["RUN ab", "RUN c"]);
        assert_eq!(texts("RUN a \\"), ["RUN a"]);
        assert_eq!(texts("RUN echo a # b\n"), ["RUN echo a # b"]);
        assert_eq!(texts("\u{feff}FROM a"), ["FROM a"]);
    }

    #[test]
    fn directives_come_first() {
        let lines = cut("#syntax = docker/dockerfile:1\n# Escape=`\nRUN a `\nb\\\nRUN c").unwrap();
        assert_eq!(lines.escape, '`');
        assert_eq!(lines.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(lines.lines.iter().map(|l| &l.text).collect::<Vec<_>>(), ["RUN a b\\", "RUN c"]);
        assert_eq!(cut("# comment\n# escape=`\nRUN a").unwrap().escape, '\\');
        assert_eq!(cut("# unknown=1\n# escape=`\nRUN a").unwrap().escape, '\\');
        assert_eq!(cut("# escape=\n# escape=`\nRUN a").unwrap().escape, '\\');
        assert!(cut("# escape=x\n").unwrap_err().1.contains("escape character"));
        assert!(cut("# escape=\\\n# escape=`\n").unwrap_err().1.contains("twice"));
    }

    #[test]
    fn here_documents() {
        let file =
            "RUN cat <<A 3<<-\"B\" > /x\n$a\nA\n\tb\n\t\tB\nCOPY <<'E F' /y\n# no comment \\\nE F\nRUN c\n";
        let lines = cut(file).unwrap().lines;
        let here = |name: &str, expand, chomp, text: &str| HereDoc {
            name: name.into(),
            expand,
            chomp,
            text: text.into(),
        };
        assert_eq!(lines[0].here_docs, [here("A", true, false, "$a\n"), here("B", false, true, "\tb\n")]);
        assert_eq!(lines[0].here_docs[1].content(), "b\n");
        assert_eq!(lines[1].here_docs, [here("E F", false, false, "# no comment \\\n")]);
        assert_eq!((lines[1].number, lines[2].number, lines[2].text.as_str()), (6, 9, "RUN c"));
        assert!(cut("RUN <<A\nx").unwrap_err().1.contains("has no end"));
        for text in
            ["RUN a <<<b", "RUN a << b", "ENV a=<<b", "RUN ((1<<2))", "RUN a '<<b'", "RUN $((1 << 2))"]
        {
            assert_eq!(cut(text).unwrap().lines[0].here_docs, [], "{text}");
        }
        let spaced = |text| cut(text).unwrap().lines.iter().map(|l| l.here_docs.clone()).collect::<Vec<_>>();
        assert_eq!(spaced("RUN cat <<  A >x\na\nA\nRUN b"), [vec![here("A", true, false, "a\n")], vec![]]);
        assert_eq!(spaced("RUN cat << 'A'\na\nA"), [[here("A", false, false, "a\n")]]);
        assert_eq!(spaced("RUN <<A\nRUN a << b\nA\nRUN a << b")[1], []);
        assert_eq!(here_doc("<< E"), Some(here("E", true, false, "")));
        assert_eq!(here_doc("<<E python3"), None);
    }
}
