//! `walt advanced update-default-images`: newer images from registries, and newer recipes of this program.
//!
//! ```text
//! each default image ─▶ the newest one of all registries, if it is newer ─▶ land ─▶ nodes that use it reboot
//!                    └▶ else its recipe, if an older one has made it here ─▶ run it, store, land: all its names
//!                                                                                 └▶ nodes that use one reboot
//! ```
//! One image that cannot be updated costs its own line. A client that does not wait for the rest leaves no node with
//! what its image is no more: between landing and reboot nothing is waited for, and the reboot is a task of its own.

use crate::{
    actions::app::App,
    actions::{
        publish_ref::{Target, publish_refs},
        reboot::reboot_users,
    },
    base::{
        db::{By, NodeRow, RefRow},
        events::Events,
        failure::{Outcome, refused, unusable},
    },
    services::images::{
        default_image::{self, Standing, Stored, UPDATE_COMMAND},
        recipe,
    },
};
use crate::{
    actions::publish::repository_of,
    base::registry_config::{Kind, RegistryConfig},
    services::registries::{get, ignored, in_time, links::Link, open_one_of_all},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use walt_api::RegistryCredentials;
use walt_registry::Error;
use walt_types::{DEFAULT_TAG, ImageRef, PLATFORM_USER, UserName};

/// Updates all default images; false if not all was done.
pub async fn update_default_images(
    app: &Arc<App>,
    caller: &UserName,
    credentials: BTreeMap<String, RegistryCredentials>,
    events: &Events,
) -> Outcome<bool> {
    let Ok(_alone) = app.images().default_images_update().try_lock() else {
        return Err(refused("the default images are being updated just now: try again later."));
    };
    events.out("Checking remote registries...").await;
    let defaults: Vec<RefRow> = app
        .db()
        .with(RefRow::all)?
        .into_iter()
        .filter(|r| r.reference.is_platform() && r.reference.image().tag() == DEFAULT_TAG)
        .collect();
    let mut update = Update { app, caller, events, got: BTreeSet::new(), away: BTreeSet::new(), ok: true };
    for row in &defaults {
        if row.reference.image().name().ends_with("-default") {
            update.by_registries(row, &credentials).await?;
        }
    }
    for row in defaults.iter().filter(|r| default_image::names().contains(&r.reference.image().to_string())) {
        update.by_recipe(row).await?;
    }
    let Update { got, ok, .. } = update;
    if got.is_empty() && ok {
        events.out("No updates available.").await;
    }
    Ok(ok)
}

/// What was done so far.
struct Update<'a> {
    app: &'a Arc<App>,
    caller: &'a UserName,
    events: &'a Events,
    /// Names that mean another image now.
    got: BTreeSet<ImageRef>,
    /// Labels of registries that are ignored from here on, and told of.
    away: BTreeSet<String>,
    /// Whether all was done that was begun.
    ok: bool,
}

