//! The end of everything that makes an image: a reference of the caller begins to mean it.
//!
//! ```text
//! plan     what the name means now, and which nodes use it       under `App::decisions`
//! agreed   overwriting asks                                      under the same lock
//!  …       the image is made; it is in the store, and pinned     no lock
//! land     nobody changed the name meanwhile, this server is new enough, nodes that use the name have models that the
//!          image is made for; reference and history change in one transaction     under `App::decisions`
//! reboot   nodes that use it                                     no lock; also when the client has gone
//! ```
//! If the name means that image already, nothing of this is done, and the user is told.

use crate::{
    actions::app::App,
    base::{
        db::{By, NodeRow, RefRow},
        events::Events,
        failure::{Outcome, refused},
    },
};
use crate::{
    actions::images::{nodes_using, overwrite_warning, tell_and_reboot},
    services::images::{labels, own_reference},
};
use rusqlite::Connection;
use std::{collections::BTreeSet, sync::Arc};
use walt_types::{ImageId, ImageRef, Model, UserName};

/// What an operation is going to make of a name, as its user agrees to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The reference.
    pub reference: ImageRef,
    /// What it means now; none if it is a new name.
    pub present: Option<RefRow>,
    /// The nodes that use it.
    pub users: Vec<NodeRow>,
}

impl Target {
    /// Looks at a name of the caller's. A name with an open shell session is refused: its changes are based on what
    /// the name means now.
    pub fn plan(app: &App, caller: &UserName, name: &str) -> Outcome<Self> {
        Self::of(app, own_reference(caller, name)?)
    }

    /// As [`Target::plan`], for a reference.
    pub fn of(app: &App, reference: ImageRef) -> Outcome<Self> {
        let present = app.db().with(|c| RefRow::get(c, &reference))?;
        let mut users = Vec::new();
        if present.is_some() {
            app.images().no_session(&reference)?;
            users = nodes_using(app, &reference)?;
        }
        Ok(Self { reference, present, users })
    }

    /// Asks before an image is overwritten, unless the user has said `yes` beforehand or the token in `confirm` is
    /// that of this state.
    pub fn agreed(
        &self,
        app: &App,
        caller: &UserName,
        operation: &str,
        confirm: Option<&str>,
        yes: bool,
    ) -> Outcome<()> {
        self.agreed_with(app, caller, operation, confirm, yes, overwrite_warning(self.users.len()))
    }

    /// As [`Target::agreed`], with the caller's own warning.
    pub fn agreed_with(
        &self,
        app: &App,
        caller: &UserName,
        operation: &str,
        confirm: Option<&str>,
        yes: bool,
        warning: String,
    ) -> Outcome<()> {
        let Some(present) = &self.present else { return Ok(()) };
        if yes {
            return Ok(());
        }
        let users: Vec<String> = self.users.iter().map(|n| n.mac.to_string()).collect();
        let facts = format!("{} {} {}", self.reference.full(), present.image_id, users.join(" "));
        app.confirmed(caller, operation, &facts, confirm, vec![warning])
    }

    /// Refuses an image that is not made for the models of the nodes that use the reference.
    pub fn fits(&self, app: &App, image: &ImageId) -> Outcome<()> {
        let users = nodes_using(app, &self.reference)?;
        if users.is_empty() {
            return Ok(());
        }
        fits_all(&users, &app.images().models_of(image)?, &self.reference)
    }

    /// Whether the reference means this image already.
    pub fn is(&self, image: &ImageId) -> bool {
        self.present.as_ref().is_some_and(|p| p.image_id == *image)
    }

    /// The sentence for a user whose image is what it was.
    pub fn unchanged(&self) -> String {
        format!("Nothing changed: image {} is left as it was.", self.reference.image())
    }

    /// Lets the reference mean `image`, which is in the store; gives the nodes that use it now: tell the outcome,
    /// and let them reboot, by [`tell_and_reboot`]. Fails if the name was changed since the plan, and changes nothing then.
    /// If it means that image already ([`Target::is`]), nothing changes, and no node needs a reboot.
    pub async fn land(&self, app: &Arc<App>, image: ImageId, created: i64, by: &By) -> Outcome<Vec<NodeRow>> {
        land_all(app, std::slice::from_ref(self), image, created, by).await
    }

