//! `~/.walt/config`: YAML, mode 0600, as the existing system has it. Passwords are masked, not encrypted.
//!
//! ```text
//! walt:
//!     server: localhost
//!     username: ann
//! registries:
//!     hub:
//!         username: ann
//!         password: '3302…'
//! ```
//! Everything may be absent. What older versions of that system have left is converted when it is found: `~/.waltrc`, the keys
//! `server`, `username`, `password` and `hub` at the top. Its cache, a comment, is not read, and gone when the file is written.

use crate::files;
use serde::Deserialize;
use serde_norway::{Mapping, Value};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use walt_api::RegistryCredentials;

/// Repeated and combined with the password by XOR, as in the existing system.
const MASK: &[u8] = b"RAND0M STRING T0 HIDE A PASSW0RD";
/// Written above the rest.
const HEADER: &str = "\
# Configuration of the command 'walt' of this account.
# 'walt.server' is the server: localhost, a host that ssh reaches, or ssh://[user@]host[:port].
# 'registries' holds your credentials for registries, by label. Passwords are masked, not encrypted:
# keep this file private.
";
/// Label of the docker hub.
const HUB: &str = "hub";

/// The path of the file.
pub fn path() -> Option<PathBuf> {
    files::in_home(".walt/config")
}

/// The contents of the file; unknown keys are preserved.
#[derive(Debug, Default)]
pub struct Config(Mapping);

/// What there was.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The configuration; an empty one if there is no file, or it is not valid.
    pub config: Config,
    /// Sentences for the user: what is wrong with the file, what was converted.
    pub notes: Vec<String>,
}

/// Reads the user's file, and converts what older versions have left.
pub fn load() -> Loaded {
    match (path(), files::in_home(".waltrc")) {
        (Some(path), Some(legacy)) => load_from(&path, &legacy),
        _ => Loaded::default(),
    }
}

/// The same without a word, and without a change on the disk.
pub fn look() -> Config {
    let paths = [path(), files::in_home(".waltrc")];
    let text = paths.into_iter().flatten().find_map(|path| files::read(&path).ok().flatten());
    let mut config = text.and_then(|text| parse(&text).ok()).unwrap_or_default();
    config.convert();
    config
}

fn load_from(path: &Path, legacy: &Path) -> Loaded {
    let is_legacy = !path.exists() && legacy.exists();
    let file = if is_legacy { legacy } else { path };
    let mut notes = Vec::new();
    let ignored = |why: &dyn std::fmt::Display| format!("Warning: ignoring {}: {why}.", file.display());
    let mut config = match files::read(file) {
        Ok(None) => return Loaded::default(),
        Ok(Some(text)) => match parse(&text) {
            Ok(config) => config,
            Err(why) => return Loaded { notes: vec![ignored(&why)], ..Loaded::default() },
        },
        Err(e) => return Loaded { notes: vec![ignored(&e)], ..Loaded::default() },
    };
    if config.convert() || is_legacy {
        match files::replace(path, &config.text()) {
            Ok(()) if is_legacy => {
                // If it stays, the new one counts.
                let _ = fs::remove_file(legacy);
                notes.push(format!(
                    "Configuration was moved from {} to {}.",
                    legacy.display(),
                    path.display()
                ));
            }
            Ok(()) => notes.push(format!("Configuration was updated in {}.", path.display())),
            // It is converted in memory each time.
            Err(_) => {}
        }
    } else if config.has_passwords() {
        make_private(file);
    }
    Loaded { config, notes }
}

/// Takes a file with passwords from the eyes of others.
fn make_private(file: &Path) {
    let open = fs::metadata(file).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
    if open {
        // Somebody else's file stays as it is.
        let _ = fs::set_permissions(file, fs::Permissions::from_mode(0o600));
    }
}

/// Scalars as they stand in the file: a mask without letters looks like a number.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Texts {
    password: Option<String>,
    hub: Option<Entry>,
    registries: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
}

impl Entry {
    fn put_into(self, value: &mut Value) {
        let Value::Mapping(map) = value else { return };
        for (key, text) in [("username", self.username), ("password", self.password)] {
            text.and_then(|text| map.insert(key.into(), text.into()));
        }
    }
}

/// Parses a file.
///
/// # Errors
/// Why it is not valid.
pub fn parse(text: &str) -> Result<Config, String> {
    let mut map = match serde_norway::from_str(text).map_err(|e| e.to_string())? {
        Value::Mapping(map) => map,
        Value::Null => Mapping::new(),
        _ => return Err("it is not a mapping of keys to values".into()),
    };
    // A file with other types has no credentials that could be used.
    let texts: Texts = serde_norway::from_str(text).unwrap_or_default();
    if let Some(password) = texts.password {
        map.insert("password".into(), password.into());
    }
    if let (Some(entry), Some(value)) = (texts.hub, map.get_mut(HUB)) {
        entry.put_into(value);
    }
    if let Some(Value::Mapping(registries)) = map.get_mut("registries") {
        for (label, entry) in texts.registries {
            registries.get_mut(label.as_str()).into_iter().for_each(|value| entry_into(&entry, value));
        }
    }
    Ok(Config(map))
}

