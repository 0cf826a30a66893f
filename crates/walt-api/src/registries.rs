//! Registries: who they are, who asks, and what a search finds.

use serde::{Deserialize, Serialize};

/// A user of a registry: used for one request, never stored or logged by the server. Its `Debug` hides the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryCredentials {
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Answer of [`route::REGISTRIES`](super::route::REGISTRIES).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryList {
    /// As the server's configuration has them.
    pub registries: Vec<RegistryInfo>,
}

/// A registry that the server knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryInfo {
    /// Its name in links.
    pub label: String,
    /// For people.
    pub description: String,
    /// Host, with its port if it is not the usual one: the name under which docker and podman keep credentials.
    pub host: String,
    /// Whether it is the docker hub.
    pub hub: bool,
    /// Whether nobody has to say who he is.
    pub anonymous: bool,
    /// Whether that holds for reading.
    pub anonymous_reads: bool,
}

/// An image that a search found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FoundImage {
    /// Its owner there.
    pub user: String,
    /// Name, with its tag if that is not `latest`.
    pub name: String,
    /// Where it is, for people.
    pub location: String,
    /// Models it is made for.
    pub compatibility: Vec<String>,
    /// For `walt image clone`.
    pub clonable_link: String,
    /// The version of a server that it needs, if this one is too old for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_server_version: Option<u32>,
}

/// Answer of [`route::REGISTRY_TOKEN`](super::route::REGISTRY_TOKEN): who reads the server's own registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryToken {
    /// The caller, and the token as his password.
    pub credentials: RegistryCredentials,
    /// How long it counts.
    pub seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_shows_who_but_not_the_password() {
        let credentials = RegistryCredentials { username: "ann".into(), password: "s3cret".into() };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("ann") && !shown.contains("s3cret"), "{shown}");
    }
}
