//! The end of every operation that makes an image: a reference of the caller points to the new image.
//!
//! ```text
//! plan         what the reference points to now, and which nodes use it     a Decision
//! check_consent  overwriting asks                                           the same Decision
//!  …           the image is made; it is in the store, and pinned            none
//! publish_ref  nobody changed the reference meanwhile, this server is new enough, nodes that use it have models that
//!              the image is made for; reference and history change in one transaction     a Decision
//! reboot       nodes that use it                                            none; also when the client has gone
//! ```
//! If the reference already points to the image, nothing changes, and the result says so.

use crate::{
    actions::{app::App, reboot::announce_and_reboot},
    base::{
        db::{By, NodeRow, RefRow},
        events::Events,
        failure::{Outcome, refused},
        state::Decision,
    },
    services::images::{labels, own_reference},
};
use rusqlite::Connection;
use std::{collections::BTreeSet, sync::Arc};
use walt_types::{ImageId, ImageRef, Model, UserName};

/// The reference that an operation is going to change, as its user confirmed it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The reference.
    pub reference: ImageRef,
    /// What it points to; none for a new name.
    pub present: Option<RefRow>,
    /// The nodes that use it.
    pub users: Vec<NodeRow>,
}

/// The consent of a user to an operation that overwrites an image.
#[derive(Debug)]
pub struct Consent<'a> {
    /// Name of the operation; a token confirms one operation only.
    pub operation: &'a str,
    /// The token from the user.
    pub confirm: Option<&'a str>,
    /// Do not ask.
    pub yes: bool,
    /// The question.
    pub warning: String,
}

impl Target {
    /// What a name of the caller points to. A name with an open shell session is refused, since the changes of the
    /// session are based on the current image.
    ///
    /// # Errors
    /// The name is invalid, or has an open session.
    pub fn plan(app: &App, caller: &UserName, name: &str, _decision: &Decision<'_>) -> Outcome<Self> {
        Self::of(app, own_reference(caller, name)?)
    }

    /// As [`Target::plan`], for a reference that is checked again when it is published.
    ///
    /// # Errors
    /// The reference has an open session.
    pub fn of(app: &App, reference: ImageRef) -> Outcome<Self> {
        let target = Self::of_session(app, reference)?;
        if target.present.is_some() {
            app.images().no_session(&target.reference)?;
        }
        Ok(target)
    }

    /// As [`Target::of`], for the save of a session, which may be open on this reference.
    ///
    /// # Errors
    /// The database failed.
    pub fn of_session(app: &App, reference: ImageRef) -> Outcome<Self> {
        let present = app.db().with(|c| RefRow::get(c, &reference))?;
        let users = if present.is_some() { app.images().nodes_using(&reference)? } else { Vec::new() };
        Ok(Self { reference, present, users })
    }

    /// Asks before an image is overwritten, unless `yes` is set or the token in `confirm` is that of this state.
    pub fn check_consent(
        &self,
        app: &App,
        caller: &UserName,
        operation: &str,
        confirm: Option<&str>,
        yes: bool,
        decision: &Decision<'_>,
    ) -> Outcome<()> {
        let consent = Consent { operation, confirm, yes, warning: overwrite_warning(self.users.len()) };
        self.check_consent_with(app, caller, consent, decision)
    }

    /// As [`Target::check_consent`], with another warning.
    pub fn check_consent_with(
        &self,
        app: &App,
        caller: &UserName,
        consent: Consent<'_>,
        _decision: &Decision<'_>,
    ) -> Outcome<()> {
        let Consent { operation, confirm, yes, warning } = consent;
        let Some(present) = &self.present else { return Ok(()) };
        if yes {
            return Ok(());
        }
        let users: Vec<String> = self.users.iter().map(|n| n.mac.to_string()).collect();
        let facts = format!("{} {} {}", self.reference.full(), present.image_id, users.join(" "));
        app.confirmed(caller, operation, &facts, confirm, vec![warning])
    }

    /// Refuses an image that is not compatible with the models of the nodes that use the reference.
    pub fn check_models(&self, app: &App, image: &ImageId) -> Outcome<()> {
        let users = app.images().nodes_using(&self.reference)?;
        if users.is_empty() {
            return Ok(());
        }
        check_models_of(&users, &app.images().models_of(image)?, &self.reference)
    }

    /// Whether the reference points to this image.
    pub fn points_to(&self, image: &ImageId) -> bool {
        self.present.as_ref().is_some_and(|p| p.image_id == *image)
    }

    /// The result if the image did not change.
    pub fn unchanged(&self) -> String {
        format!("Nothing changed: image {} is left as it was.", self.reference.image())
    }

    /// The result if the reference points to a new image.
    pub fn published(&self) -> String {
        let name = self.reference.image();
        match self.present {
            Some(_) => format!("Image {name} updated."),
            None => format!("New image {name} saved."),
        }
    }

