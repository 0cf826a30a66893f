//! `walt image cp`: copies files into and out of images, and finds the destination of any copy into an image.

use crate::{
    actions::{
        app::App,
        image_change::{BaseImage, GivenConsent, ImageChange, confirmed_target},
    },
    base::{
        db::{By, blocking},
        failure::{Outcome, bad_request, not_found, refused},
        transfer::Channel,
    },
    services::images::own_reference,
};
use std::{io::Read, sync::Arc};
use walt_api::transfer::{Found, Path, Placed, Source, SourceKind, TOP, place};
use walt_images::{Composer, Kind, Last, SaveRules};
use walt_tar::Header;
use walt_types::UserName;

/// Directory of relative paths.
const HOME: &[u8] = b"root/";

/// A path on an image or a node, relative to its root.
pub fn from_root(path: &Path) -> Vec<u8> {
    match path.0.strip_prefix(b"/") {
        Some(rest) => rest.to_vec(),
        None => [HOME, &path.0].concat(),
    }
}

/// The source at `path`: its last name, and whether only its contents are copied.
pub fn source_of(path: &[u8], is_dir: bool) -> Source {
    let last = path.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
    let kind = match (is_dir, last) {
        (true, b"." | b"..") => SourceKind::Contents,
        (true, _) => SourceKind::Directory,
        (false, _) => SourceKind::File,
    };
    Source { kind, name: Path(last.to_vec()) }
}

/// A destination in a tree: where the top entry of the tar goes, and whether that entry itself is dropped.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The name of the source in the tar.
    top: Vec<u8>,
    at: Vec<u8>,
    merged: bool,
}

impl Destination {
    /// Applies the rules of copies to the tree at `path`.
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
            Placed::Inside => {
                check_name(name)?;
                (join(&at, name), false)
            }
        };
        // `place` has checked the destination itself; this checks an entry of the same name inside it.
        let real = composer.resolve(&at, Last::Follow).map_err(refused)?;
        let existing = composer.kind(&real).filter(|_| !at.is_empty());
        let shown = format!("/{}", Path(at.clone()).show());
        check_overwrite(existing.map(|kind| kind == Kind::Dir), source.kind != SourceKind::File, &shown)?;
        Ok(Self { top: TOP.into(), at, merged })
    }

    /// The same path as on a node: a file replaces a file there, a directory is merged into a directory there.
    pub fn same_place(composer: &Composer, path: &Path, is_dir: bool, top: &[u8]) -> Outcome<Self> {
        let at = composer.resolve(&from_root(path), Last::Follow).map_err(refused)?;
        let parent = at.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &at[..slash]);
        if !at.is_empty() && composer.kind(parent) != Some(Kind::Dir) {
            return Err(not_found(format!("No such file or directory: {}", path.show())));
        }
        check_overwrite(composer.kind(&at).map(|kind| kind == Kind::Dir), is_dir, &path.show())?;
        Ok(Self { top: top.to_vec(), merged: at.is_empty(), at })
    }

    /// Renames an entry of the tar to its destination; false drops it.
    fn apply(&self, header: &mut Header) -> walt_images::Result<bool> {
        let top = self.top.as_slice();
        let moved = |path: &[u8]| match path.strip_prefix(top) {
            Some(b"") => Ok(self.at.clone()),
            Some(rest) if top.is_empty() => Ok(join(&self.at, rest)),
            Some(rest) if rest.starts_with(b"/") => Ok(join(&self.at, &rest[1..])),
            _ => Err(walt_images::Error::Layer("the tar has an entry outside the source".into())),
        };
        let is_top = header.path == top;
        header.path = moved(&header.path)?;
        if header.kind == walt_tar::Type::HardLink {
            header.link = moved(&header.link)?;
        }
        Ok(!(is_top && self.merged))
    }

    /// Extracts the tar to this destination. With `owner`, all entries get that owner.
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

/// Refuses a name that cannot be used inside a destination directory.
pub(super) fn check_name(name: &[u8]) -> Outcome<()> {
    match name {
        b"" | b"." | b".." => {}
        name if name.contains(&b'/') => {}
        _ => return Ok(()),
    }
    Err(bad_request("the source has no name to use inside the destination directory"))
}

/// Refuses to replace a directory by a file, or a file by a directory. `existing` tells whether what is there is a
/// directory; none if nothing is.
pub(super) fn check_overwrite(existing: Option<bool>, source_is_dir: bool, shown: &str) -> Outcome<()> {
    match (existing, source_is_dir) {
        (Some(true), false) => {
            Err(refused(format!("Overwriting directory {shown} with a file is not allowed.")))
        }
        (Some(false), true) => {
            Err(refused(format!("Overwriting regular file {shown} with a directory is not allowed.")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Copies files of the client into an image of the caller.
pub async fn to_image(
    app: &Arc<App>,
    caller: &UserName,
    image: &str,
    path: Path,
    source: Source,
    consent: GivenConsent,
    channel: &mut Channel,
) -> Outcome<bool> {
    let operation = format!("copy to {image} {}", path.show());
    let (target, image_id) = confirmed_target(app, caller, image, &operation, &consent).await?;
    let base = BaseImage::of(app, image_id)?;
    let destination = blocking(|| -> Outcome<_> {
        let composer = app.store().compose(&base.view)?;
        Destination::find(&composer, &path, &source)
    })?;
    let name = target.reference.image();
    let from = if source.name.0.is_empty() { ".".to_owned() } else { source.name.show() };
    let by = By::new(caller, format!("walt image cp {from} {name}:{}", path.show()));
    let _housekeeping = app.images().housekeeping_on_drop();
    let change = ImageChange::new(app, base, SaveRules::exact(), by);
    let work = change.clone();
    let new = channel
        .receive(TOP.as_bytes(), false, move |tar| {
            work.compose(|composer| destination.extract(composer, tar, Some((0, 0))).map_err(refused))
        })
        .await?;
    change.publish(&target, new, &channel.events()).await
}

/// Copies files of an image of the caller to the client.
pub async fn from_image(
    app: &Arc<App>,
    caller: &UserName,
    image: &str,
    path: &Path,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = app.images().find(&own_reference(caller, image)?)?;
    // Pinned, since the name may be changed while a slow client receives the files.
    let mut pinned = app.images().pins().begin();
    let view = {
        let _writing = app.images().writing().await;
        pinned.image(row.image_id);
        blocking(|| app.images().own_view(&row.image_id))?
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
