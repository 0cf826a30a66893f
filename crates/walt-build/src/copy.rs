//! `COPY` and `ADD`: which files, where to, and the digest of what they are.
//!
//! Sources are views: the context, a stage, an image. Of a directory, the contents are copied. A symbolic link that
//! is named as a source is followed; links inside a directory are copied. Files of the context belong to root, those
//! of a stage or an image keep their owner, unless `--chown` says otherwise.

use super::{
    Error, Result,
    accounts::Accounts,
    remote::Remote,
    state::{Copy, NAMELESS, Origin},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};
use walt_images::{Composer, Kind, Last, Meta, Time, View, cancel, file_digest};
use walt_tar::paths::{as_path, join, split};
use walt_types::patterns::{Patterns, is_pattern, name_matches};

mod archive;

/// Mode of directories that are made on the way to a destination.
const DIR_MODE: u32 = 0o755;
/// Mode of a file from a here-document.
const INLINE_MODE: u32 = 0o644;
/// Most files that the wildcards of one source may name.
const MAX_MATCHES: usize = 100_000;

/// One `COPY` or `ADD`, with its sources.
pub(crate) struct Copier<'a> {
    pub line: usize,
    pub copy: &'a Copy,
    /// Where paths are looked up; none if no source is a path.
    pub source: Option<Arc<View>>,
    /// Fetched sources.
    pub fetched: BTreeMap<Remote, Fetched>,
    /// Time of new files, in seconds since the epoch.
    pub now: i64,
    /// Notes for the user: sentences without final stop.
    pub notes: RefCell<Vec<String>>,
}

/// A fetched source.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub view: Arc<View>,
    /// The path of the file or directory in it.
    pub path: Vec<u8>,
}

/// An entry to copy, and its name below the destination.
struct Item {
    number: u32,
    /// Empty: the contents of a directory go into the destination itself.
    name: Vec<u8>,
}

/// Where the entries of one source go, and how.
struct Destination<'a> {
    dest: &'a [u8],
    /// Whether the destination is a directory, existing or not.
    directory: bool,
    /// Metadata of directories that are made on the way.
    made: &'a Meta,
    owner: Option<(u32, u32)>,
    /// Whether archives are unpacked.
    unpack: bool,
}

