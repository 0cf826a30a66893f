//! Resolves `FROM`: an image of this server, one that an earlier build pulled, or one of a registry.
//!
//! ```text
//! the caller's, or another user's ─▶ what this user's builds have got, unless --pull ─▶ the registries, in their order
//! ```
//! An image from a registry belongs to nobody. It is kept for this user's builds as long as results of steps
//! ([`crate::services::images::build_cache`]). Its layers are in the store once, whoever pulled them.

use crate::{
    actions::{
        app::App,
        build::{
            BuildOutput,
            from_registries::{self, Name},
            host::BuildHost,
        },
    },
    base::{
        db::{BaseRow, IndexRow, RefRow},
        events::Events,
        failure::Failure,
        registry_config::{Auth, RegistryConfig},
        terminal::ToClient,
    },
    services::registries::manifests::{self, manifest_in},
};
use anyhow::Result;
use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::mpsc;
use walt_api::{RegistryCredentials, term::ServerMessage};
use walt_registry::{
    Platform, Wanted,
    manifest::{self, Descriptor, IndexEntry},
};
use walt_types::{Hash256, ImageId, ImageName, ImageRef, UserName};

/// How long a client may take to find stored credentials, which may involve helpers of other programs.
const FIND_LIMIT: Duration = Duration::from_secs(60);
/// How long its user may take to type credentials.
const TYPE_LIMIT: Duration = Duration::from_secs(600);

/// An answer of the client: the label of the registry, and the credentials of its user.
pub(super) type Answer = (String, Option<RegistryCredentials>);

/// Asks the client for its user's credentials for registries, and keeps them until the end of the build.
pub struct CredentialSource<'a> {
    output: &'a BuildOutput,
    to: &'a ToClient,
    /// Whether the client answers such questions.
    client_answers: bool,
    answered: tokio::sync::Mutex<mpsc::Receiver<Answer>>,
    known: Mutex<BTreeMap<String, Option<RegistryCredentials>>>,
    /// Registries that cannot be reached, and why; each is tried once.
    unreachable: Mutex<BTreeMap<String, String>>,
}

impl<'a> CredentialSource<'a> {
    pub(super) fn new(
        output: &'a BuildOutput,
        client_answers: bool,
        answered: mpsc::Receiver<Answer>,
    ) -> Self {
        Self {
            output,
            to: &output.0,
            client_answers,
            answered: answered.into(),
            known: Mutex::default(),
            unreachable: Mutex::default(),
        }
    }

    /// The user's credentials for a registry. With `needed`, the registry refuses access without them, or with the
    /// known ones.
    pub async fn get(&self, registry: &RegistryConfig, needed: bool) -> Option<RegistryCredentials> {
        if registry.auth == Auth::None || !self.client_answers {
            return None;
        }
        let known = || self.known.lock();
        if let (Some(known), false) = (known().get(&registry.label).cloned(), needed) {
            return known;
        }
        let mut answered = self.answered.lock().await;
        let question = ServerMessage::Credentials { registry: registry.label.clone(), needed };
        if !self.to.message(&question).await {
            return None;
        }
        let limit = if needed { TYPE_LIMIT } else { FIND_LIMIT };
        let answer = async {
            loop {
                let (label, credentials) = answered.recv().await?;
                // A late answer belongs to an earlier question.
                if label == registry.label {
                    return credentials;
                }
            }
        };
        let found = tokio::time::timeout(limit, answer).await.ok().flatten();
        known().insert(registry.label.clone(), found.clone());
        found
    }

    /// Why a registry cannot be reached.
    pub fn why_unreachable(&self, label: &str) -> Option<String> {
        self.unreachable.lock().get(label).cloned()
    }

    /// Records that a registry cannot be reached, and tells the user the first time.
    pub async fn report_unreachable(&self, label: &str, why: &str) {
        let known = self.unreachable.lock().insert(label.into(), why.into());
        if known.is_none() {
            self.report_ignored(label, why).await;
        }
    }

    /// Tells the user that a registry is ignored.
    pub async fn report_ignored(&self, label: &str, why: &str) {
        self.output.note(format!("Ignoring {label} registry: {why}.")).await;
    }

    /// Shows what the build waits for.
    pub async fn busy(&self, label: String) {
        self.to.message(&ServerMessage::Busy { label }).await;
    }
}

/// A failure as the text of a build's error. Its causes are logged here, since the builder's errors are texts.
pub(super) fn error_text(failure: impl Into<Failure>) -> String {
    let failure = failure.into();
    if let Failure::Internal(error) = &failure {
        tracing::error!("a build: {error:#}");
    }
    failure.to_string()
}

