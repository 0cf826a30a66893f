//! Names of nodes, users and models.

use crate::ParseError;

/// Longest node name: one DNS label (RFC 1035 §2.3.4).
const NODE_NAME_MAX: usize = 63;
/// Longest user name: the limit of `useradd(8)`.
const USER_NAME_MAX: usize = 32;
/// Longest model name; models become path components and image names.
const MODEL_MAX: usize = 40;

/// A word with another meaning where the name of a node may stand, besides the keywords of sets.
const BOOTED_IMAGE: &str = "booted-image";
/// User names with another meaning in references and links.
const USER_RESERVED: [&str; 3] = ["waltplatform", "walt", "localhost"];

/// The name of a node: letters, digits and dashes, starting with a letter, unique regardless of case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

fn check_node_name(s: &str) -> Result<(), ParseError> {
    let grammar = (2..=NODE_NAME_MAX).contains(&s.len())
        && s.starts_with(|c: char| c.is_ascii_alphabetic())
        && !s.ends_with('-')
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !grammar {
        return Err(ParseError(format!(
            "'{s}' is not a valid node name: use 2 to {NODE_NAME_MAX} letters, digits and dashes, \
             starting with a letter and not ending with a dash (example: rpi-D327)"
        )));
    }
    if crate::node_set::is_keyword(s) || s.eq_ignore_ascii_case(BOOTED_IMAGE) {
        return Err(ParseError(format!("'{s}' is a reserved word: choose another node name")));
    }
    Ok(())
}

crate::string_type!(NodeName, check_node_name);

impl NodeName {
    /// Longest name, in bytes.
    pub const MAX: usize = NODE_NAME_MAX;
}

/// A user: an operating-system account of the server whose name fits the grammar of references.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

fn check_user_name(s: &str) -> Result<(), ParseError> {
    let grammar = (1..=USER_NAME_MAX).contains(&s.len())
        && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if !grammar {
        return Err(ParseError(format!(
            "'{s}' is not a valid user name: use 1 to {USER_NAME_MAX} of a-z, 0-9, '.', '_' and '-', \
             starting with a letter or a digit"
        )));
    }
    if USER_RESERVED.contains(&s) {
        return Err(ParseError(format!("'{s}' is a reserved user name")));
    }
    Ok(())
}

crate::string_type!(UserName, check_user_name);

/// A hardware model, as in the label `walt.node.models` and in `/boot/<model>/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Model(String);

fn check_model(s: &str) -> Result<(), ParseError> {
    let ok = (2..=MODEL_MAX).contains(&s.len())
        && !s.starts_with('-')
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    ok.then_some(()).ok_or_else(|| {
        ParseError(format!("'{s}' is not a model name: use 2 to {MODEL_MAX} of a-z, 0-9 and '-'"))
    })
}

crate::string_type!(Model, check_model);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names() {
        for good in ["vn1", "rpi-D327", "ab"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "a",
            "1a",
            "a b",
            "a_b",
            "ab-",
            "Server",
            "my-nodes",
            "Booted-Image",
            "explorable-switches",
            "é1",
            &long,
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn user_names_and_models() {
        assert!("root".parse::<UserName>().is_ok());
        for good in ["0x", "a.b_c-d", &"a".repeat(32)] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            &"a".repeat(33),
            "aB",
            "a:b",
            "Root",
            "waltplatform",
            "walt",
            "localhost",
            ".x",
            "a/b",
            "a b",
        ] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
        assert!("pc-x86-64".parse::<Model>().is_ok());
        assert!("../x".parse::<Model>().is_err());
        assert!("-x".parse::<Model>().is_err());
    }
}
