//! A store in which something is wrong: each fault is found, and named, and nothing else is.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use walt_images::*;
use walt_types::ViewId;

fn file(path: &str, text: &str) -> NewEntry {
    let kind = NewKind::File(text.into());
    NewEntry { path: path.into(), mode: 0o644, uid: 0, gid: 0, kind }
}

/// A store with one image, its platform layer and view, and an open session.
struct Small {
    dir: tempfile::TempDir,
    live: Live,
    layer: walt_types::DiffId,
    view: ViewId,
    image: walt_types::ImageId,
}

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = store.build_layer(vec![file("etc/name", "small"), file("etc/more", "x")], None).unwrap();
        let base = store.view(&[layer.diff_id], None).unwrap();
        let platform = store.build_layer(vec![file("bin/env", "#!")], Some(&base)).unwrap();
        let view = *store.view(&[layer.diff_id], Some(&platform.diff_id)).unwrap().id();
        let mut config =
            ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..Default::default() };
        config.push_layer(&layer.diff_id, History::default());
        let image = store.put_config(&config).unwrap();
        fs::create_dir(dir.path().join("sessions/s1")).unwrap();
        let live = Live {
            images: [image].into(),
            layers: [platform.diff_id].into(),
            views: [view].into(),
            sessions: ["s1".to_owned()].into(),
            ..Live::default()
        };
        Self { dir, live, layer: layer.diff_id, view, image }
    }

    fn path(&self, below_images: &str) -> PathBuf {
        self.dir.path().join("images").join(below_images)
    }

    fn layer_file(&self, name: &str) -> PathBuf {
        self.path("layers").join(self.layer.to_string()).join(name)
    }

    /// All findings of a reader: object and fault, and all that is said.
    fn findings(&self) -> (Vec<(String, Fault)>, String) {
        let store = Store::open_to_read(self.dir.path());
        let look = store.audit(&self.live).unwrap();
        let mut all = look.findings.clone();
        all.extend(store.verify(&look, &mut |_| {}));
        let said = all.iter().map(|f| f.why.clone()).collect::<Vec<_>>().join("\n");
        (all.into_iter().map(|f| (f.object.to_string(), f.fault)).collect(), said)
    }

    #[track_caller]
    fn finds(&self, object: &str, fault: Fault, says: &str) {
        let (found, said) = self.findings();
        assert!(found.contains(&(object.to_owned(), fault)), "{object} is {fault:?}: {found:?} {said}");
        assert!(said.contains(says), "{says:?}: {said}");
    }
}

fn change(path: &Path, f: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    f(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_store_is_clean_and_a_reader_changes_nothing() {
    let small = Small::new();
    assert_eq!(small.findings().0, []);
    // What a server is writing is not the reader's to empty.
    fs::write(small.path("tmp/being-written"), "").unwrap();
    let path = small.path("tmp/being-written");
    small.finds(&path.display().to_string(), Fault::Orphan, "");
    assert!(path.exists());
}

#[test]
fn what_is_damaged() {
    let small = Small::new();
    let image = format!("image {}", small.image);
    change(&small.path("configs").join(format!("{}.json", small.image)), |b| b.push(b' '));
    small.finds(&image, Fault::Damaged, "its digest is wrong");

    let small = Small::new();
    let layer = format!("layer {}", small.layer);
    // The same size and times: only the digest differs.
    change(&small.layer_file("fs/etc/name"), |b| b[0] ^= 1);
    small.finds(&layer, Fault::Damaged, "its digest is not the layer's");

    let small = Small::new();
    let layer = format!("layer {}", small.layer);
    change(&small.layer_file("skeleton"), |b| b.truncate(b.len() / 2));
    small.finds(&layer, Fault::Damaged, "");

    let small = Small::new();
    let layer = format!("layer {}", small.layer);
    fs::write(small.layer_file("more"), "").unwrap();
    small.finds(&layer, Fault::Damaged, "it contains fs, implied, more, skeleton");

    let small = Small::new();
    let view = format!("view {}", small.view);
    change(&small.path("views").join(small.view.to_string()), |b| *b.last_mut().unwrap() ^= 1);
    small.finds(&view, Fault::Damaged, "its checksum is wrong");

    // The tar has the mode in the skeleton, so the digest is right: only the view shows it.
    for damage in [
        |small: &Small| {
            let mode = fs::Permissions::from_mode(0o666);
            fs::set_permissions(small.layer_file("fs/etc/name"), mode).unwrap();
        },
        |small: &Small| fs::write(small.layer_file("fs/etc/strange"), "").unwrap(),
    ] {
        let small = Small::new();
        damage(&small);
        let view = format!("view {}", small.view);
        small.finds(&view, Fault::Damaged, "does not match the files of its layers");
    }
}

#[test]
fn what_is_missing() {
    let small = Small::new();
    fs::remove_file(small.path("configs").join(format!("{}.json", small.image))).unwrap();
    small.finds(&format!("image {}", small.image), Fault::Missing, "");

    let small = Small::new();
    fs::remove_dir_all(small.layer_file("")).unwrap();
    let who = format!("needed by image {}", small.image);
    small.finds(&format!("layer {}", small.layer), Fault::Missing, &who);

    let small = Small::new();
    fs::remove_file(small.path("views").join(small.view.to_string())).unwrap();
    small.finds(&format!("view {}", small.view), Fault::Missing, "");

    let small = Small::new();
    fs::remove_dir(small.dir.path().join("sessions/s1")).unwrap();
    small.finds("session s1", Fault::Missing, "its directory is missing");
}

#[test]
fn what_nothing_needs() {
    let mut small = Small::new();
    small.live = Live::default();
    let (found, _) = small.findings();
    assert!(found.iter().all(|(_, fault)| *fault == Fault::Orphan), "{found:?}");
    // One image, two layers, the view and that of the bare image, the session.
    assert_eq!(found.len(), 6, "{found:?}");

    let small = Small::new();
    for name in ["layers/strange", "views/strange", "configs/strange.json", "blobs/strange"] {
        fs::write(small.path(name), "").unwrap();
    }
    let upper = small.layer.to_string().to_uppercase();
    fs::write(small.path("layers").join(upper), "").unwrap();
    assert_eq!(small.findings().0.len(), 5);
}

#[test]
fn a_commit_under_way_has_its_layer_in_the_session() {
    let mut small = Small::new();
    let coming = walt_types::DiffId(walt_types::Hash256([7; 32]));
    small.live.layers.insert(coming);
    small.finds(&format!("layer {coming}"), Fault::Missing, "");
    small.live.committing.push((coming, "s1".into()));
    small.finds(&format!("layer {coming}"), Fault::Missing, "");
    let dir = small.dir.path().join("sessions/s1/layer");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("skeleton"), "").unwrap();
    assert_eq!(small.findings().0, []);
}