impl BuildHost<'_> {
    /// The image of `FROM`, pinned until the end of the build.
    pub(super) async fn find_base(&self, text: &str, platforms: &[Platform]) -> Result<ImageId, String> {
        {
            let _writing = self.app.images().writing().await;
            if let Some(image) = local(self.app, self.user, text, platforms).map_err(error_text)? {
                self.dir.pinned().image(image);
                return Ok(image);
            }
        }
        let name = Name::parse(text)?;
        let wanted = platforms_key(platforms);
        // An image named by digest cannot have changed.
        if !self.pull || name.digest.is_some() {
            let _writing = self.app.images().writing().await;
            let known =
                self.app.db().with(|c| BaseRow::take(c, self.user, text, &wanted)).map_err(error_text)?;
            let config = known.and_then(|k| Some((self.app.store().config(&k.image_id).ok()?, k)));
            if let Some((config, known)) = config {
                self.dir.pinned().image(known.image_id);
                let platform = shown(Platform::of(&config));
                let text = format!("{text} is {}{platform}, as pulled by an earlier build", known.place);
                self.output.line(text).await;
                return Ok(known.image_id);
            }
        }
        let base =
            from_registries::find(self.app.registries(), &name, text, platforms, self.credentials).await?;
        let platform = shown(base.image.platform());
        self.output.line(format!("{text} is {}{platform}", base.place)).await;
        let (events, forwarding) = Events::to_terminal(self.credentials.to.clone());
        let pulled = base.image.pull(self.app.images(), &events).await;
        drop(events);
        // The forwarder ends with the events.
        let _ = forwarding.await;
        let pulled = pulled.map_err(error_text)?;
        self.dir.pinned().image(pulled.image);
        let size = size(self.app, &pulled.image).map_err(error_text)?;
        let row = BaseRow {
            user: self.user.clone(),
            name: text.to_owned(),
            platforms: wanted,
            image_id: pulled.image,
            place: base.place,
            size,
        };
        self.app.db().with(|c| row.put(c)).map_err(error_text)?;
        Ok(pulled.image)
    }
}

/// Platforms as one text, for keys.
pub(super) fn platforms_key(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The platform of an image, as part of a line.
fn shown(platform: Option<Platform>) -> String {
    platform.map(|p| format!(", for {p}")).unwrap_or_default()
}

/// Bytes of an image's layers, as tars.
fn size(app: &App, image: &ImageId) -> Result<u64> {
    let mut size = 0u64;
    for layer in app.store().config(image)?.layers()? {
        size = size.saturating_add(app.store().layer_info(&layer)?.size);
    }
    Ok(size)
}

/// The image of this server: of the caller, or with a slash of another user. With a digest, the name must point or
/// have pointed to it, as in this server's registry.
fn local(app: &App, user: &UserName, text: &str, platforms: &[Platform]) -> Result<Option<ImageId>> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let reference = match name.contains('/') {
        false => name.parse().ok().map(|name: ImageName| ImageRef::of(user, name)),
        true => name.parse::<ImageRef>().ok(),
    };
    let Some(reference) = reference else { return Ok(None) };
    let Some(digest) = digest else {
        return Ok(app.db().with(|c| RefRow::get(c, &reference))?.map(|row| row.image_id));
    };
    let Some(Ok(digest)) = digest.strip_prefix("sha256:").map(str::parse::<Hash256>) else { return Ok(None) };
    let names = manifests::repository(app.images(), reference.user(), reference.image().name())?;
    let indexes = manifests::indexes(app.images(), &names)?;
    if !indexes.contains(&digest) {
        return Ok(manifest_in(app.images(), &names, &indexes, &digest)?.and_then(|found| found.image));
    }
    let mut entries = Vec::new();
    for image in app.db().with(|c| IndexRow::images_in(c, &digest))? {
        let Some(theirs) = Platform::of(&app.store().config(&image)?) else { continue };
        // The platform is taken from the configuration, since entries of an index may lack it.
        let (media_type, os) = (manifest::OCI_CONFIG.to_owned(), String::new());
        let manifest = Descriptor { media_type, digest: image.0, size: 0 };
        entries.push(IndexEntry { manifest, architecture: theirs.architecture, variant: theirs.variant, os });
    }
    let best =
        Wanted::Platforms(platforms).order(&entries).first().map(|entry| ImageId(entry.manifest.digest));
    Ok(best)
}
