//! `walt advanced update-default-images`: updates default images from registries and from the recipes of this
//! program.
//!
//! ```text
//! each default image ─▶ the newest image of all registries, if newer ─▶ publish ─▶ reboot the nodes that use it
//!                    └▶ else its recipe, if the image is of an older one ─▶ run, store, publish all its names
//!                                                                                 └▶ reboot the nodes that use one
//! ```
//! An image that cannot be updated costs one note. If the client disconnects, no node stays on an outdated image:
//! there is no await between the publication and the reboot, which is a task of its own.

use crate::{
    actions::{
        app::App,
        publish::repository_of,
        publish_ref::{Target, publish_refs},
        reboot::reboot_users,
    },
    base::{
        db::{By, NodeRow, RefRow, blocking},
        events::Events,
        failure::{Outcome, refused, unusable},
        registry_config::{Kind, RegistryConfig},
    },
    services::{
        images::{
            default_image::{self, RecipeStatus, Stored, UPDATE_COMMAND},
            recipe,
        },
        registries::{ignored_note, links::Link, open_impatient, pull, with_time_limit},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use walt_api::RegistryCredentials;
use walt_registry::Error;
use walt_types::{DEFAULT_TAG, ImageRef, PLATFORM_USER, UserName};

/// Updates all default images; false if an update failed.
pub async fn update_default_images(
    app: &Arc<App>,
    caller: &UserName,
    credentials: BTreeMap<String, RegistryCredentials>,
    events: &Events,
) -> Outcome<bool> {
    let Ok(_updating) = app.images().default_images_update().try_lock() else {
        return Err(refused("another update of the default images is running: try again later."));
    };
    events.out("Checking remote registries...").await;
    let defaults: Vec<RefRow> = app
        .db()
        .with(RefRow::all)?
        .into_iter()
        .filter(|r| r.reference.is_platform() && r.reference.image().tag() == DEFAULT_TAG)
        .collect();
    let mut update =
        Update { app, caller, events, updated: BTreeSet::new(), unreachable: BTreeSet::new(), ok: true };
    for row in &defaults {
        if row.reference.image().name().ends_with("-default") {
            update.try_registries(row, &credentials).await?;
        }
    }
    for row in defaults.iter().filter(|r| default_image::names().contains(&r.reference.image().to_string())) {
        update.try_recipe(row).await?;
    }
    let Update { updated, ok, .. } = update;
    if updated.is_empty() && ok {
        events.out("No updates available.").await;
    }
    Ok(ok)
}

/// An update under way.
struct Update<'a> {
    app: &'a Arc<App>,
    caller: &'a UserName,
    events: &'a Events,
    /// References that point to a new image now.
    updated: BTreeSet<ImageRef>,
    /// Labels of registries that failed, and are ignored from then on.
    unreachable: BTreeSet<String>,
    /// Whether all updates succeeded so far.
    ok: bool,
}

impl Update<'_> {
    /// Records the result for one image, and reboots the nodes that use it.
    async fn finish(&mut self, names: Vec<ImageRef>, published: Outcome<Vec<NodeRow>>) -> Outcome<()> {
        match published {
            Ok(nodes) => {
                self.updated.extend(names);
                self.ok &= reboot_users(self.app, &nodes, self.events).await?;
            }
            Err(e) => {
                self.ok = false;
                let why = e.to_string();
                let name = names.first().map(ImageRef::full).unwrap_or_default();
                self.events.note(format!("{name} was not updated: {}.", why.trim_end_matches('.'))).await;
            }
        }
        Ok(())
    }

    async fn try_registries(
        &mut self,
        row: &RefRow,
        credentials: &BTreeMap<String, RegistryCredentials>,
    ) -> Outcome<()> {
        self.events.busy("Checking remote registries").await;
        let mut newest = None;
        for registry in &self.app.config().registries {
            let label = &registry.label;
            if self.unreachable.contains(label) {
                continue;
            }
            let (found, link) = match newer(self.app, row, registry, credentials.get(label)).await? {
                Newer::Image(found, link) => (*found, link),
                Newer::Nothing => continue,
                Newer::Failed(e) => {
                    self.events.note(ignored_note(label, &e)).await;
                    self.unreachable.insert(label.clone());
                    continue;
                }
            };
            let later = |(other, _): &(pull::RemoteImage, Link)| other.created() < found.created();
            if newest.as_ref().is_none_or(later) {
                newest = Some((found, link));
            }
        }
        let Some((found, link)) = newest else { return Ok(()) };
        let full = row.reference.full();
        self.events.out(format!("Updating {full} using a newer version from {}...", link.location)).await;
        let published = self.get(row, &found).await;
        self.finish(vec![row.reference.clone()], published).await
    }

    async fn get(&self, row: &RefRow, found: &pull::RemoteImage) -> Outcome<Vec<NodeRow>> {
        let target = Target::of(self.app, row.reference.clone())?;
        let by = By::new(self.caller, "walt advanced update-default-images");
        let pulled = found.pull(self.app.images(), self.events).await?;
        target.publish_ref(self.app, pulled.image, pulled.created, &by).await
    }

    async fn try_recipe(&mut self, row: &RefRow) -> Outcome<()> {
        if self.updated.contains(&row.reference) {
            return Ok(());
        }
        let name = row.reference.image().name();
        match default_image::recipe_status(self.app.images(), row)? {
            RecipeStatus::Current => {}
            RecipeStatus::Foreign => {
                let note = format!(
                    "Note: {name} came from a registry, and this server's recipe of it is another one: \
                     'walt-server default-image build {name}', as root on the server, would run that."
                );
                self.events.note(note).await;
            }
            RecipeStatus::Older => {
                let full = row.reference.full();
                self.events.out(format!("Updating {full} using a newer recipe...")).await;
                let names = vec![row.reference.clone()];
                match self.build(name).await {
                    Ok((names, users)) => self.finish(names, Ok(users)).await?,
                    Err(e) => self.finish(names, Err(e)).await?,
                }
            }
        }
        Ok(())
    }

    /// Runs a recipe and publishes the result under all its names; these and the nodes that use them.
    async fn build(&self, name: &str) -> Outcome<(Vec<ImageRef>, Vec<NodeRow>)> {
        let app = self.app;
        // Names that were just updated from a registry are skipped.
        let names = default_image::references(name, &default_image::recipe_config(name)?)?;
        let targets = names.into_iter().filter(|n| !self.updated.contains(n)).map(|n| Target::of(app, n));
        let targets = targets.collect::<Outcome<Vec<_>>>()?;
        self.events.busy(format!("Building {name}")).await;
        let made = recipe::run_isolated(app.images(), name, self.events).await?;
        self.events.busy(format!("Importing {name}")).await;
        let _housekeeping = app.images().housekeeping_on_drop();
        let _writing = app.images().writing().await;
        let stored = blocking(|| default_image::store(app.images(), name, &made.results()));
        let (Stored { image, created }, _) = stored.map_err(unusable)?;
        let by = By::new(self.caller, UPDATE_COMMAND);
        let users = publish_refs(app, &targets, image, created, &by).await?;
        Ok((targets.into_iter().map(|t| t.reference).collect(), users))
    }
}

