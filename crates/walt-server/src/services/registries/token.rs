//! Tokens for the server's own registry, whose clients authenticate by user and password. A token is its expiry time
//! and a keyed hash of that time and the user; nothing is stored.

use std::time::Duration;
use walt_types::UserName;

/// Lifetime of a token.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Separates these hashes from those of confirmations, which use the same key.
const CONTEXT: &str = "walt 2026 registry tokens";

fn mac(key: &[u8; 32], user: &UserName, ends: u64) -> blake3::Hash {
    let key = blake3::derive_key(CONTEXT, key);
    blake3::keyed_hash(&key, format!("{user} {ends}").as_bytes())
}

/// A token for a user, valid from `now`, in seconds since the epoch.
pub fn mint(key: &[u8; 32], user: &UserName, now: u64) -> String {
    let ends = now + LIFE.as_secs();
    format!("{ends:x}.{}", mac(key, user, ends).to_hex())
}

/// Whether a token belongs to that user and is valid at `now`.
pub fn is_valid(key: &[u8; 32], user: &UserName, token: &str, now: u64) -> bool {
    let Some((ends, hash)) = token.split_once('.') else { return false };
    let (Ok(ends), Ok(hash)) = (u64::from_str_radix(ends, 16), blake3::Hash::from_hex(hash)) else {
        return false;
    };
    // Hashes are compared in constant time.
    mac(key, user, ends) == hash && now < ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_users_for_a_while() {
        let (key, ann, bob): (_, UserName, UserName) =
            ([7; 32], "ann".parse().unwrap(), "bob".parse().unwrap());
        let token = mint(&key, &ann, 1000);
        assert!(
            is_valid(&key, &ann, &token, 1000) && is_valid(&key, &ann, &token, 1000 + LIFE.as_secs() - 1)
        );
        assert!(!is_valid(&key, &ann, &token, 1000 + LIFE.as_secs()));
        assert!(!is_valid(&key, &bob, &token, 1000) && !is_valid(&[8; 32], &ann, &token, 1000));
        let later = token.replacen(token.split('.').next().unwrap(), "ffffffff", 1);
        for bad in ["", ".", "x.y", &token[1..], &later] {
            assert!(!is_valid(&key, &ann, bad, 1000), "{bad}");
        }
    }
}
