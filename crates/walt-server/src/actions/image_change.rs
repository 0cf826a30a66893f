//! A change of an image: files are put on top of it, and the result becomes a new image under the caller's name.
//!
//! ```text
//! confirmed_target       the caller's image, and the caller's consent to reboot the nodes that use it
//! ImageChange::compose   in a thread: the image's tree, the files, a layer of what they change, the new image
//! ImageChange::publish   notes for the user; the reference points to the new image; nodes that use it reboot
//! ```

use crate::{
    actions::{
        app::App,
        node_program::NodeProgram,
        publish_ref::{Consent, Target, reboot_warning},
    },
    base::{
        db::{By, blocking},
        events::Events,
        failure::Outcome,
        time::now,
    },
    services::images::{history_entry, pins::Pinned, squashed_note},
};
use std::{process::ChildStdout, sync::Arc};
use tokio::task::JoinHandle;
use walt_images::{Composed, Composer, SaveRules, Skipped, View, cancel};
use walt_types::{ImageId, UserName};

/// How the user consents to what is overwritten and rebooted.
#[derive(Debug, Clone, Default)]
pub struct GivenConsent {
    /// Token of a confirmation.
    pub confirm: Option<String>,
    /// Do not ask.
    pub yes: bool,
}

/// The image that a change starts from.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Its id.
    pub image: ImageId,
    /// The tree that the change is put on.
    pub view: Arc<View>,
}

impl BaseImage {
    /// An image with its own tree, without the platform layer.
    pub fn of(app: &App, image: ImageId) -> Outcome<Self> {
        let view = blocking(|| app.images().own_view(&image))?;
        Ok(Self { image, view })
    }
}

/// The result of a change: in the store, and pinned.
#[derive(Debug)]
pub struct NewImage {
    /// The image.
    pub image: ImageId,
    /// Whether the layers below the change had to be squashed.
    squashed: bool,
    /// Attributes of its files that were not set.
    skipped: Skipped,
    _pinned: Pinned,
}

impl NewImage {
    /// Notes for the user on what was done beyond the request.
    pub async fn report(&self, events: &Events) {
        if self.squashed {
            events.note(squashed_note()).await;
        }
        if let Some(note) = self.skipped.note() {
            events.note(format!("Note: {note}")).await;
        }
    }
}

/// A change under way.
pub struct ImageChange {
    app: Arc<App>,
    base: BaseImage,
    rules: SaveRules,
    by: By,
    created: i64,
}

impl ImageChange {
    /// A change of `base` by a command; `rules` select what is saved.
    pub fn new(app: &Arc<App>, base: BaseImage, rules: SaveRules, by: By) -> Arc<Self> {
        Arc::new(Self { app: app.clone(), base, rules, by, created: now() as i64 })
    }

    /// Makes an image of the base and of what `fill` puts on it; none if nothing changed. If the base has the maximum
    /// number of layers, they are squashed for the new image. Blocks: call it in a thread that may.
    pub fn compose(&self, fill: impl FnOnce(&mut Composer) -> Outcome<()>) -> Outcome<Option<NewImage>> {
        // The operation may be dropped, when its client goes, before this returns.
        let _housekeeping = self.app.images().housekeeping_on_drop();
        let mut composer = self.app.store().compose(&self.base.view)?;
        fill(&mut composer)?;
        self.store(composer)
    }

    /// As [`ImageChange::compose`], in a thread of its own, from the output of a program on a node. It stops soon after
    /// `is_gone` returns true. `failure` is the beginning of the message if the program fails.
    pub fn compose_from(
        self: &Arc<Self>,
        program: NodeProgram,
        failure: &'static str,
        is_gone: impl Fn() -> bool + Send + 'static,
        fill: impl FnOnce(&mut Composer, &mut ChildStdout) -> Outcome<()> + Send + 'static,
    ) -> JoinHandle<Outcome<Option<NewImage>>> {
        let change = self.clone();
        tokio::task::spawn_blocking(move || {
            cancel::when(is_gone, || {
                change.compose(|composer| program.read_output(failure, |output| fill(composer, output)))
            })
        })
    }

    fn store(&self, composer: Composer) -> Outcome<Option<NewImage>> {
        let app = &*self.app;
        let mut pinned = app.images().pins().begin();
        let skipped = composer.skipped().clone();
        let _writing = tokio::runtime::Handle::current().block_on(app.images().writing());
        let Composed::Layer(layer) = composer.finish_with(&self.rules)? else { return Ok(None) };
        let mut config = app.store().config(&self.base.image)?;
        let history = history_entry(&self.by, self.created);
        config.created.clone_from(&history.created);
        let squashed = app.store().make_room(&mut config, history.created.clone())?;
        config.push_layer(&layer.diff_id, history);
        let image = app.store().put_config(&config)?;
        pinned.image(image);
        Ok(Some(NewImage { image, squashed, skipped, _pinned: pinned }))
    }

    /// When the change was made, in seconds since the epoch.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// The command that makes it.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// Makes the target point to the new image, if there is one, and reboots the nodes that use it; false if one of them
    /// failed to.
    pub async fn publish(&self, target: &Target, new: Option<NewImage>, events: &Events) -> Outcome<bool> {
        let Some(new) = new else {
            events.out(target.unchanged()).await;
            return Ok(true);
        };
        new.report(events).await;
        target.publish_and_reboot(&self.app, new.image, self.created, &self.by, events).await
    }
}

/// The target of a change of an existing image of the caller, once the caller has consented to the reboot of the nodes
/// that use it.
pub async fn confirmed_target(
    app: &App,
    caller: &UserName,
    image: &str,
    operation: &str,
    consent: &GivenConsent,
) -> Outcome<(Target, ImageId)> {
    let decision = app.base().decide().await;
    let target = Target::plan(app, caller, image, &decision)?;
    let present = app.images().find(&target.reference)?;
    if !target.users.is_empty() {
        let warning = reboot_warning(target.users.len());
        let consent = Consent { operation, confirm: consent.confirm.as_deref(), yes: consent.yes, warning };
        target.check_consent_with(app, caller, consent, &decision)?;
    }
    Ok((target, present.image_id))
}
