//! Images from and to other places: registries, and a docker or podman daemon of this machine.
//!
//! ```text
//! config   which registries there are                 links   <location>:<user>/<name>[:<tag>]
//! search   all places at once, each with its own bound
//! get      one image into the store: checked first, then its layers beside each other
//! clone    get, then it becomes an image of the caller          update  get, then it becomes a default image
//! base     what a build starts from: as clone, and nobody's image
//! publish  an image of the caller to a registry                 hub     what publishers say about their images
//! hub_meta the same, written anew from what is there
//! docker   the daemon's images, by its API
//! serve    our own images, read as from a registry; receive: pushed to us as to one; token: who does that
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

use crate::base::events::Events;
use crate::base::registry_config;
use crate::base::registry_config::{Kind, RegistryConfig};
use crate::base::{config::Config, state::Base};
use crate::services::registries::error::{Error, Result};
use crate::services::registries::uploads::Uploads;
use std::{sync::Arc, time::Duration};
use walt_api::{RegistryCredentials, RegistryInfo, RegistryList, RegistryToken};
use walt_registry::{Credentials, Limits, Registry};
use walt_types::UserName;

/// The registries of the configuration, and what is being pushed to the server's own.
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

    /// Images that are being pushed to us.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }
}

/// The registries, as clients have to know them.
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

/// How long one place of several may take in all; what was found until then counts.
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one may take to begin an answer: who asks waits for all of them.
const IMPATIENT_ANSWER: Duration = Duration::from_secs(10);

/// What one place of several answers within [`REGISTRY_TIMEOUT`].
pub async fn with_time_limit<T>(
    label: &str,
    work: impl Future<Output = walt_registry::Result<T>>,
) -> walt_registry::Result<T> {
    let late = |_| {
        let why = format!("it takes longer than {} s", REGISTRY_TIMEOUT.as_secs());
        Err(walt_registry::Error::Unreachable { registry: label.to_owned(), why })
    };
    tokio::time::timeout(REGISTRY_TIMEOUT, work).await.unwrap_or_else(late)
}

/// A client of a registry.
pub fn open(registry: &RegistryConfig, credentials: Option<&RegistryCredentials>) -> Result<Arc<Registry>> {
    open_with(registry, credentials, Limits::default())
}

/// A client of a registry, with limits of its own.
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

/// A client of one registry of several: it is not waited for as long, and TLS that cannot be used is as good as a
/// registry that is away.
pub fn open_impatient(
    registry: &RegistryConfig,
    credentials: Option<&RegistryCredentials>,
) -> walt_registry::Result<Arc<Registry>> {
    let limits = Limits { answer: IMPATIENT_ANSWER, ..Limits::default() };
    open_with(registry, credentials, limits).map_err(|_| walt_registry::Error::Unreachable {
        registry: registry.label.clone(),
        why: "TLS cannot be used".into(),
    })
}

/// The line that one registry of several costs; what the others have goes on to count.
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
    let password = token::mint(registries.base.token_key(), caller, crate::base::time::now() as u64);
    RegistryToken {
        credentials: RegistryCredentials { username: caller.to_string(), password },
        seconds: token::LIFE.as_secs(),
    }
}

/// Tries credentials.
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
