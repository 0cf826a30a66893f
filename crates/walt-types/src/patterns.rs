//! Patterns of paths, as `.dockerignore` has them.
//!
//! Source: Dockerfile reference, ".dockerignore files". `*` and `?` stand for parts of one name, `[a-z]` for one
//! character, a name `**` for any number of names, `\` takes a special meaning away. A pattern that matches a
//! directory matches all that is in it. A line that starts with `!` takes matches back; the last match counts.

/// Most patterns of one list.
pub const MAX_PATTERNS: usize = 10_000;
/// Most names of one pattern or path that are compared.
const MAX_NAMES: usize = 4096;

/// A list of patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    exception: bool,
    names: Vec<String>,
}

impl Patterns {
    /// Reads a file with a pattern per line; `#` starts a comment. Lines past [`MAX_PATTERNS`] are not read.
    pub fn parse(file: &str) -> Self {
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        Self::of(file.lines().filter(|l| !l.starts_with('#')))
    }

    /// Of single patterns.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let pattern = |line: &str| {
            let line = line.trim();
            let (exception, text) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim_start()),
                None => (false, line),
            };
            let mut names: Vec<String> = Vec::new();
            for name in text.split('/') {
                match name {
                    "" | "." => {}
                    ".." => drop(names.pop()),
                    "**" if names.last().is_some_and(|n| n == "**") => {}
                    name => names.push(name.to_owned()),
                }
            }
            (!names.is_empty() && names.len() <= MAX_NAMES).then_some(Pattern { exception, names })
        };
        Self(patterns.into_iter().filter_map(pattern).take(MAX_PATTERNS).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something in a directory that matches may not match.
    pub fn has_exceptions(&self) -> bool {
        self.0.iter().any(|p| p.exception)
    }

    /// Whether a path, relative and with single slashes, matches, by itself or by a directory above it.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').take(MAX_NAMES).collect();
        let mut matched = false;
        for pattern in &self.0 {
            if pattern.exception == matched && pattern.matches(&names) {
                matched = !pattern.exception;
            }
        }
        matched
    }
}

impl Pattern {
    /// Whether the path, or a directory above it, matches.
    fn matches(&self, path: &[&str]) -> bool {
        // reached[n]: the names of the pattern so far match the first n names of the path.
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for (i, name) in self.names.iter().enumerate() {
            if name == "**" {
                if let Some(first) = reached.iter().position(|r| *r) {
                    // At the end it stands for something in the directory, not for the directory.
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

/// One item of a name's pattern.
enum Item {
    Any,
    One,
    Char(char),
    Class(bool, Vec<(char, char)>),
}

fn items(pattern: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        items.push(match c {
            '*' => Item::Any,
            '?' => Item::One,
            '\\' => Item::Char(rest.next().unwrap_or('\\')),
            '[' => match class(&mut rest) {
                Some((not, ranges)) => Item::Class(not, ranges),
                None => Item::Char('['),
            },
            c => Item::Char(c),
        });
    }
    items
}

/// What follows `[`; nothing is taken if there is no `]`.
fn class(rest: &mut std::str::Chars<'_>) -> Option<(bool, Vec<(char, char)>)> {
    let mut look = rest.clone();
    let mut not = false;
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut first = true;
    loop {
        let mut c = look.next()?;
        if first && c == '^' && !not {
            not = true;
            continue;
        }
        if c == ']' && !first {
            *rest = look;
            return Some((not, ranges));
        }
        first = false;
        if c == '\\' {
            c = look.next()?;
        }
        let mut end = c;
        let mut ahead = look.clone();
        if ahead.next() == Some('-') && !ahead.as_str().starts_with(']') {
            end = ahead.next()?;
            if end == '\\' {
                end = ahead.next()?;
            }
            look = ahead;
        }
        ranges.push((c, end));
    }
}

/// Whether one name matches a pattern without `**`.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let text: Vec<char> = name.chars().collect();
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
                    Item::Class(not, ranges) => ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *not,
                    Item::One | Item::Any => true,
                };
        }
        reached[0] = false;
    }
    reached[text.len()]
}

/// Whether a name has characters that mean more than themselves in a pattern.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '\\'])
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
            assert_eq!(Patterns::parse(file).matches(path), expected, "{file:?} {path}");
        }
        assert!(Patterns::parse("a\n!b").has_exceptions());
        assert!(Patterns::parse("# x\n\n/\n").is_empty());
    }
}
