//! `~/.walt/config`: YAML, mode 0600. Passwords are masked, not encrypted.

use super::files;
use serde_norway::{Mapping, Value};
use std::{io, path::PathBuf};
use walt_api::RegistryCredentials;

/// Repeated and combined with the password by XOR, as in the existing system.
const MASK: &[u8] = b"RAND0M STRING T0 HIDE A PASSW0RD";
/// Written above the rest.
const HEADER: &str = "\
# Configuration of the command 'walt' of this account.
# 'registries' holds your credentials for registries, by label. Passwords are masked, not encrypted:
# keep this file private.
";

/// The path of the file.
pub fn path() -> Option<PathBuf> {
    files::in_home(".walt/config")
}

/// The contents of the file; unknown keys are preserved.
#[derive(Debug, Default)]
pub struct Config(Mapping);

/// Parses a file.
///
/// # Errors
/// Why it is not valid.
pub fn parse(text: &str) -> Result<Config, String> {
    match serde_norway::from_str(text).map_err(|e| e.to_string())? {
        Value::Mapping(map) => Ok(Config(map)),
        Value::Null => Ok(Config::default()),
        _ => Err("it is not a mapping of keys to values".into()),
    }
}

impl Config {
    /// The credentials for a registry.
    pub fn credentials(&self, label: &str) -> Option<RegistryCredentials> {
        let entry = self.0.get("registries")?.get(label)?;
        let username = entry.get("username")?.as_str()?.to_owned();
        let password = match entry.get("password")? {
            Value::String(text) => unmask(text)?,
            // A mask without letters looks like a number in YAML.
            Value::Number(number) => unmask(&number.to_string())?,
            _ => return None,
        };
        Some(RegistryCredentials { username, password })
    }

    /// Sets the credentials for a registry.
    pub fn set(&mut self, label: &str, credentials: &RegistryCredentials) {
        let entry = self.0.entry("registries".into()).or_insert_with(|| Value::Mapping(Mapping::new()));
        if !entry.is_mapping() {
            *entry = Value::Mapping(Mapping::new());
        }
        let mut values = Mapping::new();
        values.insert("username".into(), credentials.username.clone().into());
        values.insert("password".into(), mask(&credentials.password).into());
        if let Value::Mapping(map) = entry {
            map.insert(label.into(), Value::Mapping(values));
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        // Invariant: values parsed from YAML, and strings, can be written as YAML.
        format!("{HEADER}{}", serde_norway::to_string(&self.0).expect("a configuration is YAML"))
    }
}

/// Saves credentials for a registry; returns the path of the file.
///
/// # Errors
/// The file cannot be written, or its contents are not valid; it is left unchanged.
pub fn keep(label: &str, credentials: &RegistryCredentials) -> io::Result<PathBuf> {
    let path = files::writable(path())?;
    let mut config = match files::read(&path)? {
        Some(text) => parse(&text).map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?,
        None => Config::default(),
    };
    config.set(label, credentials);
    files::replace(&path, &config.text())?;
    Ok(path)
}

fn masked(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m).collect()
}

fn mask(password: &str) -> String {
    masked(password.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

fn unmask(hex: &str) -> Option<String> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect();
    String::from_utf8(masked(&bytes?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_kept_beside_the_rest() {
        let text = "walt:\n    server: localhost\nregistries:\n    hub:\n        username: ann\n        password: '2124'\n";
        let mut config = parse(text).unwrap();
        assert_eq!(config.credentials("hub").unwrap().password, "se");
        assert_eq!(config.credentials("lab"), None);
        let new = RegistryCredentials {
            username: "bob".into(),
            password: "pässwörd that is longer than the mask is".into(),
        };
        config.set("lab", &new);
        let text = config.text();
        assert!(!text.contains("longer") && text.contains("server: localhost"), "{text}");
        let again = parse(&text).unwrap();
        assert_eq!(again.credentials("lab"), Some(new));
        assert_eq!(again.credentials("hub").unwrap().username, "ann");
        for bad in ["[]", "x", "a: b: c", "registries: {hub: {username: a, password: xyz}}"] {
            assert!(parse(bad).ok().and_then(|c| c.credentials("hub")).is_none(), "{bad}");
        }
        assert!(parse("").unwrap().credentials("hub").is_none());
    }
}
