//! Authentication: challenges of registries and the tokens that answer them.
//!
//! Source: RFC 9110 §11 (challenges), RFC 7617 (Basic), and the registry project's token specification (Bearer).

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::fmt;

/// Longest token.
const MAX_TOKEN: usize = 64 << 10;
/// Characters that need no encoding in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A user of a registry. Its `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

/// How a registry wants requests to be authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from a token service.
    Bearer {
        /// URL of the service that makes tokens.
        realm: String,
        /// Name of the registry for it.
        service: Option<String>,
        /// The access that the request needs.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Parses the values of `WWW-Authenticate` headers; a token is preferred. `None` if no scheme is supported.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for (scheme, parameters) in values.into_iter().flat_map(challenges) {
            let get = |name: &str| {
                parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = get("realm") {
                    return Some(Self::Bearer { realm, service: get("service"), scope: get("scope") });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

/// The challenges in one header: scheme, and parameters with their quotes undone.
fn challenges(value: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = value.trim_start_matches([',', ' ', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            Some(text) if !word.is_empty() => {
                let (value, left) = parameter(text.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = left;
            }
            _ if word.is_empty() => rest = after.get(1..).unwrap_or(""), // a stray sign of one byte
            _ => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    found
}

/// A token or quoted string at the start of `text`, and what follows.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut signs = quoted.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(signs.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// The query that asks a token service for a token.
pub(super) fn token_query(service: Option<&str>, scopes: &[String], user: Option<&str>) -> String {
    let mut parts = Vec::new();
    let mut add =
        |name: &str, value: &str| parts.push(format!("{name}={}", utf8_percent_encode(value, QUERY)));
    if let Some(service) = service {
        add("service", service);
    }
    scopes.iter().for_each(|scope| add("scope", scope));
    if let Some(user) = user {
        add("account", user);
    }
    parts.join("&")
}

/// A text as part of a URL's query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The token in the answer of a token service.
///
/// # Errors
/// What is wrong with it.
pub fn parse_token(bytes: &[u8]) -> Result<String, &'static str> {
    let answer: TokenAnswer =
        serde_json::from_slice(bytes).map_err(|_| "the token service's answer is not JSON")?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token);
    let token = token.ok_or("the token service's answer has no token")?;
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the token service's answer has an invalid token");
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_registries() {
        let bearer = Challenge::parse([
            r#"Bearer realm="https://auth.example/token",service="reg.example",scope="repository:a/b:pull,push""#,
        ]);
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("reg.example".into()),
                scope: Some("repository:a/b:pull,push".into())
            })
        );
        assert_eq!(Challenge::parse(["Basic realm=\"Registry \\\"x\\\" realm\""]), Some(Challenge::Basic));
        // Two in one header, the better one last; and as two headers.
        for values in [
            &["Basic realm=a, bearer realm=\"r\", service=s"][..],
            &["Basic realm=a", "Bearer service=s,realm=r"],
        ] {
            let Some(Challenge::Bearer { realm, service, scope: None }) =
                Challenge::parse(values.iter().copied())
            else {
                panic!("{values:?}")
            };
            assert_eq!((realm.as_str(), service.as_deref()), ("r", Some("s")));
        }
        for nothing in ["", "=", "Bearer", "Negotiate abc==", "Bearer realm", ",,,\"", "Bearer \"realm\"=é"]
        {
            assert_eq!(Challenge::parse([nothing]), None, "{nothing}");
        }
    }

    #[test]
    fn tokens() {
        assert_eq!(parse_token(br#"{"token":"abc"}"#), Ok("abc".into()));
        assert_eq!(parse_token(br#"{"token":"","access_token":"x","expires_in":"soon"}"#), Ok("x".into()));
        for bad in ["", "[]", "{}", r#"{"token":7}"#, r#"{"token":"a b"}"#, r#"{"token":"a\nb"}"#] {
            assert!(parse_token(bad.as_bytes()).is_err(), "{bad}");
        }
        let query = token_query(Some("a b"), &["repository:x/y:pull".into()], Some("é"));
        assert_eq!(query, "service=a%20b&scope=repository%3Ax%2Fy%3Apull&account=%C3%A9");
        let secret = Credentials { username: "ann".into(), password: "secret".into() };
        assert_eq!(secret.basic(), "Basic YW5uOnNlY3JldA==");
        assert!(!format!("{secret:?}").contains("secret"));
    }
}
