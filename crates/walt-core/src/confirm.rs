//! Tokens of confirmations: proof that a user agreed to exactly this operation in exactly this state.

/// A token for an operation and the facts its warning was made from. The same operation on changed
/// facts has another token, so an agreement given to the old state is refused. The key is the
/// server's own, so that nobody has a token without having seen the warning.
pub fn token(key: &[u8; 32], caller: &str, operation: &str, facts: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [caller, operation, facts] {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let key = [7; 32];
        let base = token(&key, "a", "boot", "x");
        assert_eq!(base, token(&key, "a", "boot", "x"));
        for other in [
            token(&key, "b", "boot", "x"),
            token(&key, "a", "bootx", ""),
            token(&key, "a", "boot", "y"),
            token(&[8; 32], "a", "boot", "x"),
        ] {
            assert_ne!(base, other);
        }
    }
}