impl Update<'_> {
    /// Takes what came of one image: the nodes that use it reboot.
    async fn ended(&mut self, names: Vec<ImageRef>, landed: Outcome<Vec<NodeRow>>) -> Outcome<()> {
        match landed {
            Ok(nodes) => {
                self.got.extend(names);
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

    async fn by_registries(
        &mut self,
        row: &RefRow,
        credentials: &BTreeMap<String, RegistryCredentials>,
    ) -> Outcome<()> {
        self.events.busy("Checking remote registries").await;
        let mut newest = None;
        for registry in &self.app.config().registries {
            let label = &registry.label;
            if self.away.contains(label) {
                continue;
            }
            let (found, link) = match newer(self.app, row, registry, credentials.get(label)).await? {
                Newer::Image(found, link) => (*found, link),
                Newer::Nothing => continue,
                Newer::Failed(e) => {
                    self.events.note(ignored(label, &e)).await;
                    self.away.insert(label.clone());
                    continue;
                }
            };
            let later = |(other, _): &(get::Found, Link)| other.created() < found.created();
            if newest.as_ref().is_none_or(later) {
                newest = Some((found, link));
            }
        }
        let Some((found, link)) = newest else { return Ok(()) };
        let full = row.reference.full();
        self.events.out(format!("Updating {full} using a newer version from {}...", link.location)).await;
        let landed = self.get(row, &found).await;
        self.ended(vec![row.reference.clone()], landed).await
    }

    async fn get(&self, row: &RefRow, found: &get::Found) -> Outcome<Vec<NodeRow>> {
        let target = Target::of(self.app, row.reference.clone())?;
        let by = By::new(self.caller, "walt advanced update-default-images");
        let got = found.get(self.app.images(), self.events).await?;
        target.publish_ref(self.app, got.image, got.created, &by).await
    }

    async fn by_recipe(&mut self, row: &RefRow) -> Outcome<()> {
        if self.got.contains(&row.reference) {
            return Ok(());
        }
        let name = row.reference.image().name();
        match default_image::standing(self.app.images(), row)? {
            Standing::Current => {}
            Standing::Foreign => {
                let note = format!(
                    "Note: {name} came from a registry, and this server's recipe of it is another one: \
                     'walt-server default-image build {name}', as root on the server, would run that."
                );
                self.events.note(note).await;
            }
            Standing::Older => {
                let full = row.reference.full();
                self.events.out(format!("Updating {full} using a newer recipe...")).await;
                let names = vec![row.reference.clone()];
                match self.build(name).await {
                    Ok((names, users)) => self.ended(names, Ok(users)).await?,
                    Err(e) => self.ended(names, Err(e)).await?,
                }
            }
        }
        Ok(())
    }

    /// Runs a recipe, and lets its names mean the result; those and the nodes that use them.
    async fn build(&self, name: &str) -> Outcome<(Vec<ImageRef>, Vec<NodeRow>)> {
        let app = self.app;
        // What a registry had newer stays.
        let names = default_image::references(name, &default_image::recipe_config(name)?)?;
        let targets = names.into_iter().filter(|n| !self.got.contains(n)).map(|n| Target::of(app, n));
        let targets = targets.collect::<Outcome<Vec<_>>>()?;
        self.events.busy(format!("Building {name}")).await;
        let made = recipe::run_apart(app.images(), name, self.events).await?;
        self.events.busy(format!("Importing {name}")).await;
        let _housekeeping = app.images().housekeeping_on_drop();
        let _writing = app.images().writing().await;
        let stored = crate::base::db::blocking(|| default_image::store(app.images(), name, &made.results()));
        let (Stored { image, created }, _) = stored.map_err(unusable)?;
        let by = By::new(self.caller, UPDATE_COMMAND);
        let users = publish_refs(app, &targets, image, created, &by).await?;
        Ok((targets.into_iter().map(|t| t.reference).collect(), users))
    }
}

/// What a registry has of a default image.
enum Newer {
    Image(Box<get::Found>, Link),
    Nothing,
    /// It cannot be asked.
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
    let look =
        async { get::look_with(open_one_of_all(registry, credentials)?, registry, &link, &models).await };
    let found = match in_time(label, look).await {
        Ok(Ok(found)) => found,
        // It has none that could be used.
        Ok(Err(_)) | Err(Error::NotFound { .. }) => return Ok(Newer::Nothing),
        // The hub wants to know who asks for what it does not have.
        Err(Error::Credentials { .. }) if registry.api == Kind::DockerHub => return Ok(Newer::Nothing),
        Err(e) => return Ok(Newer::Failed(e)),
    };
    // Nodes of all its models go on to boot it.
    let usable = models.iter().all(|m| found.models.contains(m));
    let newer = found.created().is_some_and(|t| t > row.created) && found.image() != row.image_id;
    Ok(if usable && newer { Newer::Image(Box::new(found), link) } else { Newer::Nothing })
}
