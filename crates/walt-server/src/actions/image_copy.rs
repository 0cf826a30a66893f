//! `walt image cp`: files into and out of images, and what all copies into images share.

use crate::actions::publish_ref::Consent;
use crate::{
    actions::app::App,
    base::{
        db::{By, blocking},
        events::Events,
        failure::{Outcome, bad_request, not_found, refused},
        transfer::Channel,
    },
};
use crate::{
    actions::publish_ref::{Target, reboot_warning},
    services::images::{own_reference, pins::Pinned, squashed_note},
};
use std::{io::Read, sync::Arc};
use walt_api::transfer::{Found, Path, Placed, Source, SourceKind, TOP, place};
use walt_images::{Composed, Composer, History, Kind, Last, SaveRules, Skipped, View};
use walt_tar::Header;
use walt_types::{DiffId, ImageId, UserName};

/// Where relative paths begin.
const HOME: &[u8] = b"root/";

/// How the user has agreed to what is overwritten and rebooted.
#[derive(Debug, Clone, Default)]
pub struct Agreed {
    /// Token of a confirmation.
    pub confirm: Option<String>,
    /// Nothing is asked.
    pub yes: bool,
}

/// A path of an image or a node from its root.
pub fn from_root(path: &Path) -> Vec<u8> {
    match path.0.strip_prefix(b"/") {
        Some(rest) => rest.to_vec(),
        None => [HOME, &path.0].concat(),
    }
}

/// What a source at `path` is: its last name, and whether its contents are meant.
pub fn source_of(path: &[u8], is_dir: bool) -> Source {
    let last = path.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
    let kind = match (is_dir, last) {
        (true, b"." | b"..") => SourceKind::Contents,
        (true, _) => SourceKind::Directory,
        (false, _) => SourceKind::File,
    };
    Source { kind, name: Path(last.to_vec()) }
}

/// A destination in a tree: where the entry [`TOP`] of the tar goes, and whether it is left out itself.
#[derive(Debug, Clone)]
pub struct Destination {
    /// What the source is called in the tar.
    top: Vec<u8>,
    at: Vec<u8>,
    merged: bool,
}

