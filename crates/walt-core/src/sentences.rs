//! Wording shared by many messages: lists of names and verbs that agree with them.

/// Most names that a sentence lists; beyond it, it only counts them.
const NAMES_MAX: usize = 5;

/// `Node a`, `Nodes a, b and c`, or `7 nodes` when there are more than five.
pub fn items<S: AsRef<str>>(singular: &str, names: &[S]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let capital = capitalise(singular);
    match sorted.as_slice() {
        [] => format!("no {singular}"),
        [one] => format!("{capital} {one}"),
        [start @ .., last] if sorted.len() <= NAMES_MAX => {
            format!("{capital}s {} and {last}", start.join(", "))
        }
        many => format!("{} {singular}s", many.len()),
    }
}

/// `a`, `a and b` or `a, b and c`, in the given order; nothing for an empty list.
pub fn and<S: AsRef<str>>(names: &[S]) -> Option<String> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        [start @ .., last] => Some(format!("{} and {last}", start.join(", "))),
    }
}

/// The form of a verb for `count` subjects: `verb(1, "is", "are")`.
pub fn verb<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// The text with its first letter in upper case; the rest is left as it is.
pub fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names() {
        assert_eq!(items("node", &["b"]), "Node b");
        assert_eq!(items("node", &["b", "a", "c"]), "Nodes a, b and c");
        assert_eq!(items("node", &["a", "b", "c", "d", "e", "f"]), "6 nodes");
        assert_eq!(and::<&str>(&[]), None);
        assert_eq!(and(&["b"]).as_deref(), Some("b"));
        assert_eq!(and(&["b", "c", "a"]).as_deref(), Some("b, c and a"));
        assert_eq!(capitalise("node A OK"), "Node A OK");
    }
}
