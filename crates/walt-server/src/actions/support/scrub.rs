//! Takes secrets out of text: those that are known, and whatever looks like one.
//!
//! Too much is removed rather than too little: a bundle is sent to strangers.

use regex_automata::{Input, meta::Regex, util::captures::Captures};
use std::path::Path;

/// What stands in place of a secret.
pub const REMOVED: &str = "(removed)";
/// Shortest known secret: shorter ones would be found in ordinary words.
const MIN_SECRET: usize = 12;

/// Expressions for what looks like a secret. What group 1 matches stays, the rest goes.
const PATTERNS: [&str; 8] = [
    // Private keys, also those that are cut off.
    r"(?s)()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    // Names and passwords in URLs.
    r#"(?i)\b([a-z][a-z0-9+.-]*://)[^\s"'<>]*@"#,
    // Queries of URLs: signatures and tokens have many names there.
    r#"(?i)(\b[a-z][a-z0-9+.-]*://[^\s"'<>?]*\?)[^\s"'<>]+"#,
    r"(?i)((?:proxy-)?authorization|cookie)\s*[:=][^\r\n]*",
    r"(?i)\b((?:bearer|basic)[ \t])[ \t]*[a-z0-9._~+/=-]{8,}",
    // Settings and fields, as YAML, JSON, shells and our log write them.
    r#"(?i)([a-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|api[_-]?key|private[_-]?key)[a-z0-9_.-]*\\?["']?\s*[:=]\s*)(?:\\?"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\s,;}]+)"#,
    r"(?i)(--(?:password|token|secret)\s)\s*\S+",
    // JSON web tokens.
    r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
];

/// What to remove.
pub struct Scrub {
    secrets: Vec<String>,
    patterns: Vec<Regex>,
}

impl Scrub {
    /// Knows the patterns, and the keys of this state directory.
    pub fn new(state_dir: &Path) -> Self {
        let mut secrets = Vec::new();
        for entry in std::fs::read_dir(state_dir.join("keys")).into_iter().flatten().flatten() {
            let is_public = entry.path().extension().is_some_and(|e| e == "pub");
            // What cannot be read as text cannot be in a text either.
            if let Ok(text) = std::fs::read_to_string(entry.path())
                && !is_public
                && text.contains("PRIVATE KEY")
            {
                let body = text.lines().filter(|line| !line.starts_with("-----"));
                secrets.extend(body.map(str::to_owned));
            }
        }
        Self::of(secrets)
    }

    fn of(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= MIN_SECRET);
        // Invariant: the expressions are constants, which a test compiles.
        let patterns = PATTERNS.iter().map(|p| Regex::new(p).expect("a regular expression")).collect();
        Self { secrets, patterns }
    }

    /// Adds a secret that is known.
    pub fn add(&mut self, secret: String) {
        if secret.len() >= MIN_SECRET {
            self.secrets.push(secret);
        }
    }

    /// The text without secrets.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REMOVED);
            }
        }
        self.patterns.iter().fold(text, |text, pattern| replace(pattern, &text))
    }
}

/// Replaces each match by its group 1 and [`REMOVED`].
fn replace(pattern: &Regex, text: &str) -> String {
    let mut found: Captures = pattern.create_captures();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    loop {
        pattern.search_captures(&Input::new(text).range(at..), &mut found);
        let Some(whole) = found.get_match() else { break };
        let kept = found.get_group(1).map_or("", |group| &text[group.range()]);
        out.push_str(&text[at..whole.start()]);
        out.push_str(kept);
        out.push_str(REMOVED);
        // No expression matches nothing.
        at = whole.end();
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_goes() {
        let scrub = Scrub::of(vec!["c2VjcmV0LWtleS1saW5l".into(), "short".into()]);
        for (text, expected) in [
            ("a short text stays: password", "a short text stays: password"),
            ("loki: http://bob:pa:ss/w@host:3100/x", "loki: http://(removed)host:3100/x"),
            ("git clone https://ghp_abc@git.example/x.git", "git clone https://(removed)git.example/x.git"),
            (
                "GET https://s3.example/blob?X-Amz-Signature=abc&a=b failed",
                "GET https://s3.example/blob?(removed) failed",
            ),
            ("Authorization: Basic Ym9iOnB3\nnext", "Authorization(removed)\nnext"),
            ("sent 'Bearer abcdefghij.k' there", "sent 'Bearer (removed)' there"),
            (r#"{"password":"a b\"c","user":"bob"}"#, r#"{"password":(removed),"user":"bob"}"#),
            ("my_api-key = x; next=1", "my_api-key = (removed); next=1"),
            ("  registry-token: 'a b' # c", "  registry-token: (removed) # c"),
            ("tool --password hunter2 -v", "tool --password (removed) -v"),
            ("x c2VjcmV0LWtleS1saW5l y", "x (removed) y"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc.", "jwt (removed)."),
            (
                "k -----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY----- l",
                "k (removed) l",
            ),
            ("-----BEGIN PRIVATE KEY-----\nabc", "(removed)"),
            ("http://192.0.2.1/boot/x is fine", "http://192.0.2.1/boot/x is fine"),
        ] {
            assert_eq!(scrub.clean(text), expected, "{text}");
        }
    }
}
