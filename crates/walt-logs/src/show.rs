//! How a line of any bytes is shown to people.

use std::borrow::Cow;
use std::fmt::Write;

/// The line as text: bytes that are not UTF-8 as `\xff`, control characters as `\x1b` or `\u{9b}`, so that no line can
/// change the terminal or how the lines around it read. Tabs stay. A backslash stays as well: who needs the exact bytes
/// asks for JSON.
pub fn escaped(line: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(line)
        && !text.chars().any(is_hidden)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(line.len() + 16);
    for part in line.utf8_chunks() {
        for c in part.valid().chars() {
            // Writing to a String cannot fail.
            let _ = match c {
                c if !is_hidden(c) => out.write_char(c),
                c if c.is_ascii() => write!(out, "\\x{:02x}", c as u32),
                c => write!(out, "\\u{{{:x}}}", c as u32),
            };
        }
        for byte in part.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// Control characters (Unicode category Cc), and those that change the direction or the lines of the text around them.
fn is_hidden(c: char) -> bool {
    c != '\t' && c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_see() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain \\ text\t.", "plain \\ text\t."),
            ("h\u{e9}llo".as_bytes(), "h\u{e9}llo"),
            (b"h\xc3", "h\\xc3"),
            (b"\xe2\x82rest", "\\xe2\\x82rest"),
            (b"\x1b[31mred\0", "\\x1b[31mred\\x00"),
            (b"two\nlines\r", "two\\x0alines\\x0d"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("\u{202e}txt".as_bytes(), "\\u{202e}txt"),
        ];
        for (line, shown) in cases {
            assert_eq!(escaped(line), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(line in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!escaped(&line).chars().any(is_hidden));
        }
    }
}
