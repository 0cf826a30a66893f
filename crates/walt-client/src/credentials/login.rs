//! Credentials for the server's own registry, written where docker, podman and similar tools look for them.

use super::files::{env_path, in_home, read, replace, writable};
use serde_json::{Map, Value};
use std::{io, path::PathBuf};
use walt_api::RegistryCredentials;

/// The file to write: the one that the environment names, else docker's, which podman, skopeo and buildah read too.
pub fn path() -> Option<PathBuf> {
    env_path("REGISTRY_AUTH_FILE")
        .or_else(|| Some(env_path("DOCKER_CONFIG")?.join("config.json")))
        .or_else(|| in_home(".docker/config.json"))
}

/// The file's text with credentials for `hosts` added; other entries are preserved.
///
/// # Errors
/// The text is not a valid file of this kind.
fn merged(text: Option<&str>, hosts: &[String], credentials: &RegistryCredentials) -> Result<String, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut file: Map<String, Value> = match text.filter(|t| !t.trim().is_empty()) {
        Some(text) => serde_json::from_str(text).map_err(|e| e.to_string())?,
        None => Map::new(),
    };
    let auths = file.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    let auths = auths.as_object_mut().ok_or("its 'auths' is not a list of registries")?;
    let auth = STANDARD.encode(format!("{}:{}", credentials.username, credentials.password));
    for host in hosts {
        auths.insert(host.clone(), serde_json::json!({ "auth": auth }));
    }
    // Invariant: a map of JSON values is JSON.
    Ok(serde_json::to_string_pretty(&file).expect("JSON") + "\n")
}

/// Writes them; returns the path of the file.
///
/// # Errors
/// The file cannot be read or written; it is left unchanged.
pub fn keep(hosts: &[String], credentials: &RegistryCredentials) -> io::Result<PathBuf> {
    let path = writable(path())?;
    let named = |e: String| io::Error::other(format!("{}: {e}", path.display()));
    let before = read(&path).map_err(|e| named(e.to_string()))?;
    let text = merged(before.as_deref(), hosts, credentials).map_err(named)?;
    replace(&path, &text).map_err(|e| named(e.to_string()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::authfile::{AuthFile, Entry};

    #[test]
    fn other_entries_stay() {
        let ann = RegistryCredentials { username: "ann".into(), password: "t".into() };
        let before = r#"{"auths":{"a.example":{"auth":"x"}},"credsStore":"y","proxies":{"z":1}}"#;
        let text = merged(Some(before), &["localhost:5050".into()], &ann).unwrap();
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        assert_eq!(file.entry("localhost:5050", false), Some(Entry::Given(ann.clone())));
        assert!(text.contains("a.example") && text.contains("proxies"), "{text}");
        assert!(merged(None, &["h".into()], &ann).unwrap().contains("auths"));
        for bad in ["[]", "x", r#"{"auths":[]}"#] {
            assert!(merged(Some(bad), &["h".into()], &ann).is_err(), "{bad}");
        }
    }
}
