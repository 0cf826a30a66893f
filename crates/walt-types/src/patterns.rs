//! Path patterns, as in `.dockerignore`.
//!
//! Source: Dockerfile reference, ".dockerignore files". `*` and `?` match parts of a name, `[a-z]` matches one
//! character, a name `**` matches any number of names, and `\` escapes the next character. A pattern that matches a directory
//! matches everything in it. A line that starts with `!` is an exception; the last match counts.
//!
//! Names are bytes. A character is a UTF-8 sequence; each byte that is not part of one is a character that equals only
//! itself, as in Go's `filepath.Match`.

/// Most patterns of one list.
pub const MAX_PATTERNS: usize = 10_000;
/// Most names of a pattern or path that are compared.
const MAX_NAMES: usize = 4096;
/// May precede the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A list of patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    exception: bool,
    names: Vec<Vec<u8>>,
}

impl Patterns {
    /// Parses a file with one pattern per line; `#` starts a comment. Lines after [`MAX_PATTERNS`] patterns are ignored.
    pub fn parse(file: &[u8]) -> Self {
        let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
        Self::of(file.split(|b| *b == b'\n').filter(|l| !l.starts_with(b"#")))
    }

    /// A list of the given patterns.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let pattern = |line: &[u8]| {
            let line = trim(line);
            let (exception, text) = match line.strip_prefix(b"!") {
                Some(rest) => (true, trim(rest)),
                None => (false, line),
            };
            let mut names: Vec<Vec<u8>> = Vec::new();
            for name in text.split(|b| *b == b'/') {
                match name {
                    b"" | b"." => {}
                    b".." => drop(names.pop()),
                    b"**" if names.last().is_some_and(|n| n == b"**") => {}
                    name => names.push(name.to_owned()),
                }
            }
            (!names.is_empty() && names.len() <= MAX_NAMES).then_some(Pattern { exception, names })
        };
        Self(patterns.into_iter().filter_map(pattern).take(MAX_PATTERNS).collect())
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the list has exceptions, so that a file in a matching directory may not match.
    pub fn has_exceptions(&self) -> bool {
        self.0.iter().any(|p| p.exception)
    }

    /// Whether a path, relative and with single slashes, matches, by itself or by a directory above it.
    pub fn matches(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').take(MAX_NAMES).collect();
        let mut matched = false;
        for pattern in &self.0 {
            if pattern.exception == matched && pattern.matches(&names) {
                matched = !pattern.exception;
            }
        }
        matched
    }
}

/// The line without surrounding white space.
fn trim(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

impl Pattern {
    /// Whether the path, or a directory above it, matches.
    fn matches(&self, path: &[&[u8]]) -> bool {
        // reached[n]: the names of the pattern so far match the first n names of the path.
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for (i, name) in self.names.iter().enumerate() {
            if name == b"**" {
                if let Some(first) = reached.iter().position(|r| *r) {
                    // At the end, `**` matches what is in the directory, but not the directory itself.
                    let from = if i + 1 == self.names.len() { first + 1 } else { first };
                    reached[first] = from == first;
                    if let Some(rest) = reached.get_mut(from..) {
                        rest.fill(true);
                    }
                }
                continue;
            }
            for n in (1..reached.len()).rev() {
                reached[n] = reached[n - 1] && name_matches(name, path[n - 1]);
            }
            reached[0] = false;
        }
        reached[1..].contains(&true)
    }
}

/// A character of a name: a code point, or [`BYTE`] plus a byte that is not part of one.
type Rune = u32;

/// Greater than all code points.
const BYTE: Rune = 0x11_0000;

fn runes(text: &[u8]) -> Vec<Rune> {
    let mut all = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        all.extend(chunk.valid().chars().map(Rune::from));
        all.extend(chunk.invalid().iter().map(|b| BYTE + Rune::from(*b)));
    }
    all
}

/// One item of a name's pattern.
enum Item {
    Any,
    One,
    Char(Rune),
    Class(bool, Vec<(Rune, Rune)>),
}

const STAR: Rune = '*' as Rune;
const QUESTION_MARK: Rune = '?' as Rune;
const BACKSLASH: Rune = '\\' as Rune;
const OPENING_BRACKET: Rune = '[' as Rune;
const CLOSING_BRACKET: Rune = ']' as Rune;
const CARET: Rune = '^' as Rune;
const DASH: Rune = '-' as Rune;

fn items(pattern: &[u8]) -> Vec<Item> {
    let pattern = runes(pattern);
    let mut items = Vec::new();
    let mut rest = pattern.iter().copied();
    while let Some(c) = rest.next() {
        items.push(match c {
            STAR => Item::Any,
            QUESTION_MARK => Item::One,
            BACKSLASH => Item::Char(rest.next().unwrap_or(BACKSLASH)),
            OPENING_BRACKET => match class(&mut rest) {
                Some((negated, ranges)) => Item::Class(negated, ranges),
                None => Item::Char(OPENING_BRACKET),
            },
            c => Item::Char(c),
        });
    }
    items
}