    /// Makes the reference point to `image`, which is in the store. The result is the nodes that use the reference;
    /// reboot them with [`announce_and_reboot`]. Fails, without any change, if the reference was changed since the
    /// plan. If it already points to that image ([`Target::points_to`]), nothing changes, and no node needs a reboot.
    pub async fn publish_ref(
        &self,
        app: &Arc<App>,
        image: ImageId,
        created: i64,
        by: &By,
    ) -> Outcome<Vec<NodeRow>> {
        publish_refs(app, std::slice::from_ref(self), image, created, by).await
    }

    /// Refuses if the reference was changed since the plan; `otherwise` tells the user the consequence.
    ///
    /// # Errors
    /// Somebody changed it.
    pub fn check_unchanged(&self, app: &App, otherwise: &str, _decision: &Decision<'_>) -> Outcome<()> {
        let now = app.db().with(|c| RefRow::get(c, &self.reference))?.map(|r| r.image_id);
        if now == self.present.as_ref().map(|p| p.image_id) {
            return Ok(());
        }
        let name = self.reference.image();
        Err(refused(format!("image {name} was changed by somebody else in the meantime: {otherwise}")))
    }

    /// Refuses if the reference cannot point to `image` now.
    fn check_publishable(&self, app: &App, image: &ImageId, decision: &Decision<'_>) -> Outcome<()> {
        self.check_unchanged(app, "nothing was done; try again", decision)?;
        if self.points_to(image) {
            return Ok(());
        }
        if self.present.is_some() {
            app.images().no_session(&self.reference)?;
        }
        labels::fits_server(&app.store().config(image)?)?;
        self.check_models(app, image)
    }

    /// Publishes the reference, announces it as updated, new or unchanged, and reboots the nodes that use it; false
    /// if one of them failed to reboot.
    pub async fn publish_and_reboot(
        &self,
        app: &Arc<App>,
        image: ImageId,
        created: i64,
        by: &By,
        events: &Events,
    ) -> Outcome<bool> {
        let users = self.publish_ref(app, image, created, by).await?;
        let text = if self.points_to(&image) { self.unchanged() } else { self.published() };
        announce_and_reboot(app, users, text, events).await
    }
}

/// [`Target::publish_ref`] for several references: all of them, or none. References that already point to the image
/// are not changed.
pub async fn publish_refs(
    app: &Arc<App>,
    targets: &[Target],
    image: ImageId,
    created: i64,
    by: &By,
) -> Outcome<Vec<NodeRow>> {
    publish_refs_with(app, targets, image, created, by, |_| Ok(())).await
}

/// As [`publish_refs`]; `also` is run in the same transaction, even if no reference changes.
pub async fn publish_refs_with(
    app: &Arc<App>,
    targets: &[Target],
    image: ImageId,
    created: i64,
    by: &By,
    also: impl FnOnce(&Connection) -> anyhow::Result<()>,
) -> Outcome<Vec<NodeRow>> {
    let decision = app.base().decide().await;
    targets.iter().try_for_each(|target| target.check_publishable(app, &image, &decision))?;
    let changing: Vec<&Target> = targets.iter().filter(|target| !target.points_to(&image)).collect();
    app.db().transaction(|tx| -> anyhow::Result<()> {
        let row = |target: &Target| RefRow { reference: target.reference.clone(), image_id: image, created };
        changing.iter().try_for_each(|target| row(target).put(tx, by))?;
        also(tx)
    })?;
    if changing.is_empty() {
        return Ok(Vec::new());
    }
    app.images().request_housekeeping();
    let mut users = Vec::new();
    for target in changing {
        users.extend(app.images().nodes_using(&target.reference)?);
    }
    Ok(users)
}

/// The warning before a change of an image reboots nodes.
pub fn reboot_warning(nodes: usize) -> String {
    format!("This operation would reboot {nodes} node(s) currently using the image.")
}

/// Refuses an image for `models` if one of `users`, the nodes that use the reference, has another model.
pub fn check_models_of(users: &[NodeRow], models: &[Model], reference: &ImageRef) -> Outcome<()> {
    let others: Vec<&NodeRow> = users.iter().filter(|n| !models.contains(&n.facts.model)).collect();
    let Some(node) = others.first() else { return Ok(()) };
    let names: BTreeSet<&str> = others.iter().map(|n| n.facts.model.as_str()).collect();
    let user = format!("of node {}, which uses '{}'", node.facts.name, reference.image());
    Err(refused(format!("{} {user}.", incompatible(names))))
}

/// The beginning of the message about an image that is not made for these models.
pub fn incompatible(models: BTreeSet<&str>) -> String {
    let models: Vec<&str> = models.into_iter().collect();
    format!("Sorry, this image is not compatible with node model(s) {}", models.join(", "))
}

/// The warning before an image of the caller is overwritten.
pub fn overwrite_warning(nodes: usize) -> String {
    let reboot = match nodes {
        0 => String::new(),
        n => format!(" (and reboot {n} node(s))"),
    };
    format!("An image has the same name in your working set. This operation would overwrite it{reboot}.")
}
