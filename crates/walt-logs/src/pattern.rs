//! Regular expressions, in linear time (the engine of the crate `regex`), on lines of any bytes.
//!
//! A line is searched as if it stood alone: `^` and `$` are its ends. Lines of a stream lie behind each other in a frame
//! with a newline after each, and most lines do not match, so asking the engine once per line would cost more than the
//! search itself. A second form of the expression therefore searches the whole text at once. In that form no part can
//! match a newline, and the ends of the text are ends of lines; so it finds the same lines. Where a line contains a
//! newline itself, or the expression has no such form, lines are searched one by one.

use crate::Error;
use crate::limits::{MAX_PATTERN, MAX_PATTERN_SIZE};
use regex_automata::{Input, meta};
use regex_syntax::hir::{
    Capture, Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look,
    Repetition,
};

/// A regular expression; the search is not anchored.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    line: meta::Regex,
    /// The form that searches many lines at once.
    joined: Option<meta::Regex>,
}

impl Pattern {
    /// Compiles an expression, in the syntax of the crate `regex`.
    ///
    /// # Errors
    /// [`Error::Pattern`] if it is not valid, longer than [`MAX_PATTERN`], or larger than [`MAX_PATTERN_SIZE`] when compiled.
    pub fn new(source: &str) -> Result<Pattern, Error> {
        if source.len() > MAX_PATTERN {
            let length = source.len();
            return Err(Error::Pattern(format!(
                "it has {length} bytes, and at most {MAX_PATTERN} are allowed"
            )));
        }
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .nest_limit(100)
            .build()
            .parse(source)
            .map_err(|e| Error::Pattern(one_line(&e.to_string())))?;
        let line = compile(&hir).map_err(|e| match e.size_limit() {
            Some(_) => Error::Pattern("it is too large: lower the numbers of its repetitions".into()),
            None => Error::Pattern(one_line(&e.to_string())),
        })?;
        let joined = within_lines(&hir).and_then(|hir| compile(&hir).ok());
        Ok(Pattern { source: source.to_owned(), line, joined })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether a line contains a match.
    pub fn matches(&self, line: &[u8]) -> bool {
        self.line.is_match(line)
    }

    /// Whether [`Pattern::find`] works.
    pub(crate) fn searches_text(&self) -> bool {
        self.joined.is_some()
    }

    /// In lines that each end with a newline: a position in the first line with a match, at or after `from`, which is
    /// the start of a line. The newline counts as part of its line.
    pub(crate) fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let joined = self.joined.as_ref()?;
        if from >= text.len() {
            return None;
        }
        let input = Input::new(text).range(from..).earliest(true);
        // What matches behind the last newline is not in a line.
        joined.search_half(&input).map(|m| m.offset()).filter(|at| *at < text.len())
    }

    /// A copy for another thread: the copies do not wait for each other.
    pub(crate) fn for_thread(&self) -> Pattern {
        self.clone()
    }
}

fn compile(hir: &Hir) -> Result<meta::Regex, Box<meta::BuildError>> {
    let config = meta::Config::new().utf8_empty(false).nfa_size_limit(Some(MAX_PATTERN_SIZE));
    meta::Builder::new().configure(config).build_from_hir(hir).map_err(Box::new)
}

/// The parser explains errors in several lines; the last one says what is wrong.
fn one_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The expression changed so that no match contains a newline and the ends of text are ends of lines. `None` if such
/// a form does not exist.
fn within_lines(hir: &Hir) -> Option<Hir> {
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => return None,
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(class)) => {
            let mut class = class.clone();
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Look(Look::Start | Look::StartLF) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End | Look::EndLF) => Hir::look(Look::EndLF),
        HirKind::Look(Look::StartCRLF | Look::EndCRLF) => return None,
        // Ends of words: a newline is as little part of a word as the end of the text.
        HirKind::Look(look) => Hir::look(*look),
        HirKind::Repetition(r) => Hir::repetition(Repetition {
            min: r.min,
            max: r.max,
            greedy: r.greedy,
            sub: Box::new(within_lines(&r.sub)?),
        }),
        HirKind::Capture(c) => Hir::capture(Capture {
            index: c.index,
            name: c.name.clone(),
            sub: Box::new(within_lines(&c.sub)?),
        }),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(within_lines).collect::<Option<_>>()?),
        HirKind::Alternation(parts) => {
            Hir::alternation(parts.iter().map(within_lines).collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The lines that are found in the joined text.
    fn found(pattern: &Pattern, lines: &[Vec<u8>]) -> Vec<usize> {
        let mut text = Vec::new();
        let mut ends = Vec::new();
        for line in lines {
            text.extend_from_slice(line);
            ends.push(text.len());
            text.push(b'\n');
        }
        let (mut out, mut from) = (Vec::new(), 0);
        while let Some(at) = pattern.find(&text, from) {
            let line = ends.partition_point(|end| *end < at);
            out.push(line);
            from = ends[line] + 1;
        }
        out
    }

    const EXPRESSIONS: [&str; 20] = [
        "a",
        "",
        "^",
        "$",
        "^$",
        "a+b",
        r"\s",
        "[^a]",
        r"\bab\b",
        "(?m)^a$",
        "a|b$",
        ".",
        "(?s).",
        "(?s)a.b",
        r"\A\z",
        r"(?-u)\xff",
        r"\W",
        "(?i)AB",
        r"(a|^)\s*b",
        "(?-u:[^x])b",
    ];

    proptest! {
        #[test]
        fn one_search_finds_what_searches_of_each_line_find(
            lines in prop::collection::vec(prop::collection::vec(prop::sample::select(b"aabbx \xff\xc3\xa9\r\0".to_vec()), 0..6), 0..8),
            which in 0..EXPRESSIONS.len(),
        ) {
            let pattern = Pattern::new(EXPRESSIONS[which]).unwrap();
            prop_assume!(pattern.searches_text());
            let expected: Vec<usize> = (0..lines.len()).filter(|i| pattern.matches(&lines[*i])).collect();
            prop_assert_eq!(found(&pattern, &lines), expected, "{}", EXPRESSIONS[which]);
        }
    }

    #[test]
    fn an_expression_with_a_newline_has_no_joined_form() {
        assert!(!Pattern::new("a\\nb").unwrap().searches_text());
        assert!(Pattern::new("a\\nb").unwrap().matches(b"xa\nby"));
        assert!(!Pattern::new("(?Rm)a$").unwrap().searches_text());
    }

    #[test]
    fn errors_are_one_line() {
        let message = |e: &str| Pattern::new(e).unwrap_err().to_string();
        assert_eq!(message("a("), "invalid regular expression: unclosed group");
        assert_eq!(message(r"(a)\1"), "invalid regular expression: backreferences are not supported");
        assert!(message("(((a{1000}){1000}){1000})").contains("too large"));
        assert!(message(&"a".repeat(MAX_PATTERN + 1)).contains("4097 bytes"));
        assert!(message(&"(".repeat(200)).starts_with("invalid regular expression: "));
    }

    #[test]
    fn the_time_is_linear() {
        // Exponential in an engine that backtracks.
        let pattern = Pattern::new("(a*)*(a*)*(a*)*b$").unwrap();
        assert!(!pattern.matches(&[b'a'; 20_000]));
    }
}
