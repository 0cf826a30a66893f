//! Squashes the layers of an image into one: on request, or because a change would exceed the limit.
//!
//! Files are not copied: the new layer has hard links to the files of the old ones. Layers are never written to, so
//! neither can change the other, and either one can be removed first.

use crate::{
    History, ImageConfig, cancel,
    error::{Context, Error, Result},
    layer::{
        disk::{Place, Root},
        scan::{Attributes, Kind, scan},
        skeleton::LayerInfo,
        write::write_layer,
    },
    store::{MAX_FOREIGN_LAYERS, MAX_LAYERS, Store},
    view::View,
};
use rustix::fs::{AtFlags, Mode};
use std::{collections::HashMap, fs};
use walt_tar::paths::{as_path, split};
use walt_types::{DiffId, ImageId};

impl ImageConfig {
    /// Whether the image has as many layers as it can have.
    pub fn is_full(&self) -> bool {
        self.rootfs.diff_ids.len() >= MAX_LAYERS
    }

    /// Replaces the layers of the image with `layer`, which holds the same tree. The history stays; its entries do
    /// not refer to layers any more.
    pub fn set_squashed(&mut self, layer: &DiffId, history: History) {
        self.history.iter_mut().flatten().for_each(|h| h.empty_layer = Some(true));
        self.rootfs.diff_ids.clear();
        self.push_layer(layer, history);
    }

    /// Like [`ImageConfig::set_squashed`], for a change that would have exceeded the limit. The time is RFC 3339.
    pub fn set_squashed_for_room(&mut self, layer: &DiffId, time: Option<String>) {
        let why = format!("(the layers below were squashed: an image can have {MAX_LAYERS})");
        self.set_squashed(layer, History { created: time, created_by: Some(why), ..History::default() });
    }
}

impl Store {
    /// Squashes the layers in `config` if there cannot be one more, which reads all files of the image. Returns false
    /// if that was not needed. The original image is not changed.
    ///
    /// The caller must keep garbage collection away until something refers to the new layer.
    pub fn make_room(&self, config: &mut ImageConfig, time: Option<String>) -> Result<bool> {
        if !config.is_full() {
            return Ok(false);
        }
        let layer = self.squash(&*self.view(&config.layers()?, None)?)?;
        config.set_squashed_for_room(&layer.diff_id, time);
        Ok(true)
    }

    /// Stores the configuration of a foreign image whose layers are in the store: byte for byte, or squashed to one
    /// layer if it has more layers than an image can have here. The same bytes give the same image.
    ///
    /// The caller must keep garbage collection away until something refers to the image.
    pub fn put_foreign_config(&self, bytes: &[u8]) -> Result<ImageId> {
        let mut config = ImageConfig::parse(bytes)?;
        let layers = config.layers()?;
        if layers.len() <= MAX_LAYERS {
            return self.put_config_bytes(bytes);
        }
        if layers.len() > MAX_FOREIGN_LAYERS {
            return Err(Error::TooManyLayers { count: layers.len(), max: MAX_FOREIGN_LAYERS });
        }
        let layer = self.squash(&*self.view_of_any(&layers, None)?)?;
        let time = config.created.clone();
        config.set_squashed_for_room(&layer.diff_id, time);
        self.put_config(&config)
    }

    /// Makes one layer with the tree that `view` shows, including hard links and attributes. It is durable when this
    /// returns.
    pub fn squash(&self, view: &View) -> Result<LayerInfo> {
        let temporary = self.temporary()?;
        let fs_dir = temporary.path().join("fs");
        fs::create_dir(&fs_dir).on("create", &fs_dir)?;
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        // Numbers of directories, parents first.
        let mut dirs = vec![view.root()];
        let mut next = 0;
        let mut first_names: HashMap<u32, Vec<u8>> = HashMap::new();
        while let Some(&dir) = dirs.get(next) {
            next += 1;
            let to_path = view.path(dir);
            let to = root.dir(&to_path).on("open", root.show(&to_path))?;
            for &number in view.children(dir) {
                cancel::check()?;
                let (Some(entry), name) = (view.entry(number), view.name(number)) else { continue };
                let path = view.path(number);
                let what = "make the squashed layer's name";
                if entry.kind == Kind::Dir {
                    rustix::fs::mkdirat(&to, as_path(name), Mode::from_raw_mode(0o700))
                        .on(what, root.show(&path))?;
                    dirs.push(number);
                } else if let Some(first) = first_names.get(&entry.fileid) {
                    let from = root.dir(split(first).0).on("open", root.show(first))?;
                    rustix::fs::linkat(&from, as_path(split(first).1), &to, as_path(name), AtFlags::empty())
                        .on(what, root.show(&path))?;
                } else {
                    let from = view.directory_in_layer(number).on("open", root.show(&path))?;
                    rustix::fs::linkat(&from, as_path(name), &to, as_path(name), AtFlags::empty())
                        .on(what, root.show(&path))?;
                    first_names.insert(entry.fileid, path);
                }
            }
        }
        // Deepest first, since making an entry changes the time of its parent.
        for &dir in dirs.iter().rev() {
            let Some(entry) = view.entry(dir) else { continue };
            let path = view.path(dir);
            let (parent, name) = split(&path);
            let parent = root.dir(parent).on("open", root.show(&path))?;
            let place = Place { dir: &parent, name };
            let what = "set the metadata of";
            place.chown(entry.uid, entry.gid).on(what, root.show(&path))?;
            place.chmod(entry.mode).on(what, root.show(&path))?;
            for (name, value) in view.xattrs(dir).on("read the attributes of", root.show(&path))? {
                place.set_xattr(&name, &value).on(what, root.show(&path))?;
            }
            place.set_mtime(entry.mtime).on(what, root.show(&path))?;
        }
        let nodes = scan(&root, Attributes::All)?;
        let info = write_layer(temporary.path(), &root, &nodes, true)?;
        self.make_durable()?;
        cancel::check()?;
        self.adopt_layer(temporary.path(), &info.diff_id)?;
        Ok(info)
    }
}
