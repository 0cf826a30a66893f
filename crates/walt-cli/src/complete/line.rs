//! A command line as it stands in a shell, up to the cursor: its words, and what of the last one a shell replaces.

/// A word of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// As it is written.
    pub raw: Vec<u8>,
    /// What it means, without quotes and backslashes; variables stay.
    pub text: Vec<u8>,
    /// Where in `raw` a quote begins that does not end.
    pub open: Option<usize>,
    /// For each byte of `raw` that stands for itself, its place there and in `text`.
    plain: Vec<(usize, usize)>,
}

/// The words of a line; the last one is that at the cursor, empty if there is a blank before it.
pub fn words(line: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<u8> = None;
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if quote.is_none() && matches!(byte, b' ' | b'\t' | b'\n') {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_with(Word::default);
        let at = word.raw.len();
        word.raw.push(byte);
        match (quote, byte) {
            (Some(open), _) if byte == open => (quote, word.open) = (None, None),
            (None, b'"' | b'\'') => (quote, word.open) = (Some(byte), Some(at)),
            (None, b'\\') => word.text.extend(bytes.next().inspect(|next| word.raw.push(*next))),
            (Some(b'"'), b'\\') => match bytes.next_if(|next| matches!(next, b'"' | b'\\' | b'$' | b'`')) {
                Some(next) => {
                    word.raw.push(next);
                    word.text.push(next);
                }
                None => word.text.push(byte),
            },
            (Some(_), _) => word.text.push(byte),
            (None, _) => {
                word.plain.push((at, word.text.len()));
                word.text.push(byte);
            }
        }
    }
    words.push(word.unwrap_or_default());
    words
}

impl Word {
    /// A word without quotes.
    pub fn plain(text: &[u8]) -> Self {
        Self { raw: text.to_vec(), text: text.to_vec(), ..Self::default() }
    }

    /// How much of `text` bash leaves alone: it replaces what follows the last of its break characters.
    fn kept(&self, breaks: &[u8]) -> usize {
        let last = self.plain.iter().rev().find(|(at, _)| breaks.contains(&self.raw[*at]));
        last.map_or(0, |(_, text)| text + 1)
    }

    /// What bash puts in the place of this word, so that it becomes `value`. `None` if a quote begins inside the word.
    pub fn replacement(&self, value: &[u8], breaks: &[u8], is_path: bool) -> Option<Vec<u8>> {
        if let Some(open) = self.open {
            let quote = self.raw[open];
            return (open == 0).then(|| in_quotes(value, quote)).flatten();
        }
        let rest = value.get(self.kept(breaks)..)?;
        Some(escaped(rest, is_path, self.text.starts_with(b"~")))
    }
}

/// A text inside of quotes that are open. Single quotes cannot have one inside.
fn in_quotes(value: &[u8], quote: u8) -> Option<Vec<u8>> {
    if quote == b'\'' {
        return (!value.contains(&b'\'')).then(|| value.to_vec());
    }
    let mut out = Vec::new();
    for byte in value {
        if matches!(byte, b'"' | b'\\' | b'$' | b'`') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    Some(out)
}

/// A text as a word of bash. Only in paths, brackets could be taken for a pattern that another file fits.
fn escaped(value: &[u8], is_path: bool, has_home: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, byte) in value.iter().enumerate() {
        let special = match byte {
            b'~' => at == 0 && !has_home,
            b'#' => at == 0,
            b'[' | b']' => is_path,
            other => b" \t!\"$&'()*;<>?\\^`{|}".contains(other),
        };
        if special {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &[u8] = b" \t\n\"'@><=;|&(:";

    fn texts(line: &str) -> Vec<String> {
        words(line.as_bytes()).into_iter().map(|w| String::from_utf8(w.text).unwrap()).collect()
    }

    #[test]
    fn lines_are_words() {
        assert_eq!(texts("walt node sh"), ["walt", "node", "sh"]);
        assert_eq!(texts("walt  node\t"), ["walt", "node", ""]);
        assert_eq!(texts(""), [""]);
        assert_eq!(texts(r#"a 'b c' "d \"e\x" f\ g "h i"#), ["a", "b c", "d \"e\\x", "f g", "h i"]);
        assert_eq!(texts("a\\"), ["a"]);
        assert_eq!(texts("a''"), ["a"]);
    }

    #[test]
    fn what_bash_replaces() {
        let replaced = |line: &str, value: &str| {
            let last = words(line.as_bytes()).pop().unwrap();
            last.replacement(value.as_bytes(), BREAKS, true).map(|r| String::from_utf8(r).unwrap())
        };
        for (line, value, expected) in [
            ("v", "vn1", Some("vn1")),
            ("vn1:/et", "vn1:/etc", Some("/etc")),
            ("vn1:", "vn1:/", Some("/")),
            ("ram=5", "ram=512M", Some("512M")),
            ("--image=a:", "--image=a:b", Some("b")),
            ("my\\ f", "my file", Some("my\\ file")),
            ("a\\:b", "a:bc", Some("a:bc")),
            ("\"my f", "my $file", Some("my \\$file")),
            ("'my f", "my $file", Some("my $file")),
            ("'it", "it's", None),
            ("a\"b", "abc", None),
            ("~/a", "~/a b", Some("~/a\\ b")),
            ("", "~a", Some("\\~a")),
            ("a", "a[1]", Some("a\\[1\\]")),
            ("vn1,", "vn1,vn2", Some("vn1,vn2")),
        ] {
            assert_eq!(replaced(line, value).as_deref(), expected, "{line} {value}");
        }
        let last = words(b"disks=8").pop().unwrap();
        assert_eq!(last.replacement(b"disks=8G[x=y]", BREAKS, false).unwrap(), b"8G[x=y]");
    }
}
