//! Words of a Dockerfile: quotes, escapes, and variables with all their modifiers.
//!
//! Source: Dockerfile reference, "Environment replacement" and "ARG". `$x`, `${x}`, `${x:-y}`, `${x-y}`, `${x:+y}`,
//! `${x+y}`, `${x:?y}`, `${x?y}`, `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`, `${x/p/r}`, `${x//p/r}`; an escaped dollar
//! is a dollar. Patterns know `*`, `?` and the escape character.

use std::{iter::Peekable, str::Chars};

/// Longest result of one expansion, in bytes: a few doublings in a row would fill any memory.
pub(crate) const MAX_WORD: usize = 1 << 20;
/// Longest value in which `${x/pattern/…}` looks for its pattern, in characters: the work grows with the square.
const MAX_REPLACED: usize = 4096;
/// Deepest `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 32;

/// The variables a word may name.
pub(crate) trait Variables {
    /// The value, if it is set.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Variables for [(String, String)] {
    fn value(&self, name: &str) -> Option<&str> {
        // The last one wins: later definitions are appended.
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Result of an expansion; an error is a sentence.
pub(crate) type Expanded<T> = Result<T, String>;

/// Expands one word: quotes and escapes are taken away, variables replaced.
pub(crate) fn word(text: &str, escape: char, variables: &(impl Variables + ?Sized)) -> Expanded<String> {
    let mut expander = Expander { chars: text.chars().peekable(), escape, variables, depth: 0 };
    let out = expander.until(None, false)?;
    Ok(out.text)
}

/// Like [`word`], but blanks outside of quotes separate words.
pub(crate) fn words(
    text: &str,
    escape: char,
    variables: &(impl Variables + ?Sized),
) -> Expanded<Vec<String>> {
    let mut expander = Expander { chars: text.chars().peekable(), escape, variables, depth: 0 };
    Ok(expander.until(None, false)?.words())
}

/// The text of a here-document: variables replaced and escapes taken away, quotes left as they are.
pub(crate) fn here_document(text: &str, variables: &(impl Variables + ?Sized)) -> Expanded<String> {
    let mut expander = Expander { chars: text.chars().peekable(), escape: '\\', variables, depth: 0 };
    let mut out = Out::default();
    while let Some(c) = expander.chars.next() {
        match c {
            '\\' => {
                if let Some(next) = expander.chars.next() {
                    out.push(next)?;
                }
            }
            '$' => {
                let value = expander.dollar()?;
                out.append(&value)?;
            }
            c => out.push(c)?,
        }
    }
    Ok(out.text)
}

/// Splits at blanks outside of quotes; quotes and escapes stay in the words.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    let (mut all, mut current, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !current.is_empty() {
                all.push(std::mem::take(&mut current));
            }
            continue;
        }
        current.push(c);
        if c == escape && quote != Some('\'') {
            current.extend(chars.next());
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
    }
    if !current.is_empty() {
        all.push(current);
    }
    all
}

/// Text that grows up to a bound, with the places where it may be cut into words.
#[derive(Default)]
struct Out {
    text: String,
    /// For each byte: is it a blank from outside of quotes?
    cuts: Vec<bool>,
    /// Was there a quote: an empty word counts then.
    quoted: bool,
}

impl Out {
    fn add(&mut self, c: char, cut: bool) -> Expanded<()> {
        if self.text.len() >= MAX_WORD {
            return Err(format!("the text is longer than {MAX_WORD} bytes"));
        }
        self.text.push(c);
        self.cuts.resize(self.text.len(), cut);
        Ok(())
    }
    fn push(&mut self, c: char) -> Expanded<()> {
        self.add(c, false)
    }
    fn append(&mut self, text: &str) -> Expanded<()> {
        text.chars().try_for_each(|c| self.push(c))
    }
    fn words(self) -> Vec<String> {
        let (mut all, mut current) = (Vec::new(), String::new());
        for (at, c) in self.text.char_indices() {
            if self.cuts[at] {
                if !current.is_empty() {
                    all.push(std::mem::take(&mut current));
                }
            } else {
                current.push(c);
            }
        }
        if !current.is_empty() || (all.is_empty() && self.quoted) {
            all.push(current);
        }
        all
    }
}

struct Expander<'a, V: ?Sized> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    variables: &'a V,
    depth: usize,
}