/// Parses what follows `[`; consumes nothing if there is no `]`.
fn class(rest: &mut (impl Iterator<Item = Rune> + Clone)) -> Option<(bool, Vec<(Rune, Rune)>)> {
    let mut cursor = rest.clone();
    let mut negated = false;
    let mut ranges: Vec<(Rune, Rune)> = Vec::new();
    let mut first = true;
    loop {
        let mut c = cursor.next()?;
        if first && c == CARET && !negated {
            negated = true;
            continue;
        }
        if c == CLOSING_BRACKET && !first {
            *rest = cursor;
            return Some((negated, ranges));
        }
        first = false;
        if c == BACKSLASH {
            c = cursor.next()?;
        }
        let mut end = c;
        let mut lookahead = cursor.clone();
        if lookahead.next() == Some(DASH) && lookahead.clone().next() != Some(CLOSING_BRACKET) {
            end = lookahead.next()?;
            if end == BACKSLASH {
                end = lookahead.next()?;
            }
            cursor = lookahead;
        }
        ranges.push((c, end));
    }
}

/// Whether one name matches a pattern without `**`.
pub fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let text = runes(name);
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for item in items(pattern) {
        if let Item::Any = item {
            if let Some(first) = reached.iter().position(|r| *r) {
                reached[first..].fill(true);
            }
            continue;
        }
        for n in (1..reached.len()).rev() {
            let c = text[n - 1];
            reached[n] = reached[n - 1]
                && match &item {
                    Item::Char(wanted) => *wanted == c,
                    Item::Class(negated, ranges) => {
                        ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *negated
                    }
                    Item::One | Item::Any => true,
                };
        }
        reached[0] = false;
    }
    reached[text.len()]
}

/// Whether a name contains characters that are special in patterns.
pub fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form() {
        for (file, path, expected) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a/../b", "b", true),
            ("*/temp*", "x/temporary.txt", true),
            ("*/temp*", "x/y/temporary.txt", false),
            ("*/*/temp*", "x/y/temporary.txt", true),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("**/*.go", "a.go", true),
            ("**/*.go", "x/y/a.go", true),
            ("a/**", "a", false),
            ("a/**", "a/b", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("**", "a", true),
            ("# a\na", "a", true),
            ("#a", "#a", false),
            ("\\#a", "#a", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/c", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]a]x", "]x", true),
            ("[ab", "[ab", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("  a  ", "a", true),
            ("!a", "a", false),
            ("", "a", false),
        ] {
            assert_eq!(
                Patterns::parse(file.as_bytes()).matches(path.as_bytes()),
                expected,
                "{file:?} {path}"
            );
        }
    }

    #[test]
    fn what_a_list_has() {
        for (file, is_empty, has_exceptions) in
            [("a\n!b", false, true), ("a\nb", false, false), ("!a", false, true), ("# x\n\n/\n", true, false)]
        {
            let patterns = Patterns::parse(file.as_bytes());
            assert_eq!(
                (patterns.is_empty(), patterns.has_exceptions()),
                (is_empty, has_exceptions),
                "{file:?}"
            );
        }
        // A pattern of too many names is left out; any number of names any number of times is one.
        let names = |name: &str, count: usize| Patterns::parse((name.repeat(count) + "b").as_bytes());
        assert!(!names("a/", MAX_NAMES - 1).is_empty());
        assert!(names("a/", MAX_NAMES).is_empty());
        assert!(names("**/", MAX_NAMES).matches(b"x/b"));
    }

    #[test]
    fn names_that_are_patterns() {
        for (name, expected) in [
            ("a.txt", false),
            ("", false),
            ("]", false),
            ("*", true),
            ("a?", true),
            ("[a]", true),
            ("a\\b", true),
        ] {
            assert_eq!(is_pattern(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn names_are_bytes() {
        for (file, path, expected) in [
            (&b"G\xe4rten.txt"[..], &b"G\xe4rten.txt"[..], true),
            (b"G\xe4rten.txt", b"G\xf6rten.txt", false),
            ("G\u{fffd}rten.txt".as_bytes(), b"G\xe4rten.txt", false),
            (b"G?rten.txt", b"G\xe4rten.txt", true),
            (b"G?rten.txt", "G\u{e4}rten.txt".as_bytes(), true),
            (b"G??rten.txt", "G\u{e4}rten.txt".as_bytes(), false),
            // Two bytes that begin a character and do not end it.
            (b"??", b"\xe2\x82", true),
            (b"?", b"\xe2\x82", false),
            (b"d/*.txt", b"d/\xff.txt", true),
            (b"d/*\n!d/\xff", b"d/\xff", false),
            (b"d/*\n!d/\xff", b"d/\xfe", true),
            (b"[\xe0-\xe4]", b"\xe4", true),
            (b"[\xe0-\xe4]", b"\xe5", false),
            ("[\u{e0}-\u{ff}]".as_bytes(), b"\xe4", false),
            ("[\u{e0}-\u{ff}]".as_bytes(), "\u{e4}".as_bytes(), true),
            (b"[^a]", b"\xe4", true),
            (b" \xe4\t\r\n", b"\xe4", true),
            ("\u{feff}a".as_bytes(), b"a", true),
        ] {
            assert_eq!(Patterns::parse(file).matches(path), expected, "{file:?} {path:?}");
        }
    }
}
