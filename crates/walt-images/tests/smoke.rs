//! The store on one small image: import, view, platform layer, commit, export, garbage collection.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
    process::Command,
};
use walt_images::*;

/// Test state on the disk's own file system.
fn state() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let out = Command::new("tar")
        .args(["--xattrs", "--format=pax", "-C"])
        .arg(dir)
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(out.status.success());
    out.stdout
}

fn file(path: &str, bytes: &[u8]) -> NewEntry {
    NewEntry { path: path.into(), mode: 0o755, uid: 0, gid: 0, kind: NewKind::File(bytes.to_vec()) }
}

fn read(view: &View, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = view.resolve(path.as_bytes()).unwrap();
    std::io::Read::read_to_end(&mut view.open(number).unwrap(), &mut bytes).unwrap();
    bytes
}

#[test]
fn an_image_is_imported_changed_saved_and_exported() {
    let state = state();
    let store = Store::open(&state.path().join("state")).unwrap();
    let source = state.path().join("source");
    fs::create_dir_all(source.join("usr/bin")).unwrap();
    fs::create_dir_all(source.join("etc")).unwrap();
    fs::create_dir_all(source.join("tmp")).unwrap();
    std::os::unix::fs::symlink("usr/bin", source.join("bin")).unwrap();
    fs::write(source.join("usr/bin/tool"), "tool").unwrap();
    fs::hard_link(source.join("usr/bin/tool"), source.join("usr/bin/other")).unwrap();
    fs::write(source.join("etc/hostname"), "vm").unwrap();
    let tar = tar_of(&source);
    let base = store.import_tar(tar.as_slice()).unwrap();
    assert_eq!(store.import_tar(tar.as_slice()).unwrap(), base, "again");
    let zipped = zstd::encode_all(tar.as_slice(), 1).unwrap();
    assert_eq!(store.import_tar(zipped.as_slice()).unwrap(), base, "compressed");
    let mut out = Vec::new();
    store.export_layer(&base.diff_id, &mut out).unwrap();
    assert!(out == tar);

    let image = store.view(&[base.diff_id], None).unwrap();
    let whiteout = NewEntry { kind: NewKind::Whiteout, ..file("etc/hostname", b"") };
    let platform = store
        .build_layer(vec![file("bin/walt-env", b"#!"), file("etc/a", b"p"), whiteout], Some(&image))
        .unwrap();
    let view = store.view(&[base.diff_id], Some(&platform.diff_id)).unwrap();
    assert_eq!(read(&view, "/bin/walt-env"), b"#!");
    assert_eq!(read(&view, "bin/tool"), b"tool");
    assert!(view.resolve(b"etc/hostname").is_none());
    let number = view.resolve(b"usr/bin/tool").unwrap();
    assert_eq!(image.resolve(b"usr/bin/tool"), Some(number), "image numbers do not depend on the platform");
    assert!(view.resolve(b"etc/a").unwrap() >= image.len());
    assert_eq!(view.entry(number).unwrap().nlink, 2);
    assert_eq!(view.path(number), b"usr/bin/tool");
    let again = Store::open(&state.path().join("state")).unwrap();
    assert_eq!(again.view_by_id(view.id()).unwrap().resolve(b"usr/bin/tool"), Some(number));

    // A session in which the system started and only `exit` was typed.
    let session = store.sessions_dir().join("s1/layer");
    let upper = store.prepare_upper(&session, &view).unwrap();
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::write(upper.join("etc/machine-id"), "1234").unwrap();
    fs::write(upper.join("etc/a"), "p").unwrap();
    fs::set_permissions(upper.join("etc/a"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(upper.join("persist")).unwrap();
    let prepared = store.prepare_commit(&session, &view, &SaveRules::standard()).unwrap();
    assert!(matches!(&prepared, Prepared::Unchanged { left_out } if left_out.len() == 5), "{prepared:?}");

    // And one with a change.
    fs::write(upper.join("etc/new"), "new").unwrap();
    let Prepared::Layer { info, .. } = store.prepare_commit(&session, &view, &SaveRules::standard()).unwrap()
    else {
        panic!("nothing changed")
    };
    store.adopt_layer(&session, &info.diff_id).unwrap();
    store.adopt_layer(&session, &info.diff_id).unwrap();
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..Default::default() };
    config.push_layer(&base.diff_id, History::default());
    config.push_layer(
        &info.diff_id,
        History { created_by: Some("walt image shell".into()), ..Default::default() },
    );
    let id = store.put_config(&config).unwrap();
    assert_eq!(store.config(&id).unwrap(), config);
    let view = store.view(&config.layers().unwrap(), Some(&platform.diff_id)).unwrap();
    assert_eq!(read(&view, "etc/new"), b"new");
    assert!(view.resolve(b"etc/machine-id").is_none());

    let mut live = Live { images: HashSet::from([id]), ..Default::default() };
    let found = store.audit(&live).unwrap();
    let orphans: Vec<_> = found.findings.iter().map(|f| (f.fault, f.object.to_string())).collect();
    let of = |object: Object| (Fault::Orphan, object.to_string());
    let views =
        [*store.view(&[base.diff_id], Some(&platform.diff_id)).unwrap().id(), *image.id(), *view.id()];
    let mut expected = vec![of(Object::Layer(platform.diff_id)), of(Object::Session("s1".into()))];
    expected.extend(views.map(|v| of(Object::View(v))));
    assert_eq!(BTreeSet::from_iter(orphans), BTreeSet::from_iter(expected));
    assert_eq!(store.verify(&found, &mut |_| {}), []);
    let report = store.remove_unreferenced(&live).unwrap();
    assert_eq!((report.images, report.layers, report.sessions), (0, 1, 1), "{report:?}");
    live.images.clear();
    let report = store.remove_unreferenced(&live).unwrap();
    assert_eq!((report.images, report.layers), (1, 2));
}