impl<V: Variables + ?Sized> Expander<'_, V> {
    /// Reads up to `stop` (which is taken), or to the end if there is none. With `raw`, escapes are kept: a pattern
    /// needs them.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Expanded<Out> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} nested expansions"));
        }
        let mut out = Out::default();
        loop {
            let Some(c) = self.chars.next() else {
                return match stop {
                    None => Ok(self.done(out)),
                    Some(stop) => Err(format!("'{stop}' is missing at the end")),
                };
            };
            if Some(c) == stop {
                return Ok(self.done(out));
            }
            match c {
                '\'' => {
                    out.quoted = true;
                    loop {
                        match self.chars.next() {
                            None => return Err("a ' is missing at the end".into()),
                            Some('\'') => break,
                            Some(c) => out.push(c)?,
                        }
                    }
                }
                '"' => {
                    out.quoted = true;
                    self.double_quoted(&mut out)?;
                }
                '$' => {
                    let value = self.dollar()?;
                    for c in value.chars() {
                        out.add(c, c.is_whitespace())?;
                    }
                }
                c if c == self.escape => {
                    if raw {
                        out.push(c)?;
                    }
                    if let Some(next) = self.chars.next() {
                        out.push(next)?;
                    }
                }
                c => out.add(c, c.is_whitespace())?,
            }
        }
    }

    fn done(&mut self, out: Out) -> Out {
        self.depth -= 1;
        out
    }

    fn double_quoted(&mut self, out: &mut Out) -> Expanded<()> {
        loop {
            match self.chars.next() {
                None => return Err("a \" is missing at the end".into()),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar()?;
                    out.append(&value)?;
                }
                Some(c) if c == self.escape => match self.chars.next() {
                    None => return Err("a \" is missing at the end".into()),
                    Some(next) => {
                        if !(next == '"' || next == '$' || next == self.escape) {
                            out.push(c)?;
                        }
                        out.push(next)?;
                    }
                },
                Some(c) => out.push(c)?,
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek().copied() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.chars.next();
                name.push(c);
            }
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    /// What follows a dollar.
    fn dollar(&mut self) -> Expanded<String> {
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".into(),
                _ => self.variables.value(&name).unwrap_or_default().into(),
            });
        }
        self.chars.next();
        let name = self.name();
        if name.is_empty() {
            return Err("'${' without a name".into());
        }
        let value = self.variables.value(&name).map(str::to_owned);
        let missing = || format!("'}}' is missing after '${{{name}'");
        match self.chars.next().ok_or_else(missing)? {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let modifier = self.chars.next().ok_or_else(missing)?;
                // An empty value counts as unset.
                self.choose(modifier, &name, value.filter(|v| !v.is_empty()), true)
            }
            modifier @ ('-' | '+' | '?') => self.choose(modifier, &name, value, false),
            kind @ ('#' | '%') => {
                let longest = self.chars.next_if_eq(&kind).is_some();
                let pattern = self.until(Some('}'), true)?.text;
                let pattern = Pattern::new(&pattern, self.escape);
                Ok(pattern.cut(&value.unwrap_or_default(), kind == '#', longest))
            }
            '/' => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let pattern = self.until(Some('/'), true)?.text;
                let with = self.until(Some('}'), false)?.text;
                let pattern = Pattern::new(&pattern, self.escape);
                pattern.replace(&value.unwrap_or_default(), &with, all)
            }
            other => Err(format!("'{other}' is not a modifier in '${{{name}{other}…}}'")),
        }
    }

    fn choose(&mut self, modifier: char, name: &str, value: Option<String>, colon: bool) -> Expanded<String> {
        if !matches!(modifier, '-' | '+' | '?') {
            return Err(format!("':{modifier}' is not a modifier in '${{{name}:{modifier}…}}'"));
        }
        let other = self.until(Some('}'), false)?.text;
        match (modifier, value) {
            ('-', None) => Ok(other),
            ('-' | '?', Some(value)) => Ok(value),
            ('+', Some(_)) => Ok(other),
            ('+', None) => Ok(String::new()),
            (_, _) => {
                let what = if colon { "is unset or empty" } else { "is unset" };
                let why = if other.is_empty() { what.to_owned() } else { other };
                Err(format!("{name}: {why}"))
            }
        }
    }
}

/// A shell pattern.
struct Pattern(Vec<Item>);

#[derive(Clone, Copy, PartialEq)]
enum Item {
    Any,
    One,
    Char(char),
}