fn entry_into(entry: &Entry, value: &mut Value) {
    Entry { username: entry.username.clone(), password: entry.password.clone() }.put_into(value);
}

impl Config {
    /// The server, as its user wrote it.
    pub fn server(&self) -> Option<&str> {
        self.walt("server")
    }

    /// The name under which the user of an existing WalT is known there.
    pub fn username(&self) -> Option<&str> {
        self.walt("username")
    }

    fn walt(&self, key: &str) -> Option<&str> {
        self.0.get("walt")?.get(key)?.as_str().filter(|text| !text.trim().is_empty())
    }

    /// The credentials for a registry.
    pub fn credentials(&self, label: &str) -> Option<RegistryCredentials> {
        let entry = self.0.get("registries")?.get(label)?;
        let username = entry.get("username")?.as_str()?.to_owned();
        let password = unmask(entry.get("password")?.as_str()?)?;
        Some(RegistryCredentials { username, password })
    }

    fn has_passwords(&self) -> bool {
        let Some(Value::Mapping(registries)) = self.0.get("registries") else { return false };
        registries.values().any(|entry| entry.get("password").is_some())
    }

    /// Sets the server.
    pub fn set_server(&mut self, server: &str) {
        self.group("walt").insert("server".into(), server.into());
    }

    /// Sets the credentials for a registry.
    pub fn set(&mut self, label: &str, credentials: &RegistryCredentials) {
        let mut values = Mapping::new();
        values.insert("username".into(), credentials.username.clone().into());
        values.insert("password".into(), mask(&credentials.password).into());
        self.group("registries").insert(label.into(), Value::Mapping(values));
    }

    /// A group at the top, which becomes a mapping if it is not.
    fn group(&mut self, key: &str) -> &mut Mapping {
        let entry = self.0.entry(key.into()).or_insert(Value::Null);
        if !entry.is_mapping() {
            *entry = Value::Mapping(Mapping::new());
        }
        match entry {
            Value::Mapping(map) => map,
            // Invariant: it was just made one.
            _ => unreachable!("a mapping"),
        }
    }

    /// Puts what older versions had at the top into its place, where nothing is yet; whether there was anything.
    fn convert(&mut self) -> bool {
        let [server, username, password] = ["server", "username", "password"].map(|key| self.0.remove(key));
        let hub = self.0.remove(HUB);
        if [&server, &username, &password, &hub].iter().all(|old| old.is_none()) {
            return false;
        }
        let put = |map: &mut Mapping, key: &str, value: Option<Value>| {
            if let Some(value) = value.filter(|v| !v.is_null() && map.get(key).is_none_or(Value::is_null)) {
                map.insert(key.into(), value);
            }
        };
        let walt = self.group("walt");
        put(walt, "server", server);
        put(walt, "username", username.clone());
        let of_hub = |key: &str| hub.as_ref().and_then(|hub| hub.get(key)).cloned();
        let (name, secret) = (of_hub("username").or(username), of_hub("password").or(password));
        if secret.is_some() {
            let registries = self.group("registries");
            let entry = registries.entry(HUB.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
            if let Value::Mapping(map) = entry {
                put(map, "username", name);
                put(map, "password", secret);
            }
        }
        true
    }

    /// The file's text.
    pub fn text(&self) -> String {
        // Invariant: values parsed from YAML, and strings, can be written as YAML.
        format!("{HEADER}{}", serde_norway::to_string(&self.0).expect("a configuration is YAML"))
    }
}

/// Changes the user's file; returns its path.
///
/// # Errors
/// The file cannot be written, or its contents are not valid; it is left unchanged.
fn change(with: impl FnOnce(&mut Config)) -> io::Result<PathBuf> {
    let path = files::writable(path())?;
    let mut config = match files::read(&path)? {
        Some(text) => parse(&text).map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?,
        None => Config::default(),
    };
    config.convert();
    with(&mut config);
    files::replace(&path, &config.text())?;
    Ok(path)
}

/// Saves the server; returns the path of the file.
///
/// # Errors
/// The file cannot be written, or its contents are not valid; it is left unchanged.
pub fn keep_server(server: &str) -> io::Result<PathBuf> {
    change(|config| config.set_server(server))
}

/// Saves credentials for a registry; returns the path of the file.
///
/// # Errors
/// The file cannot be written, or its contents are not valid; it is left unchanged.
pub fn keep_credentials(label: &str, credentials: &RegistryCredentials) -> io::Result<PathBuf> {
    change(|config| config.set(label, credentials))
}

/// Whether this has not been explained to the user before: true once for each text, and each time if that cannot be recorded.
pub fn explain_once(text: &str) -> bool {
    let Some(path) = files::in_home(".walt/explained") else { return true };
    let before = files::read(&path).ok().flatten().unwrap_or_default();
    if before.lines().any(|line| line == text) {
        return false;
    }
    let _each_time = files::replace(&path, &format!("{before}{text}\n"));
    true
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
        assert_eq!((config.credentials("lab"), config.server()), (None, Some("localhost")));
        let new = RegistryCredentials {
            username: "bob".into(),
            password: "pässwörd that is longer than the mask is".into(),
        };
        config.set("lab", &new);
        config.set_server("ssh://lab");
        let text = config.text();
        assert!(!text.contains("longer") && text.contains("server: ssh://lab"), "{text}");
        let again = parse(&text).unwrap();
        assert_eq!(again.credentials("lab"), Some(new));
        assert_eq!(again.credentials("hub").unwrap().username, "ann");
        for bad in ["[]", "x", "a: b: c", "registries: {hub: {username: a, password: xyz}}"] {
            assert!(parse(bad).ok().and_then(|c| c.credentials("hub")).is_none(), "{bad}");
        }
        assert!(parse("").unwrap().credentials("hub").is_none());
    }

