//! The options of an instruction: `--name` and `--name=value` after its first word.

use super::dockerfile::Flag;

/// Splits the arguments of an instruction into its options and the rest. Quotes and escapes in them are taken away,
/// so that a value can have blanks; a word `--` ends them.
pub(super) fn take(arguments: &str, escape: char) -> (Vec<Flag>, &str) {
    let (mut flags, mut rest) = (Vec::new(), arguments.trim_start());
    while rest.starts_with("--") {
        let (word, end) = word(rest, escape);
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        let word = word.trim_start_matches('-');
        flags.push(match word.split_once('=') {
            Some((name, value)) => Flag { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Flag { name: word.to_owned(), value: None },
        });
    }
    (flags, rest)
}

/// The first word without its quotes, and where it ends.
fn word(text: &str, escape: char) -> (String, usize) {
    let (mut word, mut quote) = (String::new(), None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, at),
            (_, c) if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (_, c) => word.push(c),
        }
    }
    (word, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_the_rest() {
        for (text, flags, rest) in [
            ("a --b", &[][..], "a --b"),
            ("  --a --b=c  d e", &[("a", None), ("b", Some("c"))], "d e"),
            ("--a=\"b c\"d 'e f'", &[("a", Some("b cd"))], "'e f'"),
            ("--a='b\"c' x", &[("a", Some("b\"c"))], "x"),
            (r#"--a=b\ c\,\"d\" x"#, &[("a", Some("b c,\"d\""))], "x"),
            ("--a= x", &[("a", Some(""))], "x"),
            ("--a=b=c x", &[("a", Some("b=c"))], "x"),
            ("-- --a", &[], "--a"),
            ("--a -- x", &[("a", None)], "x"),
            ("- x", &[], "- x"),
            ("--a", &[("a", None)], ""),
        ] {
            let wanted: Vec<Flag> = flags
                .iter()
                .map(|(n, v)| Flag { name: (*n).to_owned(), value: v.map(str::to_owned) })
                .collect();
            assert_eq!(take(text, '\\'), (wanted, rest), "{text}");
        }
    }
}
