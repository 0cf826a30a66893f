//! Registries, and the docker or podman daemon of this machine.
//!
//! ```text
//! here       which registries there are, and clients of them
//! links      <location>:<user>/<name>[:<tag>]
//! pull       an image into the store: inspected first, then its layers in parallel
//! hub        metadata of publishers on the docker hub
//! docker     images of the daemon, by its API
//! manifests  documents of this server's own registry     uploads  incomplete pushes to it     token  its users
//! ```
//! Credentials come with a request, are used for it, and are neither kept nor logged.

pub mod docker;
pub mod error;
pub mod hub;
pub mod links;
pub mod manifests;
pub mod pull;
pub mod token;
pub mod uploads;

use crate::{
    base::{
        config::Config,
        events::Events,
        registry_config::{self, Kind, RegistryConfig},
        state::Base,
        time,
    },
    services::registries::{
        error::{Error, Result},
        uploads::Uploads,
    },
};
use std::{sync::Arc, time::Duration};
use walt_api::{RegistryCredentials, RegistryInfo, RegistryList, RegistryToken};
use walt_registry::{Credentials, Limits, Registry};
use walt_types::UserName;

/// The registries of the configuration, and pushes under way to the server's own registry.
pub struct Registries {
    base: Arc<Base>,
    uploads: Uploads,
}

impl Registries {
    /// The registries of a server.
    pub fn new(base: Arc<Base>) -> Self {
        Self { base, uploads: Uploads::default() }
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        self.base.config()
    }

    /// Pushes to this server's own registry.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }
}

/// The registries, for clients.
pub fn list(registries: &Registries) -> RegistryList {
    let info = |r: &RegistryConfig| RegistryInfo {
        label: r.label.clone(),
        description: r.description.clone(),
        host: r.endpoint().to_string(),
        hub: r.api == Kind::DockerHub,
        anonymous: r.auth == registry_config::Auth::None,
        anonymous_reads: r.reads_anonymously(),
    };
    RegistryList { registries: registries.config().registries.iter().map(info).collect() }
}

/// The registry with this label.
pub fn find<'a>(registries: &'a Registries, label: &str) -> Result<&'a RegistryConfig> {
    registries.config().registries.iter().find(|r| r.label == label).ok_or_else(|| {
        let known: Vec<&str> = registries.config().registries.iter().map(|r| r.label.as_str()).collect();
        let known = if known.is_empty() {
            "none is configured".into()
        } else {
            format!("known: {}", known.join(", "))
        };
        Error::UnknownRegistry { label: label.to_owned(), known }
    })
}

/// Limit of a request to one registry of several; results until then count.
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one registry of several may take to begin its answer.
const IMPATIENT_ANSWER: Duration = Duration::from_secs(10);

/// Runs a request to one registry of several, within [`REGISTRY_TIMEOUT`].
pub async fn with_time_limit<T>(
    label: &str,
    work: impl Future<Output = walt_registry::Result<T>>,
) -> walt_registry::Result<T> {
    let late = |_| {
        let why = format!("it did not answer within {} s", REGISTRY_TIMEOUT.as_secs());
        Err(walt_registry::Error::Unreachable { registry: label.to_owned(), why })
    };
    tokio::time::timeout(REGISTRY_TIMEOUT, work).await.unwrap_or_else(late)
}

/// A client of a registry.
pub fn open(registry: &RegistryConfig, credentials: Option<&RegistryCredentials>) -> Result<Arc<Registry>> {
    open_with(registry, credentials, Limits::default())
}

/// A client of a registry, with other limits.
pub fn open_with(
    registry: &RegistryConfig,
    credentials: Option<&RegistryCredentials>,
    limits: Limits,
) -> Result<Arc<Registry>> {
    let credentials =
        credentials.map(|c| Credentials { username: c.username.clone(), password: c.password.clone() });
    Registry::new(registry.endpoint(), credentials, limits)
        .map(Arc::new)
        .map_err(|e| Error::of(&registry.label, e))
}

/// A client of one registry of several: with a short timeout, and a TLS failure counts as unreachable.
pub fn open_impatient(
    registry: &RegistryConfig,
    credentials: Option<&RegistryCredentials>,
) -> walt_registry::Result<Arc<Registry>> {
    let limits = Limits { answer: IMPATIENT_ANSWER, ..Limits::default() };
    open_with(registry, credentials, limits).map_err(|_| walt_registry::Error::Unreachable {
        registry: registry.label.clone(),
        why: "cannot set up TLS".into(),
    })
}

/// The note about a registry that failed and is ignored; the others count.
pub fn ignored_note(label: &str, error: &walt_registry::Error) -> String {
    use walt_registry::Error;
    tracing::info!("{label}: {error}");
    let why = match error {
        Error::Credentials { given: false, .. } => {
            "because it needs credentials (see 'walt help show registries')."
        }
        Error::Credentials { given: true, .. } => "because it does not accept your credentials.",
        _ => "because of a communication failure.",
    };
    format!("Ignoring {label} registry {why}")
}

/// A token for the server's own registry.
pub fn token_for(registries: &Registries, caller: &UserName) -> RegistryToken {
    let password = token::mint(registries.base.token_key(), caller, time::now() as u64);
    RegistryToken {
        credentials: RegistryCredentials { username: caller.to_string(), password },
        seconds: token::LIFE.as_secs(),
    }
}

/// Checks credentials for a registry.
pub async fn login(
    registries: &Arc<Registries>,
    label: &str,
    credentials: &RegistryCredentials,
    events: &Events,
) -> Result<bool> {
    let registry = find(registries, label)?;
    events.busy("Authenticating to the registry").await;
    open(registry, Some(credentials))?.ping().await.map_err(|e| Error::of(label, e))?;
    Ok(true)
}
