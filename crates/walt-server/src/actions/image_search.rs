//! The default image of a model that is not here is looked for in the registries, in the background, when a machine
//! of that model asks for an address. It becomes a node the next time that it asks.
//!
//! Limits: [`walt_core::image_search`]; each registry has the limits of a clone. Nobody is there to give
//! credentials, so only images that everybody may read are found.

use crate::{
    actions::{
        app::App,
        dhcp::{name_of, say},
        publish::repository_of,
        publish_ref::Target,
    },
    base::{
        db::By,
        events::Events,
        failure::Outcome,
        journal::DEVICES,
        registry_config::{Kind, RegistryConfig},
        time::now,
    },
    services::{
        images::default_image,
        registries::{links::Link, open_impatient, pull, with_time_limit},
    },
};
use anyhow::Result;
use std::sync::Arc;
use walt_core::{default_image_of, image_search::Answer};
use walt_registry::Error;
use walt_types::{DEFAULT_TAG, Mac, Model, PLATFORM_USER};

/// The command in the history of an image that was found.
const BY: &str = "walt-server (default image of a new model)";

/// Looks for the default image of the model of a machine, unless that is going on or was done a short time ago.
///
/// # Errors
/// The database fails.
pub fn begin(app: &Arc<App>, mac: Mac, model: &Model) -> Result<()> {
    let answer = app.devices().searches().lock().begin(model, now() as u64);
    match answer {
        Answer::Start => {}
        Answer::Runs | Answer::Rests => return Ok(()),
        Answer::Busy | Answer::Full => {
            tracing::debug!(%model, "its image is not looked for now: {answer:?}");
            return Ok(());
        }
    }
    let device = name_of(app, mac)?.map_or_else(|| mac.to_string(), |name| name.to_string());
    say(app, &format!("Device {device} is a walt node of type '{model}'."));
    say(app, &format!("Trying to download a default image for '{model}'..."));
    let ending = Ending { app: app.clone(), model: model.clone() };
    tokio::spawn(async move {
        match search(&ending.app, &ending.model).await {
            Ok(label) => {
                let model = &ending.model;
                let text = format!(
                    "the default image of '{model}' came from {label}: {device} becomes a node when it asks for an \
                     address again"
                );
                say(&ending.app, &text);
            }
            Err(why) => {
                let text = format!("{device} is not a node yet: {why}");
                tracing::warn!("{text}");
                ending.app.base().journal().say(DEVICES, &text);
            }
        }
    });
    Ok(())
}

/// Ends a search when it is dropped, however that comes.
struct Ending {
    app: Arc<App>,
    model: Model,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.app.devices().searches().lock().ended(&self.model, now() as u64);
    }
}

/// Gets the image from the first registry that has it; its label, or why none has.
async fn search(app: &Arc<App>, model: &Model) -> Result<String, String> {
    let mut reasons = Vec::new();
    for registry in &app.config().registries {
        let label = &registry.label;
        if !registry.reads_anonymously() {
            reasons.push(format!("{label} wants credentials"));
            continue;
        }
        match ask(registry, model).await {
            Ok(Some(image)) => match get(app, model, &image).await {
                Ok(()) => return Ok(label.clone()),
                Err(failure) => reasons.push(format!("{label}: {failure}")),
            },
            Ok(None) => reasons.push(format!("{label} does not have it")),
            Err(why) => reasons.push(format!("{label}: {why}")),
        }
    }
    let image = default_image_of(model);
    let asked = match reasons.is_empty() {
        true => "no registry is configured".to_owned(),
        false => format!("the registries were asked: {}", reasons.join("; ")),
    };
    let remedy = match default_image::recipe_of(image.image()) {
        Some(recipe) => {
            format!("'walt-server default-image build {recipe}', as root on the server, makes it")
        }
        None => format!(
            "An image for the model is needed, as {PLATFORM_USER}/{} in a registry of the configuration",
            image.image().name()
        ),
    };
    Err(format!(
        "there is no image {image} for its model '{model}', and {asked}. {remedy}; then restart the machine"
    ))
}

/// What a registry has for a model.
async fn ask(registry: &RegistryConfig, model: &Model) -> Result<Option<pull::RemoteImage>, String> {
    let image = default_image_of(model);
    let repository = repository_of(registry, PLATFORM_USER, image.image()).map_err(|e| e.to_string())?;
    let text = format!("{}:{repository}:{DEFAULT_TAG}", registry.label);
    let link = Link::parse(&text).map_err(|e| e.to_string())?;
    let wanted = std::slice::from_ref(model);
    let inspected =
        async { pull::inspect_with(open_impatient(registry, None)?, registry, &link, wanted).await };
    let found = match with_time_limit(&registry.label, inspected).await {
        Ok(Ok(found)) => found,
        Ok(Err(unusable)) => return Err(crate::base::failure::Failure::from(unusable).to_string()),
        Err(Error::NotFound { .. }) => return Ok(None),
        // The hub asks for credentials for images that it does not have.
        Err(Error::Credentials { .. }) if registry.api == Kind::DockerHub => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    if !found.models.contains(model) {
        return Err(format!("{repository} is not made for this model"));
    }
    Ok(Some(found))
}

/// Downloads an image and publishes it as the default image of a model.
async fn get(app: &Arc<App>, model: &Model, image: &pull::RemoteImage) -> Outcome<()> {
    let target = Target::of(app, default_image_of(model))?;
    // Nobody listens.
    let (events, _) = Events::channel();
    let pulled = image.pull(app.images(), &events).await?;
    let by = By::new(PLATFORM_USER, BY);
    target.publish_ref(app, pulled.image, pulled.created, &by).await?;
    Ok(())
}