impl Destination {
    /// Applies the rules of copies to what the composed tree has at `path`.
    pub fn find(composer: &Composer, path: &Path, source: &Source) -> Outcome<Self> {
        let at = composer.resolve(&from_root(path), Last::Follow).map_err(refused)?;
        let parent = at.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &at[..slash]);
        let found = match composer.kind(&at) {
            Some(Kind::Dir) => Found::Directory,
            Some(_) => Found::File,
            None if composer.kind(parent) == Some(Kind::Dir) => Found::Absent,
            None => Found::NoParent,
        };
        let name = &source.name.0;
        let (at, merged) = match place(source.kind, found, &path.show()).map_err(refused)? {
            Placed::Itself => (at, false),
            Placed::Merged => (at, true),
            Placed::Inside if matches!(name.as_slice(), b"" | b"." | b"..") || name.contains(&b'/') => {
                return Err(bad_request("the source has no name that it could have in the destination"));
            }
            Placed::Inside => (crate::actions::image_copy::join(&at, name), false),
        };
        // Inside of a directory: the rule that forbids a directory over a file, and its other half.
        let real = composer.resolve(&at, Last::Follow).map_err(refused)?;
        let (is_file, is_dir) = match composer.kind(&real) {
            Some(Kind::Dir) => (false, true),
            other => (other.is_some(), false),
        };
        let shown = format!("/{}", Path(at.clone()).show());
        match source.kind {
            SourceKind::File if is_dir && !at.is_empty() => {
                Err(refused(format!("Overwriting directory {shown} with a file is not allowed.")))
            }
            SourceKind::Directory | SourceKind::Contents if is_file => {
                Err(refused(format!("Overwriting regular file {shown} with a directory is not allowed.")))
            }
            _ => Ok(Self { top: TOP.into(), at, merged }),
        }
    }

    /// The same place for a node's file or directory, whatever is there: it takes the place of a file, and a
    /// directory is merged with one.
    pub fn same_place(composer: &Composer, path: &Path, is_dir: bool, top: &[u8]) -> Outcome<Self> {
        let at = composer.resolve(&from_root(path), Last::Follow).map_err(refused)?;
        let parent = at.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &at[..slash]);
        if !at.is_empty() && composer.kind(parent) != Some(Kind::Dir) {
            return Err(not_found(format!("No such file or directory: {}", path.show())));
        }
        match (composer.kind(&at), is_dir) {
            (Some(Kind::Dir), false) => {
                Err(refused(format!("Overwriting directory {} with a file is not allowed.", path.show())))
            }
            (Some(kind), true) if kind != Kind::Dir => Err(refused(format!(
                "Overwriting regular file {} with a directory is not allowed.",
                path.show()
            ))),
            _ => Ok(Self { top: top.to_vec(), merged: at.is_empty(), at }),
        }
    }

    /// Renames an entry of the tar to where it goes; false leaves it out.
    fn apply(&self, header: &mut Header) -> walt_images::Result<bool> {
        let top = self.top.as_slice();
        let moved = |path: &[u8]| match path.strip_prefix(top) {
            Some(b"") => Ok(self.at.clone()),
            Some(rest) if top.is_empty() => Ok(join(&self.at, rest)),
            Some(rest) if rest.starts_with(b"/") => Ok(join(&self.at, &rest[1..])),
            _ => Err(walt_images::Error::Layer("the tar has an entry outside of what is copied".into())),
        };
        let is_top = header.path == top;
        header.path = moved(&header.path)?;
        if header.kind == walt_tar::Type::HardLink {
            header.link = moved(&header.link)?;
        }
        Ok(!(is_top && self.merged))
    }

    /// Puts the tar there. With `owner`, everything gets it.
    pub fn extract(
        &self,
        composer: &mut Composer,
        tar: &mut dyn Read,
        owner: Option<(u32, u32)>,
    ) -> walt_images::Result<()> {
        composer.keep_directories();
        let edit = &mut |header: &mut Header| {
            if let Some((uid, gid)) = owner {
                (header.uid, header.gid) = (uid, gid);
            }
            self.apply(header)
        };
        composer.extract(tar, b"", edit, &mut |_| ())
    }
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// An image that a change is based on.
#[derive(Debug, Clone)]
pub struct Base {
    /// The image.
    pub image: ImageId,
    /// What the change comes on top of.
    pub view: Arc<View>,
}

/// An image that a change has made: in the store, and pinned.
#[derive(Debug)]
pub struct Made {
    /// The image.
    pub image: ImageId,
    /// Whether its layers below the change had to be squashed.
    squashed: bool,
    /// Attributes of its files that were not set.
    skipped: Skipped,
    _pinned: Pinned,
}

impl Made {
    /// Tells the user what he did not ask for.
    pub async fn tell(&self, events: &Events) {
        if self.squashed {
            events.note(squashed_note()).await;
        }
        if let Some(note) = self.skipped.note() {
            events.note(format!("Note: {note}")).await;
        }
    }
}

impl Base {
    /// The image's own tree.
    pub fn of(app: &App, image: ImageId) -> Outcome<Self> {
        let layers: Vec<DiffId> = app.store().config(&image).and_then(|c| c.layers())?;
        let view = blocking(|| app.store().view(&layers, None))?;
        Ok(Self { image, view })
    }

