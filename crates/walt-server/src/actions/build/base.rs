//! What `FROM` means: an image of this server, one that an earlier build has got, or one of a registry.
//!
//! ```text
//! the caller's, or another user's ─▶ what this user's builds have got, unless --pull ─▶ the registries, in their order
//! ```
//! What came from a registry is nobody's image. It is kept as long as the results of steps ([`crate::services::images::build_cache`]), for this
//! user's builds; the layers are in the store once, whoever has got them.

use crate::actions::build::{Say, executor::Server};
use crate::{
    actions::app::App,
    actions::build::from_registries::{self, Name},
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

/// How long a client may take to say what it finds for a registry: helpers of other programs may be asked for it.
const FIND_LIMIT: Duration = Duration::from_secs(60);
/// How long its user may take to type.
const TYPE_LIMIT: Duration = Duration::from_secs(600);

/// An answer of the client: the registry's label, and what its user has for it.
pub(super) type Answer = (String, Option<RegistryCredentials>);

/// Asks the client for what its user has for registries; kept until the end of the build.
pub struct Asker<'a> {
    say: &'a Say,
    to: &'a ToClient,
    /// Whether the client answers.
    answers: bool,
    answered: tokio::sync::Mutex<mpsc::Receiver<Answer>>,
    known: Mutex<BTreeMap<String, Option<RegistryCredentials>>>,
    /// Registries that cannot be reached, and why: each costs its time once.
    away: Mutex<BTreeMap<String, String>>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(say: &'a Say, answers: bool, answered: mpsc::Receiver<Answer>) -> Self {
        Self {
            say,
            to: &say.0,
            answers,
            answered: answered.into(),
            known: Mutex::default(),
            away: Mutex::default(),
        }
    }

    /// What the user has for a registry; `needed`: it does not take what he had.
    pub async fn credentials(&self, registry: &RegistryConfig, needed: bool) -> Option<RegistryCredentials> {
        if registry.auth == Auth::None || !self.answers {
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
    pub fn is_away(&self, label: &str) -> Option<String> {
        self.away.lock().get(label).cloned()
    }

    /// Takes note that it cannot, and says so the first time.
    pub async fn away(&self, label: &str, why: &str) {
        let known = self.away.lock().insert(label.into(), why.into());
        if known.is_none() {
            self.ignoring(label, why).await;
        }
    }

    /// Says that a registry is left out.
    pub async fn ignoring(&self, label: &str, why: &str) {
        self.say.note(format!("Ignoring {label} registry: {why}.")).await;
    }

    /// Says what is waited for.
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

impl Server<'_> {
    /// The image that `FROM` means, pinned until the end of the build.
    pub(super) async fn find_base(&self, text: &str, platforms: &[Platform]) -> Result<ImageId, String> {
        {
            let _writing = self.app.images().writing().await;
            if let Some(image) = local(self.app, self.user, text, platforms).map_err(error_text)? {
                self.place.pinned().image(image);
                return Ok(image);
            }
        }
        let name = Name::parse(text)?;
        let wanted = joined(platforms);
        // What a digest names cannot have changed.
        if !self.pull || name.digest.is_some() {
            let _writing = self.app.images().writing().await;
            let known =
                self.app.db().with(|c| BaseRow::take(c, self.user, text, &wanted)).map_err(error_text)?;
            let config = known.and_then(|k| Some((self.app.store().config(&k.image_id).ok()?, k)));
            if let Some((config, known)) = config {
                self.place.pinned().image(known.image_id);
                let platform = shown(Platform::of(&config));
                let text = format!("{text} is {}{platform}, as an earlier build got it", known.place);
                self.say.line(text).await;
                return Ok(known.image_id);
            }
        }
        let base = from_registries::look(self.app.registries(), &name, text, platforms, self.asker).await?;
        let platform = shown(base.found.platform());
        self.say.line(format!("{text} is {}{platform}", base.place)).await;
        let (events, forwarding) = Events::to_terminal(self.asker.to.clone());
        let got = base.found.get(self.app.images(), &events).await;
        drop(events);
        // It ends with the events.
        let _ = forwarding.await;
        let got = got.map_err(error_text)?;
        self.place.pinned().image(got.image);
        let size = size(self.app, &got.image).map_err(error_text)?;
        let row = BaseRow {
            user: self.user.clone(),
            name: text.to_owned(),
            platforms: wanted,
            image_id: got.image,
            place: base.place,
            size,
        };
        self.app.db().with(|c| row.put(c)).map_err(error_text)?;
        Ok(got.image)
    }
}

/// Platforms as one text: the key under which is known what a name means for them.
pub(super) fn joined(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What an image is for, in a line about it.
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

/// The image of this server that is meant: the caller's, or with a slash another user's. With a digest, it must be one
/// that the name means or has meant, as this server's registry gives it.
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
        // Described by its configuration: an index need not say what its images are for.
        let (media_type, os) = (manifest::OCI_CONFIG.to_owned(), String::new());
        let manifest = Descriptor { media_type, digest: image.0, size: 0 };
        entries.push(IndexEntry { manifest, architecture: theirs.architecture, variant: theirs.variant, os });
    }
    let best =
        Wanted::Platforms(platforms).order(&entries).first().map(|entry| ImageId(entry.manifest.digest));
    Ok(best)
}