/// What a registry has for a default image.
enum Newer {
    Image(Box<pull::RemoteImage>, Link),
    Nothing,
    /// It does not answer.
    Failed(Error),
}

/// A newer version of a default image in a registry.
async fn newer(
    app: &App,
    row: &RefRow,
    registry: &RegistryConfig,
    credentials: Option<&RegistryCredentials>,
) -> Outcome<Newer> {
    let label = &registry.label;
    let image = row.reference.image();
    let repository = repository_of(registry, PLATFORM_USER, image)?;
    let Ok(link) = Link::parse(&format!("{label}:{repository}:{}", image.tag())) else {
        return Ok(Newer::Nothing);
    };
    let models = app.images().models_of(&row.image_id)?;
    let inspected =
        async { pull::inspect_with(open_impatient(registry, credentials)?, registry, &link, &models).await };
    let found = match with_time_limit(label, inspected).await {
        Ok(Ok(found)) => found,
        // It has no usable version.
        Ok(Err(_)) | Err(Error::NotFound { .. }) => return Ok(Newer::Nothing),
        // The hub asks for credentials for images that it does not have.
        Err(Error::Credentials { .. }) if registry.api == Kind::DockerHub => return Ok(Newer::Nothing),
        Err(e) => return Ok(Newer::Failed(e)),
    };
    // All models of the current image must be supported.
    let usable = models.iter().all(|m| found.models.contains(m));
    let newer = found.created().is_some_and(|t| t > row.created) && found.image() != row.image_id;
    Ok(if usable && newer { Newer::Image(Box::new(found), link) } else { Newer::Nothing })
}
