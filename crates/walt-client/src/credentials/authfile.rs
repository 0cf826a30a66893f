//! Files with credentials as docker and podman write them (containers-auth.json(5)).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::collections::BTreeMap;
use walt_api::RegistryCredentials;

/// User name of entries that hold a token only docker can use.
const IDENTITY_TOKEN: &str = "<token>";

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

/// An entry for a registry.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// User and password.
    Given(RegistryCredentials),
    /// A program that returns them.
    Helper {
        /// Its name.
        program: String,
        /// The name to ask it for.
        key: String,
    },
}

/// Names that a registry may have in a file, best first.
fn keys(host: &str, hub: bool) -> Vec<String> {
    let mut keys = vec![host.to_owned()];
    if hub {
        // docker writes the URL of the hub's old API, podman its domain.
        keys.insert(0, format!("https://{host}/v1/"));
        keys.extend(host.split_once('.').map(|(_, domain)| domain.to_owned()));
    }
    keys
}

/// The host in a key: older files have URLs.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

impl AuthFile {
    /// Parses a file.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // serde would also accept an array, since all fields have defaults.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }

    /// The entry for a registry.
    pub fn entry(&self, host: &str, hub: bool) -> Option<Entry> {
        let keys = keys(host, hub);
        let helper = |name: &str, key: &str| {
            // It must be the name of a program, not a path.
            let word =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            word.then(|| Entry::Helper { program: format!("docker-credential-{name}"), key: key.to_owned() })
        };
        for key in &keys {
            if let Some(found) = self.cred_helpers.get(key).and_then(|name| helper(name, key)) {
                return Some(found);
            }
        }
        let exact = keys.iter().find_map(|key| self.auths.get(key));
        let by_host =
            || self.auths.iter().find(|(key, _)| keys.iter().any(|k| k == host_of(key))).map(|(_, a)| a);
        if let Some(found) = exact.and_then(Auth::credentials).or_else(|| by_host()?.credentials()) {
            return Some(Entry::Given(found));
        }
        self.creds_store.as_deref().and_then(|name| helper(name, &keys[0]))
    }
}

impl Auth {
    fn credentials(&self) -> Option<RegistryCredentials> {
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            return usable(username, password);
        }
        let text = STANDARD.decode(self.auth.as_ref()?.trim()).ok()?;
        let text = String::from_utf8(text).ok()?;
        let (username, password) = text.split_once(':')?;
        usable(username, password.trim_end_matches('\0'))
    }
}

fn usable(username: &str, password: &str) -> Option<RegistryCredentials> {
    let usable = !username.is_empty() && username != IDENTITY_TOKEN && !password.is_empty();
    usable.then(|| RegistryCredentials { username: username.to_owned(), password: password.to_owned() })
}

/// Parses the answer of a helper.
pub fn parse_helper(bytes: &[u8]) -> Option<RegistryCredentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    usable(&answer.username, &answer.secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(user: &str, password: &str) -> Option<Entry> {
        Some(Entry::Given(RegistryCredentials { username: user.into(), password: password.into() }))
    }

    #[test]
    fn files_of_docker_and_podman() {
        let file = AuthFile::parse(
            br#"{"auths":{
                "reg.lab:5000":{"auth":"YW5uOnNlY3JldDp4"},
                "https://old.lab/v2/":{"username":"bob","password":"p"},
                "empty.lab":{},
                "token.lab":{"auth":"PHRva2VuPjp4"},
                "hub.example":{"auth":"YW5uOmh1Yg=="}},
              "credHelpers":{"helped.lab":"pass","bad.lab":"../x"},"HttpHeaders":{"a":"b"}}"#,
        )
        .unwrap();
        assert_eq!(file.entry("reg.lab:5000", false), given("ann", "secret:x"));
        assert_eq!(file.entry("old.lab", false), given("bob", "p"));
        for none in ["empty.lab", "token.lab", "other.lab", "reg.lab", "bad.lab"] {
            assert_eq!(file.entry(none, false), None, "{none}");
        }
        assert_eq!(file.entry("index.hub.example", true), given("ann", "hub"));
        let helper = Entry::Helper { program: "docker-credential-pass".into(), key: "helped.lab".into() };
        assert_eq!(file.entry("helped.lab", false), Some(helper));
        let store = AuthFile::parse(br#"{"auths":{"reg.lab":{}},"credsStore":"desktop"}"#).unwrap();
        let helper =
            Entry::Helper { program: "docker-credential-desktop".into(), key: "https://h.x/v1/".into() };
        assert_eq!(store.entry("h.x", true), Some(helper));
        assert!(AuthFile::parse(b"[]").is_none() && AuthFile::parse(b"").is_none());
        let answer = parse_helper(br#"{"ServerURL":"x","Username":"ann","Secret":"s"}"#).unwrap();
        assert_eq!((answer.username.as_str(), answer.password.as_str()), ("ann", "s"));
        assert!(!format!("{file:?} {answer:?}").contains("secret"));
    }
}
