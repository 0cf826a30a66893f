//! Names that clients choose for what they keep at the server over several requests.

use crate::ParseError;

/// Longest tag, in bytes.
const TAG_MAX: usize = 64;

/// A name that a client chooses, so that it finds again what it has at the server: its place in the queue for nodes, or its
/// hold of nodes. Those of two users are different ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTag(String);

fn check(text: &str) -> Result<(), ParseError> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !text.is_empty() && text.len() <= TAG_MAX && text.bytes().all(ok) {
        return Ok(());
    }
    Err(ParseError(format!(
        "'{}' must be 1 to {TAG_MAX} letters, digits, dots, dashes and underscores",
        text.escape_debug()
    )))
}

crate::string_type!(ClientTag, check);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for good in ["a", "job-7.2_x", &"x".repeat(64)] {
            assert_eq!(good.parse::<ClientTag>().expect(good).as_str(), good);
        }
        for bad in ["", "a b", "é", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<ClientTag>().is_err(), "{bad}");
        }
    }
}
