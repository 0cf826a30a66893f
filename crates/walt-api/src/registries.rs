//! Registries, credentials for them, and the results of searches.

use serde::{Deserialize, Serialize};

/// Credentials for a registry. The server uses them for one request, and never stores or logs them. `Debug` hides the
/// password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegistryCredentials {
    /// User name.
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegistryList {
    /// In the order of the server's configuration.
    pub registries: Vec<RegistryInfo>,
}

/// A registry of the server's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegistryInfo {
    /// Its name in links.
    pub label: String,
    /// Description for people.
    pub description: String,
    /// Host, with its port unless it is the default one: the key under which docker and podman keep credentials.
    pub host: String,
    /// Whether it is the docker hub.
    pub hub: bool,
    /// Whether it needs no credentials at all.
    pub anonymous: bool,
    /// Whether it needs no credentials for reading.
    pub anonymous_reads: bool,
}

/// An image that a search found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FoundImage {
    /// Its owner there.
    pub user: String,
    /// Name, with its tag if that is not `latest`.
    pub name: String,
    /// Where it is, for people.
    pub location: String,
    /// Models that it supports.
    pub compatibility: Vec<String>,
    /// Link for `walt image clone`.
    pub clonable_link: String,
    /// The server version that it needs, if this server is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_server_version: Option<u32>,
}

/// Answer of [`route::REGISTRY_TOKEN`](super::route::REGISTRY_TOKEN): access to the server's own registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegistryToken {
    /// The caller's name, and the token as the password.
    pub credentials: RegistryCredentials,
    /// How long the token is valid.
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