    /// The masks of these passwords look like numbers.
    #[test]
    fn masks_that_are_numbers() {
        for password in ["|Q", "se", "b", "RAND0M"] {
            let text = format!("registries: {{hub: {{username: '7', password: {}}}}}", mask(password));
            let config = parse(&text).unwrap();
            assert_eq!(config.credentials("hub").map(|c| c.password).as_deref(), Some(password), "{text}");
            let again = parse(&config.text()).unwrap();
            assert_eq!(again.credentials("hub").unwrap().password, password, "{}", config.text());
        }
        assert_eq!(mask("|Q"), "2e10");
    }

    #[test]
    fn old_keys_get_their_place() {
        let text = "server: lab\nusername: ann\npassword: '2124'\n# -- walt auto-generated data --\n# fast-load: 00\n";
        let mut config = parse(text).unwrap();
        assert!(config.convert() && !config.convert());
        assert_eq!((config.server(), config.username()), (Some("lab"), Some("ann")));
        let hub = config.credentials("hub").unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("ann", "se"));
        assert!(
            !config.text().contains("fast-load") && !config.text().contains("\npassword"),
            "{}",
            config.text()
        );
        // The group of another version; what is in the new place counts.
        let text = "hub: {username: old, password: 2124}\nwalt: {server: new}\nserver: old\nx: 1\n";
        let mut config = parse(text).unwrap();
        assert!(config.convert());
        assert_eq!((config.server(), config.username()), (Some("new"), None));
        assert_eq!(config.credentials("hub").unwrap().username, "old");
        assert!(config.text().contains("x: 1"));
        // A name alone is not a password for the hub.
        let mut config = parse("username: ann").unwrap();
        assert!(
            config.convert() && config.credentials("hub").is_none() && !config.text().contains("registries")
        );
    }

    #[test]
    fn files_of_older_versions() {
        let home = tempfile::tempdir().unwrap();
        let (path, legacy) = (home.path().join(".walt/config"), home.path().join(".waltrc"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(load_from(&path, &legacy).notes.is_empty() && !path.exists());
        fs::write(&legacy, "server: lab\nusername: ann\npassword: '2124'\n").unwrap();
        let loaded = load_from(&path, &legacy);
        assert_eq!((loaded.config.server(), loaded.notes.len()), (Some("lab"), 1), "{:?}", loaded.notes);
        assert!(!legacy.exists() && mode(&path) == 0o600);
        assert!(load_from(&path, &legacy).notes.is_empty());
        // The new file counts.
        fs::write(&legacy, "server: other\n").unwrap();
        assert_eq!(load_from(&path, &legacy).config.server(), Some("lab"));
        // Others cannot read passwords; what has none stays as it is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_from(&path, &legacy).config.credentials("hub").is_some() && mode(&path) == 0o600);
        fs::write(&path, "walt: {server: lab}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_from(&path, &legacy).notes.is_empty() && mode(&path) == 0o644);
        // Not valid: a warning, and the file stays.
        fs::write(&path, "a: b: c").unwrap();
        let loaded = load_from(&path, &legacy);
        assert!(
            loaded.config.server().is_none() && loaded.notes[0].starts_with("Warning: ignoring "),
            "{loaded:?}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "a: b: c");
        // A link stays one.
        let real = home.path().join("dotfile");
        fs::write(&real, "server: lab\n").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        assert_eq!(load_from(&path, &legacy).config.server(), Some("lab"));
        assert!(path.is_symlink() && fs::read_to_string(&real).unwrap().contains("walt:"));
    }
}
