//! Names of checkpoints: moments that a user has given a name, for history ranges of logs.

use crate::ParseError;

/// Longest name.
const CHECKPOINT_MAX: usize = 64;
/// Words with another meaning where the name of a checkpoint may stand.
const CHECKPOINT_RESERVED: [&str; 2] = ["none", "full"];

/// The name of a checkpoint: letters, digits and dashes, not starting with a dash; unique for its user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckpointName(String);

fn check(s: &str) -> Result<(), ParseError> {
    let grammar = (2..=CHECKPOINT_MAX).contains(&s.len())
        && !s.starts_with('-')
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !grammar {
        return Err(ParseError(format!(
            "'{s}' is not a valid name of a checkpoint: use 2 to {CHECKPOINT_MAX} letters, digits and dashes, not \
             starting with a dash (example: start-1)"
        )));
    }
    if CHECKPOINT_RESERVED.iter().any(|word| s.eq_ignore_ascii_case(word)) {
        return Err(ParseError(format!("'{s}' is a reserved word: choose another name for the checkpoint")));
    }
    Ok(())
}

crate::string_type!(CheckpointName, check);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let longest = "x".repeat(CHECKPOINT_MAX);
        for good in ["ab", "a1", "1-", "start-1", "A-B-C", "nones", "ful", longest.as_str()] {
            assert_eq!(good.parse::<CheckpointName>().unwrap().as_str(), good);
        }
        let too_long = "x".repeat(CHECKPOINT_MAX + 1);
        for bad in ["", "a", "-a", "a_b", "a b", "\u{e9}\u{e9}", "a:b", too_long.as_str()] {
            let message = bad.parse::<CheckpointName>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("'{bad}' is not a valid name of a checkpoint: ")),
                "{message}"
            );
        }
        for reserved in ["none", "FULL", "Full"] {
            let message = reserved.parse::<CheckpointName>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("'{reserved}' is a reserved word")), "{message}");
        }
    }
}
