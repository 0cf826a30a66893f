//! `walt image squash`: merges all layers of an image into one.

use crate::{
    actions::{
        app::App,
        publish_ref::{Consent, Target, reboot_warning},
    },
    base::{
        db::{By, blocking},
        events::Events,
        failure::{Outcome, not_found},
        time,
    },
    services::images::history_entry,
};
use std::sync::Arc;
use walt_images::cancel;
use walt_types::UserName;

/// Squashes an image of the caller; false if a node could not be rebooted.
pub async fn squash(
    app: &Arc<App>,
    caller: &UserName,
    name: &str,
    confirm: Option<&str>,
    events: &Events,
) -> Outcome<bool> {
    let (target, mut config, layers) = {
        let decision = app.base().decide().await;
        let target = Target::plan(app, caller, name, &decision)?;
        let present = target
            .present
            .clone()
            .ok_or_else(|| not_found(format!("No such image '{name}'. (tip: walt image show)")))?;
        let config = app.store().config(&present.image_id)?;
        let layers = config.layers()?;
        if layers.len() > 1 && !target.users.is_empty() {
            let warning = reboot_warning(target.users.len());
            let consent = Consent { operation: "squash", confirm, yes: false, warning };
            target.check_consent_with(app, caller, consent, &decision)?;
        }
        (target, config, layers)
    };
    if layers.len() < 2 {
        events.out(format!("Image {} has only one layer: nothing to do.", target.reference.image())).await;
        return Ok(true);
    }
    events.busy("Squashing").await;
    let _housekeeping = app.images().housekeeping_on_drop();
    let mut pinned = app.images().pins().begin();
    let by = By::new(caller, format!("walt image squash {}", target.reference.image()));
    let created = time::now() as i64;
    let image = {
        let _writing = app.images().writing().await;
        let client = events.clone();
        let made = blocking(|| -> walt_images::Result<_> {
            let squash = || app.store().squash(&*app.store().view(&layers, None)?);
            let layer = cancel::when(move || client.is_gone(), squash)?;
            let history = history_entry(&by, created);
            config.created.clone_from(&history.created);
            config.set_squashed(&layer.diff_id, history);
            app.store().put_config(&config)
        });
        let image = made?;
        pinned.image(image);
        image
    };
    let users = target.publish_ref(app, image, created, &by).await?;
    crate::actions::reboot::announce_and_reboot(app, users, "Image was squashed successfully.", events).await
}
