//! Credentials for registries, where users keep them.
//!
//! ```text
//! 1. ~/.walt/config                                           by the registry's label    config
//! 2. $REGISTRY_AUTH_FILE                                      \
//!    $XDG_RUNTIME_DIR/containers/auth.json  (podman)           > by its host             authfile
//!    $DOCKER_CONFIG/config.json, ~/.docker/config.json        /
//! ```
//! The first usable entry counts; unusable ones are skipped.

pub mod authfile;
pub mod config;
mod files;
pub mod login;

use authfile::{AuthFile, Entry};
use files::{env_path, in_home, read};
use std::{io, path::PathBuf, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};
use walt_api::{RegistryCredentials, RegistryInfo};

/// How long a helper may take: it may ask for the password of a key ring.
const HELPER_LIMIT: Duration = Duration::from_secs(120);

/// Files of docker and podman, in order of preference.
fn auth_files() -> Vec<PathBuf> {
    let docker = env_path("DOCKER_CONFIG").map(|dir| dir.join("config.json"));
    [
        env_path("REGISTRY_AUTH_FILE"),
        env_path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        in_home(".config/containers/auth.json"),
        docker.or_else(|| in_home(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The user's credentials for a registry; calls `note` for each file that cannot be used.
pub async fn find(registry: &RegistryInfo, note: &mut dyn FnMut(String)) -> Option<RegistryCredentials> {
    if let Some(path) = config::path() {
        match read(&path).map(|text| text.as_deref().map(config::parse)) {
            Ok(Some(Ok(config))) => {
                if let Some(found) = config.credentials(&registry.label) {
                    return Some(found);
                }
            }
            Ok(None) => {}
            Ok(Some(Err(why))) => note(format!("ignoring {}: {why}.", path.display())),
            Err(e) => note(format!("ignoring {}: {e}.", path.display())),
        }
    }
    for path in auth_files() {
        let Ok(Some(text)) = read(&path) else { continue };
        let Some(file) = AuthFile::parse(text.as_bytes()) else {
            note(format!("ignoring {}: it is not a valid file with credentials.", path.display()));
            continue;
        };
        match file.entry(&registry.host, registry.hub) {
            Some(Entry::Given(credentials)) => return Some(credentials),
            Some(Entry::Helper { program, key }) => match ask_helper(&program, &key).await {
                Ok(Some(credentials)) => return Some(credentials),
                Ok(None) => {}
                Err(e) => note(format!(
                    "cannot get credentials from {program}, which {} names: {e}.",
                    path.display()
                )),
            },
            None => {}
        }
    }
    None
}

/// Asks a credential helper (docker-credential-helpers, "get").
async fn ask_helper(program: &str, key: &str) -> io::Result<Option<RegistryCredentials>> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read has exited; its status is checked below.
        let _ = input.write_all(key.as_bytes()).await;
    }
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", HELPER_LIMIT.as_secs()));
    let output = timeout(HELPER_LIMIT, child.wait_with_output()).await.map_err(|_| late())??;
    // A helper that has no entry for a registry exits with an error.
    Ok(if output.status.success() { authfile::parse_helper(&output.stdout) } else { None })
}