    /// Makes an image of this one and what `composer` has, pinned; none if nothing changed. If this one has all the
    /// layers that it can have, the new one has them squashed. To be called in a thread that may block.
    pub fn finish(
        &self,
        app: &App,
        composer: Composer,
        rules: &SaveRules,
        by: &By,
        created: i64,
    ) -> Outcome<Option<Made>> {
        let mut pinned = app.images().pins().begin();
        let skipped = composer.skipped().clone();
        let _changes = tokio::runtime::Handle::current().block_on(app.images().writing());
        let made = composer.finish_with(rules)?;
        let Composed::Layer(layer) = made else { return Ok(None) };
        let mut config = app.store().config(&self.image)?;
        let history = History {
            created: Some(crate::base::time::rfc3339(created)),
            created_by: Some(by.command.clone()),
            author: Some(by.user.clone()),
            ..History::default()
        };
        config.created.clone_from(&history.created);
        let squashed = app.store().make_room(&mut config, history.created.clone())?;
        config.push_layer(&layer.diff_id, history);
        let image = app.store().put_config(&config)?;
        pinned.image(image);
        Ok(Some(Made { image, squashed, skipped, _pinned: pinned }))
    }
}

/// The target of a change of an own image that exists: the user agrees to the reboot of the nodes that use it.
pub async fn agreed_target(
    app: &App,
    caller: &UserName,
    image: &str,
    operation: &str,
    agreed: &Agreed,
) -> Outcome<(Target, ImageId)> {
    let decision = app.base().decide().await;
    let target = Target::plan(app, caller, image, &decision)?;
    let present = app.images().find(&target.reference)?;
    if !target.users.is_empty() {
        let warning = reboot_warning(target.users.len());
        target.agreed_with(
            app,
            caller,
            Consent { operation, confirm: agreed.confirm.as_deref(), yes: agreed.yes, warning },
            &decision,
        )?;
    }
    Ok((target, present.image_id))
}

/// Copies files of the client into an own image.
pub async fn to_image(
    app: &Arc<App>,
    caller: &UserName,
    image: &str,
    path: Path,
    source: Source,
    agreed: Agreed,
    channel: &mut Channel,
) -> Outcome<bool> {
    let operation = format!("copy to {image} {}", path.show());
    let (target, image_id) = agreed_target(app, caller, image, &operation, &agreed).await?;
    let base = Base::of(app, image_id)?;
    let destination = blocking(|| -> Outcome<_> {
        let composer = app.store().compose(&base.view)?;
        Destination::find(&composer, &path, &source)
    })?;
    let name = target.reference.image();
    let from = if source.name.0.is_empty() { ".".to_owned() } else { source.name.show() };
    let by = By::new(caller, format!("walt image cp {from} {name}:{}", path.show()));
    let created = crate::base::time::now() as i64;
    let _tidy = app.images().tidy_when_done();
    let (server, author) = (app.clone(), by.clone());
    let made = channel
        .receive(TOP.as_bytes(), false, move |tar| {
            let app = &*server;
            let mut composer = app.store().compose(&base.view)?;
            destination.extract(&mut composer, tar, Some((0, 0))).map_err(refused)?;
            base.finish(app, composer, &SaveRules::exact(), &author, created)
        })
        .await?;
    let events = channel.events();
    let Some(made) = made else {
        events.out(target.unchanged()).await;
        return Ok(true);
    };
    made.tell(&events).await;
    target.publish_and_reboot(app, made.image, created, &by, &events).await
}

/// Copies files of an own image to the client.
pub async fn from_image(
    app: &Arc<App>,
    caller: &UserName,
    image: &str,
    path: &Path,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = app.images().find(&own_reference(caller, image)?)?;
    // Pinned: the name may get another meaning while a slow client takes the files.
    let mut pinned = app.images().pins().begin();
    let view = {
        let _changes = app.images().writing().await;
        pinned.image(row.image_id);
        let layers = app.store().config(&row.image_id).and_then(|c| c.layers())?;
        blocking(|| app.store().view(&layers, None))?
    };
    let number = view
        .resolve(&from_root(path))
        .ok_or_else(|| not_found(format!("No such file or directory: {}", path.show())))?;
    let is_dir = view.entry(number).is_some_and(|e| e.kind == Kind::Dir);
    channel.source(source_of(&path.0, is_dir), TOP.as_bytes()).await;
    channel
        .send(move |out| {
            view.pack(number, TOP.as_bytes(), out, &mut |_| ())?;
            out.write_all(&walt_tar::END)?;
            Ok(true)
        })
        .await
}