impl Copier<'_> {
    fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Dockerfile { line: self.line, why: why.into() }
    }

    fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    /// An error of the store about `what`, as an error of this line, unless the work was cancelled.
    fn failed(&self, what: &str, e: &walt_images::Error) -> Error {
        if e.is_cancelled() { Error::Cancelled } else { self.wrong(format!("{what}: {e}")) }
    }

    fn view(&self) -> Result<&Arc<View>> {
        self.source.as_ref().ok_or_else(|| self.wrong("there is nothing to copy from"))
    }

    /// The entries that match a path with wildcards.
    fn items(&self, path: &str) -> Result<Vec<Item>> {
        let view = self.view()?;
        let mut found: BTreeMap<Vec<u8>, u32> = BTreeMap::from([(Vec::new(), view.root())]);
        for name in path.split('/').filter(|n| !n.is_empty() && *n != ".").map(str::as_bytes) {
            let mut next = BTreeMap::new();
            for (dir, number) in &found {
                if name == b".." {
                    next.insert(split(dir).0.to_vec(), view.parent(*number));
                } else if is_pattern(name) {
                    for child in view.children(*number) {
                        let found = view.name(*child);
                        if name_matches(name, found) {
                            next.insert(join(dir, found), *child);
                        }
                    }
                } else if let Some(child) = view.resolve(&join(dir, name)) {
                    next.insert(join(dir, name), child);
                }
            }
            if next.len() > MAX_MATCHES {
                return Err(self.wrong(format!("'{path}' matches more than {MAX_MATCHES} files")));
            }
            found = next;
        }
        let excluded = Patterns::of(self.copy.exclude.iter().map(String::as_bytes));
        let mut items = Vec::new();
        for (at, number) in found {
            if excluded.matches(&at) {
                continue;
            }
            // A link that is named as a source is followed.
            let real = view.resolve(&at).unwrap_or(number);
            let name = match (self.copy.parents, is_dir(view, real)) {
                (true, _) => below_pivot(path, &at),
                (false, true) => Vec::new(),
                (false, false) => split(&at).1.to_vec(),
            };
            items.push(Item { number: real, name });
        }
        if items.is_empty() {
            let from = self.copy.from.as_ref().map_or("the context".into(), |f| format!("'{f}'"));
            return Err(self.wrong(format!("'{path}' is not in {from} (.dockerignore may exclude it)")));
        }
        Ok(items)
    }

    /// The view of a source, and the entries to copy from it.
    fn found(&self, origin: &Origin) -> Result<(Arc<View>, Vec<Item>)> {
        match origin {
            Origin::Inline(..) => Err(self.wrong("a here-document is not a file")),
            Origin::Path(path) => Ok((self.view()?.clone(), self.items(path)?)),
            Origin::Remote(remote) => {
                let fetched = self.fetched.get(remote);
                let fetched = fetched.ok_or_else(|| self.wrong("it was not fetched"))?;
                let number = fetched.view.resolve(&fetched.path);
                let number = match remote {
                    Remote::File { .. } => number,
                    // The top of the tree must be a directory, even if a link leads to a file.
                    Remote::Git { .. } => number.filter(|n| is_dir(&fetched.view, *n)),
                };
                let absent = || self.wrong(format!("the repository {} has no such directory", remote.url()));
                let item = Item { number: number.ok_or_else(absent)?, name: remote.name() };
                Ok((fetched.view.clone(), vec![item]))
            }
        }
    }

    /// Digest of everything that is copied, without times. Fetched sources count by their identity.
    pub fn digest(
        &self,
        owner: Option<(u32, u32)>,
        identities: &BTreeMap<Remote, String>,
    ) -> Result<blake3::Hash> {
        let mut hash = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(format!("{owner:?}").as_bytes());
        for origin in &self.copy.sources {
            match origin {
                Origin::Inline(name, content) => {
                    part(name.as_bytes());
                    part(content.as_bytes());
                }
                Origin::Remote(remote) => {
                    let identity = identities.get(remote);
                    part(identity.ok_or_else(|| self.wrong("it was not fetched"))?.as_bytes());
                }
                Origin::Path(path) => {
                    let view = self.view()?.clone();
                    for item in self.items(path)? {
                        part(&item.name);
                        self.walk(&view, item.number, &mut |number, name| {
                            let Some(entry) = view.entry(number) else { return Ok(()) };
                            part(name);
                            let facts = (entry.kind as u8, entry.mode, entry.uid, entry.gid, entry.rdev);
                            part(format!("{facts:?}").as_bytes());
                            part(entry.target);
                            for (name, value) in self.xattrs(&view, number)? {
                                part(&name);
                                part(&value);
                            }
                            if entry.kind == Kind::File {
                                let file =
                                    view.open(number).map_err(|e| self.unreadable(&view, number, e))?;
                                let digest = file_digest(&file, entry.size)
                                    .map_err(|e| self.unreadable(&view, number, e))?;
                                part(digest.as_bytes());
                            }
                            Ok(())
                        })?;
                    }
                }
            }
        }
        Ok(hash.finalize())
    }

    fn unreadable(&self, view: &View, number: u32, e: io::Error) -> Error {
        let path = PathBuf::from("/").join(as_path(&view.path(number)));
        walt_images::Error::Io { what: "read", path, source: e }.into()
    }

    fn xattrs(&self, view: &View, number: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        view.xattrs(number).map_err(|e| self.unreadable(view, number, e))
    }

    /// Visits an entry and everything below it, with names relative to it. Excluded entries are skipped.
    fn walk(&self, view: &View, top: u32, visit: &mut dyn FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        let excluded = Patterns::of(self.copy.exclude.iter().map(String::as_bytes));
        let start = view.path(top);
        let mut pending = vec![(top, Vec::new())];
        while let Some((number, name)) = pending.pop() {
            if !name.is_empty() && (excluded.matches(&name) || excluded.matches(&join(&start, &name))) {
                continue;
            }
            cancel::check()?;
            visit(number, &name)?;
            for child in view.children(number).iter().rev() {
                pending.push((*child, join(&name, view.name(*child))));
            }
        }
        Ok(())
    }

    /// Copies everything to its destination.
    pub fn apply(&self, composer: &mut Composer<'_>) -> Result<()> {
        let owner = self.owner(composer.view())?;
        let (uid, gid) = owner.unwrap_or_default();
        let made =
            Meta { mode: DIR_MODE, uid, gid, mtime: Time { sec: self.now, nsec: 0 }, xattrs: Vec::new() };
        let dest = self.copy.dest.as_bytes();
        let directory = dest.ends_with(b"/");
        let real = composer.resolve(dest, Last::Follow)?;
        if directory || self.copy.parents {
            self.dirs(composer, &real, &made)?;
        }
        // Hard links within one source are kept.
        let mut linked = BTreeMap::new();
        for origin in &self.copy.sources {
            match origin {
                Origin::Inline(name, content) => {
                    let to = self.file_place(composer, &real, directory, name.as_bytes(), &made)?;
                    let mode = self.mode(INLINE_MODE, false);
                    let meta = Meta { mode, ..made.clone() };
                    let mut bytes = content.as_bytes();
                    self.check_not_directory(composer, &to)?;
                    composer.put_file(&to, &meta, content.len() as u64, &mut bytes)?;
                }
                Origin::Path(_) | Origin::Remote(_) => {
                    let unpack =
                        self.copy.unpack.unwrap_or(self.copy.add && matches!(origin, Origin::Path(_)));
                    let (view, items) = self.found(origin)?;
                    // The same numbers mean other files in another view.
                    let mut own = BTreeMap::new();
                    let linked = if matches!(origin, Origin::Path(_)) { &mut linked } else { &mut own };
                    for item in items {
                        let place = Destination { dest: &real, directory, made: &made, owner, unpack };
                        self.put(composer, &view, &item, &place, linked)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The owner in `--chown`, by the accounts of the new image.
    pub fn owner(&self, view: &View) -> Result<Option<(u32, u32)>> {
        match &self.copy.chown {
            None => Ok(None),
            Some(text) => Accounts::of(view).owner(text).map(Some).map_err(|why| self.wrong(why)),
        }
    }

    fn dirs(&self, composer: &mut Composer<'_>, path: &[u8], made: &Meta) -> Result<()> {
        composer.make_dirs(path, made).map_err(|e| self.failed("the destination", &e))
    }

    /// Where a file goes: into the destination if that is a directory.
    fn file_place(
        &self,
        composer: &mut Composer<'_>,
        dest: &[u8],
        directory: bool,
        name: &[u8],
        made: &Meta,
    ) -> Result<Vec<u8>> {
        let inside = directory || self.copy.parents || composer.kind(dest) == Some(Kind::Dir);
        if inside && name.is_empty() {
            return Err(self.wrong(NAMELESS));
        }
        let to = match inside {
            true => composer.resolve(&[b"/", dest, b"/", name].concat(), Last::Keep)?,
            false => dest.to_vec(),
        };
        self.dirs(composer, split(&to).0, made)?;
        Ok(to)
    }

    /// Refuses to put a file in the place of a directory.
    fn check_not_directory(&self, composer: &Composer<'_>, to: &[u8]) -> Result<()> {
        match composer.kind(to) {
            Some(Kind::Dir) => {
                let to = String::from_utf8_lossy(to);
                Err(self.wrong(format!("a file cannot replace the directory /{to}")))
            }
            _ => Ok(()),
        }
    }

    fn put(
        &self,
        composer: &mut Composer<'_>,
        view: &Arc<View>,
        item: &Item,
        place: &Destination<'_>,
        linked: &mut BTreeMap<u32, Vec<u8>>,
    ) -> Result<()> {
        let Destination { dest, directory, made, owner, unpack } = *place;
        let Some(entry) = view.entry(item.number) else { return Ok(()) };
        if entry.kind != Kind::Dir {
            if entry.kind == Kind::File && unpack {
                let file = view.open(item.number).map_err(|e| self.unreadable(view, item.number, e))?;
                let shown = String::from_utf8_lossy(&item.name).into_owned();
                match archive::archive(file, &item.name).map_err(|e| self.unreadable(view, item.number, e))? {
                    archive::Content::Tar(mut tar) => {
                        self.extract(composer, &mut tar, dest, made, owner)?;
                        if tar.has_trailing_data() {
                            self.note(format!("'{shown}': data after the end of the archive is ignored"));
                        }
                        return Ok(());
                    }
                    archive::Content::File(Some(why)) => {
                        self.note(format!("'{shown}' is copied and not unpacked: {why}"));
                    }
                    archive::Content::File(None) => {}
                }
            }
            let to = self.file_place(composer, dest, directory, &item.name, made)?;
            return self.put_one(composer, view, item.number, &to, owner, linked);
        }
        let top = match item.name.is_empty() {
            true => dest.to_vec(),
            false => composer.resolve(&[b"/", dest, b"/", item.name.as_slice()].concat(), Last::Follow)?,
        };
        self.dirs(composer, split(&top).0, made)?;
        self.dirs(composer, &top, made)?;
        let mut tree: Vec<(u32, Vec<u8>)> = Vec::new();
        self.walk(view, item.number, &mut |number, name| {
            if !name.is_empty() {
                tree.push((number, name.to_vec()));
            }
            Ok(())
        })?;
        for (number, name) in tree {
            let at = [b"/", top.as_slice(), b"/", name.as_slice()].concat();
            let is_dir = is_dir(view, number);
            let mut to = composer.resolve(&at, Last::Keep)?;
            if is_dir && composer.kind(&to) == Some(Kind::Symlink) {
                to = composer.resolve(&at, Last::Follow)?;
            }
            if is_dir && !matches!(composer.kind(&to), None | Some(Kind::Dir)) {
                let to = String::from_utf8_lossy(&to);
                return Err(self.wrong(format!("a directory cannot replace the file /{to}")));
            }
            self.put_one(composer, view, number, &to, owner, linked)?;
        }
        Ok(())
    }

    fn put_one(
        &self,
        composer: &mut Composer<'_>,
        view: &Arc<View>,
        number: u32,
        to: &[u8],
        owner: Option<(u32, u32)>,
        linked: &mut BTreeMap<u32, Vec<u8>>,
    ) -> Result<()> {
        let Some(entry) = view.entry(number) else { return Ok(()) };
        let (uid, gid) = match (owner, &self.copy.from) {
            (Some(owner), _) => owner,
            (None, Some(_)) => (entry.uid, entry.gid),
            (None, None) => (0, 0),
        };
        let mode = self.mode(entry.mode, entry.kind == Kind::Dir);
        let xattrs = self.xattrs(view, number)?;
        let meta = Meta { mode, uid, gid, mtime: entry.mtime, xattrs };
        if entry.kind == Kind::Dir {
            return Ok(composer.put_dir(to, &meta)?);
        }
        self.check_not_directory(composer, to)?;
        if entry.nlink > 1 {
            if let Some(first) = linked.get(&entry.fileid) {
                return Ok(composer.put_link(to, first)?);
            }
            linked.insert(entry.fileid, to.to_vec());
        }
        match entry.kind {
            Kind::File => {
                let file = view.open(number).map_err(|e| self.unreadable(view, number, e))?;
                composer.put_content(to, &meta, entry.size, &file)?;
            }
            Kind::Symlink => composer.put_symlink(to, &meta, entry.target)?,
            kind => composer.put_node(to, &meta, kind, entry.rdev)?,
        }
        Ok(())
    }

    /// The new mode of an entry that has `mode` at its source.
    fn mode(&self, mode: u32, directory: bool) -> u32 {
        self.copy.chmod.as_ref().map_or(mode, |chmod| chmod.of(mode, directory))
    }

    fn extract(
        &self,
        composer: &mut Composer<'_>,
        tar: &mut dyn Read,
        dest: &[u8],
        made: &Meta,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        self.dirs(composer, dest, made)?;
        let mut edit = |header: &mut walt_tar::Header| {
            if let Some((uid, gid)) = owner {
                (header.uid, header.gid) = (uid, gid);
            }
            header.mode = self.mode(header.mode, header.kind == walt_tar::Type::Dir);
            // The top of the archive is the destination, which stays unchanged.
            Ok(!header.path.is_empty())
        };
        composer.extract(tar, dest, &mut edit, &mut |_| ()).map_err(|e| self.failed("the archive", &e))
    }
}

fn is_dir(view: &View, number: u32) -> bool {
    view.entry(number).is_some_and(|e| e.kind == Kind::Dir)
}

/// With `--parents`: the part of a found path behind the pivot `/./` of the pattern.
fn below_pivot(pattern: &str, found: &[u8]) -> Vec<u8> {
    let Some((before, _)) = pattern.split_once("/./") else { return found.to_owned() };
    let skip = before.split('/').filter(|n| !n.is_empty() && *n != ".").count();
    found.split(|b| *b == b'/').skip(skip).collect::<Vec<_>>().join(&b'/')
}

#[cfg(test)]
mod tests;
