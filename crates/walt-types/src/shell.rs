//! Command lines for the shell of a node (POSIX sh).
//!
//! `walt node run NODES WORD` passes one word as it is: a command line. With several words, each of them arrives as one
//! word on the node, whatever is in it ([`command_line`]).

/// What a shell takes literally, wherever it stands. A word of these only needs no quotes, so that `NAME=value` before a
/// command stays an assignment.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&byte)
}

/// Words that are operators of a shell when they are not quoted. Who writes one as a word of its own usually wants that.
const OPERATORS: [&str; 12] = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>>", "2>&1", ">&2"];

/// Quotes bytes so that a shell takes them as one word.
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in bytes {
        if *byte == b'\'' { out.extend_from_slice(b"'\\''") } else { out.push(*byte) }
    }
    out.push(b'\'');
    out
}

fn quoted(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The command line that these words mean: a single one is a command line itself; of several, each stays one word.
pub fn command_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

/// The first of several words that looks like an operator of a shell, which [`command_line`] makes an ordinary word.
pub fn operator(words: &[String]) -> Option<&str> {
    let several = if words.len() > 1 { words } else { &[] };
    several.iter().map(String::as_str).find(|word| OPERATORS.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn one_word_is_a_command_line_and_several_are_words() {
        for (given, line) in [
            (&["ls -l; echo $HOME"][..], "ls -l; echo $HOME"),
            (&[""], ""),
            (&["uname", "-a"], "uname -a"),
            (&["LANG=C", "date"], "LANG=C date"),
            (&["sh", "-c", "exit 7"], "sh -c 'exit 7'"),
            (&["echo", ""], "echo ''"),
            (&["echo", "it's", "$x", "*", "a;b", "a\nb"], "echo 'it'\\''s' '$x' '*' 'a;b' 'a\nb'"),
            (&["a b", "c"], "'a b' c"),
            (&["echo", "~", "é", "#x", "a\\"], "echo '~' 'é' '#x' 'a\\'"),
        ] {
            assert_eq!(command_line(&words(given)), line, "{given:?}");
        }
    }

    /// By the shell of this machine.
    #[test]
    fn a_shell_reads_the_words_again() {
        let given =
            ["printf", "%s\\0", "a b", "'", "\"", "$x`y`$(z)", "*", "", "-n", "!", "a\\", "x\ny", "{a,b}"];
        for shell in ["sh", "bash"] {
            let line = command_line(&words(&given));
            let Ok(output) = std::process::Command::new(shell).args(["-c", &line]).output() else { continue };
            let expected: String = given[2..].iter().map(|word| format!("{word}\0")).collect();
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{shell}");
        }
    }

    #[test]
    fn bytes_are_quoted_as_they_are() {
        assert_eq!(quote(b"a'b\xff"), b"'a'\\''b\xff'");
        assert_eq!(quote(b""), b"''");
    }

    #[test]
    fn operators_are_noticed_among_several_words() {
        assert_eq!(operator(&words(&["ls", "|", "wc"])), Some("|"));
        assert_eq!(operator(&words(&["echo", "a|b", "2>&1"])), Some("2>&1"));
        assert_eq!(operator(&words(&["ls | wc"])), None);
        assert_eq!(operator(&words(&["|"])), None);
        assert_eq!(operator(&words(&["echo", "a|b"])), None);
    }
}