    /// Refuses if the reference may not begin to mean `image` now.
    fn may_land(&self, app: &App, image: &ImageId) -> Outcome<()> {
        let now = app.db().with(|c| RefRow::get(c, &self.reference))?.map(|r| r.image_id);
        if now != self.present.as_ref().map(|p| p.image_id) {
            return Err(refused(format!(
                "image {} was changed by somebody else meanwhile: nothing was done, try again",
                self.reference.image()
            )));
        }
        if self.is(image) {
            return Ok(());
        }
        if now.is_some() {
            app.images().no_session(&self.reference)?;
        }
        labels::fits_server(&app.store().config(image).map_err(anyhow::Error::new)?)?;
        self.fits(app, image)
    }

    /// [`Target::land`], the words `Image … updated.`, `New image … saved.` or [`Target::unchanged`], and the reboot of
    /// the nodes that use it; false if one of them failed.
    pub async fn land_and_tell(
        &self,
        app: &Arc<App>,
        image: ImageId,
        created: i64,
        by: &By,
        events: &Events,
    ) -> Outcome<bool> {
        let users = self.land(app, image, created, by).await?;
        let name = self.reference.image();
        let text = match self.present {
            Some(_) if self.is(&image) => self.unchanged(),
            Some(_) => format!("Image {name} updated."),
            None => format!("New image {name} saved."),
        };
        tell_and_reboot(app, users, text, events).await
    }
}

/// [`Target::land`] for several references: all of them, or none. Those that mean that image already are left alone.
pub async fn land_all(
    app: &Arc<App>,
    targets: &[Target],
    image: ImageId,
    created: i64,
    by: &By,
) -> Outcome<Vec<NodeRow>> {
    land_with(app, targets, image, created, by, |_| Ok(())).await
}

/// As [`land_all`], with what else is recorded in the same transaction; it is also if nothing changes.
pub async fn land_with(
    app: &Arc<App>,
    targets: &[Target],
    image: ImageId,
    created: i64,
    by: &By,
    also: impl FnOnce(&Connection) -> anyhow::Result<()>,
) -> Outcome<Vec<NodeRow>> {
    let _decision = app.base().decide().await;
    targets.iter().try_for_each(|target| target.may_land(app, &image))?;
    let changing: Vec<&Target> = targets.iter().filter(|target| !target.is(&image)).collect();
    app.db().transaction(|tx| -> anyhow::Result<()> {
        let row = |target: &Target| RefRow { reference: target.reference.clone(), image_id: image, created };
        changing.iter().try_for_each(|target| row(target).put(tx, by))?;
        also(tx)
    })?;
    if changing.is_empty() {
        return Ok(Vec::new());
    }
    app.images().tidy_soon();
    let mut users = Vec::new();
    for target in changing {
        users.extend(nodes_using(app, &target.reference)?);
    }
    Ok(users)
}

/// The warning before nodes are rebooted because their image changes.
pub fn reboot_warning(nodes: usize) -> String {
    format!("This operation would reboot {nodes} node(s) currently using the image.")
}

/// Refuses an image for these `models` if one of `users`, the nodes that use the reference, is of another.
pub fn fits_all(users: &[NodeRow], models: &[Model], reference: &ImageRef) -> Outcome<()> {
    let others: Vec<&NodeRow> = users.iter().filter(|n| !models.contains(&n.facts.model)).collect();
    let Some(node) = others.first() else { return Ok(()) };
    let names: BTreeSet<&str> = others.iter().map(|n| n.facts.model.as_str()).collect();
    Err(refused(format!(
        "Sorry, this image is not compatible with node model(s) {} of node {}, which uses '{}'.",
        names.into_iter().collect::<Vec<_>>().join(", "),
        node.facts.name,
        reference.image()
    )))
}