impl Pattern {
    fn new(text: &str, escape: char) -> Self {
        let mut items = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            items.push(match c {
                '*' => Item::Any,
                '?' => Item::One,
                c if c == escape => Item::Char(chars.next().unwrap_or(escape)),
                c => Item::Char(c),
            });
        }
        items.dedup_by(|a, b| *a == Item::Any && *b == Item::Any);
        Self(items)
    }

    /// Which prefixes of `text` match: for each count of characters, whether the pattern matches exactly these.
    fn prefixes(&self, text: &[char]) -> Vec<bool> {
        let mut row = vec![false; text.len() + 1];
        row[0] = true;
        for item in &self.0 {
            match item {
                Item::Any => {
                    if let Some(first) = row.iter().position(|m| *m) {
                        row[first..].fill(true);
                    }
                }
                Item::One | Item::Char(_) => {
                    for at in (1..row.len()).rev() {
                        row[at] = row[at - 1] && (*item == Item::One || *item == Item::Char(text[at - 1]));
                    }
                    row[0] = false;
                }
            }
        }
        row
    }

    fn cut(&self, value: &str, prefix: bool, longest: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        if prefix {
            let row = self.prefixes(&text);
            let count = if longest { row.iter().rposition(|m| *m) } else { row.iter().position(|m| *m) };
            return text[count.unwrap_or(0)..].iter().collect();
        }
        // A suffix is a prefix of the text and the pattern written backwards.
        let backwards: Vec<char> = text.iter().rev().copied().collect();
        let row = Self(self.0.iter().rev().copied().collect()).prefixes(&backwards);
        let count = if longest { row.iter().rposition(|m| *m) } else { row.iter().position(|m| *m) };
        text[..text.len() - count.unwrap_or(0)].iter().collect()
    }

    fn replace(&self, value: &str, with: &str, all: bool) -> Expanded<String> {
        let text: Vec<char> = value.chars().collect();
        if text.len() > MAX_REPLACED {
            return Err(format!("a pattern can be searched for in at most {MAX_REPLACED} characters"));
        }
        let mut out = Out::default();
        let (mut at, mut done) = (0, false);
        while at < text.len() {
            let longest = match done && !all {
                true => None,
                false => self.prefixes(&text[at..]).iter().rposition(|m| *m).filter(|n| *n > 0),
            };
            match longest {
                Some(count) => {
                    out.append(with)?;
                    at += count;
                    done = true;
                }
                None => {
                    out.push(text[at])?;
                    at += 1;
                }
            }
        }
        Ok(out.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Vec<(String, String)> {
        [("x", "value"), ("empty", ""), ("path", "/a/b.tar.gz"), ("blanks", "a b  c"), ("é1", "accent")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec()
    }

    #[test]
    fn all_forms() {
        let variables = variables();
        for (text, expected) in [
            ("$x", "value"),
            ("${x}y", "valuey"),
            ("$xy", ""),
            ("$x-y", "value-y"),
            ("$unset/$x", "/value"),
            ("a$", "a$"),
            ("$ a", "$ a"),
            (r"\$x", "$x"),
            (r"\${x}", "${x}"),
            (r"\\$x", r"\value"),
            (r"a\ b", "a b"),
            ("'$x'", "$x"),
            ("\"$x\"", "value"),
            ("\"'$x'\"", "'value'"),
            ("'\"$x\"'", "\"$x\""),
            (r#""\$x \n \" \\""#, r#"$x \n " \"#),
            ("'a'\"b\"c", "abc"),
            ("${unset:-word}", "word"),
            ("${empty:-word}", "word"),
            ("${empty-word}", ""),
            ("${unset-word}", "word"),
            ("${x:-word}", "value"),
            ("${x:+word}", "word"),
            ("${empty:+word}", ""),
            ("${empty+word}", "word"),
            ("${unset+word}", ""),
            ("${x:?oops}", "value"),
            ("${unset:-${x}}", "value"),
            ("${unset:-'}'}", "}"),
            ("${unset:-a b}", "a b"),
            ("${path#*/}", "a/b.tar.gz"),
            ("${path##*/}", "b.tar.gz"),
            ("${path%.*}", "/a/b.tar"),
            ("${path%%.*}", "/a/b"),
            ("${path#nothing}", "/a/b.tar.gz"),
            ("${path%?z}", "/a/b.tar."),
            ("${path/a/X}", "/X/b.tar.gz"),
            ("${path//a/X}", "/X/b.tXr.gz"),
            ("${path/?.*/}", "/a/"),
            (r"${path//\//-}", "-a-b.tar.gz"),
            (r"${path#\*}", "/a/b.tar.gz"),
            ("$1 $@", " "),
            ("$é1", "accent"),
        ] {
            assert_eq!(word(text, '\\', variables.as_slice()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_words() {
        let variables = variables();
        for (text, part) in [
            ("'a", "'"),
            ("\"a", "\""),
            ("${x", "}"),
            ("${", "name"),
            ("${}", "name"),
            ("${x:}", ":}"),
            ("${x!y}", "!"),
            ("${unset:?is needed}", "unset: is needed"),
            ("${empty:?}", "unset or empty"),
            ("${unset?}", "is unset"),
            ("${x/a}", "/"),
            (&"${a:-".repeat(100), "nested expansions"),
        ] {
            let error = word(text, '\\', variables.as_slice()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn growth_is_bounded() {
        let big = [("a".to_owned(), "x".repeat(MAX_WORD / 2))];
        let error = word("$a$a$a", '\\', big.as_slice()).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }

    #[test]
    fn other_escape() {
        let none: [(String, String); 0] = [];
        assert_eq!(word("a\\b`$x", '`', none.as_slice()).as_deref(), Ok("a\\b$x"));
    }

    #[test]
    fn words_are_cut_outside_of_quotes() {
        let variables = variables();
        let cut = |text| words(text, '\\', variables.as_slice()).unwrap();
        assert_eq!(cut("$blanks"), ["a", "b", "c"]);
        assert_eq!(cut("\"$blanks\" d"), ["a b  c", "d"]);
        assert_eq!(cut("$empty"), Vec::<String>::new());
        assert_eq!(cut("''"), [""]);
        assert_eq!(split(r#"a=b "c d"=e\ f 'g h'"#, '\\'), ["a=b", r#""c d"=e\ f"#, "'g h'"]);
    }

    #[test]
    fn here_documents_keep_quotes() {
        let variables = variables();
        let text = here_document("a \"$x\" '${x}' \\$x \\\\ \\n\n", variables.as_slice());
        assert_eq!(text.as_deref(), Ok("a \"value\" 'value' $x \\ n\n"));
    }
}
