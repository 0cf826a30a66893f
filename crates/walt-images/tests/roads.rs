//! One tree by three roads: the kernel's overlay mount, the view, and the exported OCI layers unpacked by umoci. And what
//! `squash` makes of it is the same tree, and `diff` reports the differences.
//!
//! Random changes are made through an overlay mount and committed, several layers high. Compared are path, type, mode,
//! owner, size, content, time (ns), device numbers, extended attributes without overlayfs' own, and the sets of names
//! that share an inode; never the link count, which the kernel keeps stale in a merged directory. Renaming a lower
//! directory is refused by the kernel with our options (EXDEV) and then simply does not happen, on every road.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

mod tree;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};
use tree::{Seen, Tree, differences, tree_of_dir, tree_of_view};
use walt_images::{Change as Told, History, ImageConfig, Kind, Prepared, SaveRules, Store, View, diff};

/// Random cases; each mounts, commits and unpacks up to four layers.
const CASES: u32 = 24;
const LONG: &str = "a-very-long-name-that-does-not-fit-into-the-hundred-bytes-that-a-ustar-header-has-for-names-so-that-pax-is-needed";
const NAMES: [&[u8]; 8] = [b"a", b"b", b"a-b", b"dir", b"x y\n", "\u{e9}".as_bytes(), b"-n", LONG.as_bytes()];

#[derive(Debug, Clone)]
enum Change {
    File(Vec<u8>, u16),
    Append(Vec<u8>),
    Sparse(Vec<u8>),
    Dir(Vec<u8>),
    Remove(Vec<u8>),
    Replace(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Symlink(Vec<u8>, Vec<u8>),
    Mode(Vec<u8>, u32),
    Owner(Vec<u8>, u32),
    Xattr(Vec<u8>, u8),
    Device(Vec<u8>, u8),
    Fifo(Vec<u8>),
    Touch(Vec<u8>, i64, u32),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    // Few names most of the time, so that changes meet what others made.
    let name = prop_oneof![5 => 0..2usize, 1 => 0..NAMES.len()];
    prop::collection::vec(name, 1..4)
        .prop_map(|parts| parts.iter().map(|i| NAMES[*i]).collect::<Vec<_>>().join(&b'/'))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (path(), any::<u16>()).prop_map(|(p, n)| Change::File(p, n)),
        4 => path().prop_map(Change::Dir),
        1 => path().prop_map(Change::Append),
        1 => path().prop_map(Change::Sparse),
        3 => path().prop_map(Change::Remove),
        2 => path().prop_map(Change::Replace),
        2 => (path(), path()).prop_map(|(p, q)| Change::Rename(p, q)),
        3 => (path(), path()).prop_map(|(p, q)| Change::Link(p, q)),
        1 => (path(), path()).prop_map(|(p, q)| Change::Symlink(p, q)),
        1 => (path(), 0u32..0o10000).prop_map(|(p, m)| Change::Mode(p, m)),
        1 => (path(), prop_oneof![0u32..2000, Just(3_000_000)]).prop_map(|(p, u)| Change::Owner(p, u)),
        1 => (path(), any::<u8>()).prop_map(|(p, n)| Change::Xattr(p, n)),
        1 => (path(), 1u8..9).prop_map(|(p, n)| Change::Device(p, n)),
        1 => path().prop_map(Change::Fifo),
        1 => (path(), -5i64..2_000_000_000, 0u32..1_000_000_000).prop_map(|(p, s, n)| Change::Touch(p, s, n)),
    ]
}

/// Makes one change; one that does not apply to the tree as it is does nothing.
fn make(root: &Path, change: &Change) {
    let at = |path: &[u8]| root.join(OsStr::from_bytes(path));
    let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_dir());
    let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_symlink());
    // A change through a symbolic link could leave the tree.
    let through_link = |path: &[u8]| {
        let mut at = root.to_owned();
        path.split(|b| *b == b'/').any(|part| {
            at.push(OsStr::from_bytes(part));
            is_link(&at)
        })
    };
    let remove = |path: &Path| if is_dir(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    let node = |path: &[u8], kind, dev| {
        let mode = Mode::from_raw_mode(0o640);
        let _ = rustix::fs::mknodat(CWD, at(path), kind, mode, dev);
    };
    match change {
        Change::File(p, n) if !through_link(p) && !at(p).exists() => {
            let _ = fs::write(at(p), vec![*n as u8; usize::from(*n)]);
        }
        Change::Append(p) if !through_link(p) && at(p).is_file() => {
            let mut file = fs::OpenOptions::new().append(true).open(at(p)).unwrap();
            file.write_all(b"more").unwrap();
        }
        Change::Sparse(p) if !through_link(p) && !at(p).exists() => {
            if let Ok(mut file) = fs::File::create(at(p)) {
                file.seek(SeekFrom::Start(3_000_000)).unwrap();
                file.write_all(b"x").unwrap();
                file.set_len(5_000_001).unwrap();
            }
        }
        Change::Dir(p) if !through_link(p) => drop(fs::create_dir(at(p))),
        Change::Remove(p) if !through_link(p) || is_link(&at(p)) => drop(remove(&at(p))),
        Change::Replace(p) if !through_link(p) && at(p).exists() => {
            let was_dir = is_dir(&at(p));
            remove(&at(p)).unwrap();
            match (was_dir, p.len() % 4) {
                (true, 0) => fs::write(at(p), "was a directory").unwrap(),
                // A directory in the place of one is opaque.
                (true, _) => fs::create_dir(at(p)).unwrap(),
                (false, _) => fs::create_dir(at(p)).unwrap(),
            }
        }
        Change::Rename(p, q) if !through_link(p) && !through_link(q) => drop(fs::rename(at(p), at(q))),
        Change::Link(p, q) if !through_link(p) && !through_link(q) => drop(fs::hard_link(at(p), at(q))),
        Change::Symlink(p, q) if !through_link(q) => {
            drop(std::os::unix::fs::symlink(OsStr::from_bytes(p), at(q)));
        }
        Change::Mode(p, m) if !through_link(p) => {
            drop(fs::set_permissions(at(p), fs::Permissions::from_mode(*m)));
        }
        Change::Owner(p, u) => drop(std::os::unix::fs::lchown(at(p), Some(*u), Some(u / 2))),
        Change::Xattr(p, n) if !through_link(p) && (at(p).is_file() || is_dir(&at(p))) => {
            let name = if n % 2 == 0 { "user.walt" } else { "trusted.walt" };
            rustix::fs::lsetxattr(at(p), name, &[*n, 0, b'\n', b'='], XattrFlags::empty()).unwrap();
        }
        Change::Device(p, n) => node(p, FileType::CharacterDevice, makedev(1, u32::from(*n))),
        Change::Fifo(p) => node(p, FileType::Fifo, 0),
        Change::Touch(p, s, n) => {
            let time = Timespec { tv_sec: *s, tv_nsec: i64::from(*n) };
            let times = Timestamps { last_access: time, last_modification: time };
            let _ = rustix::fs::utimensat(CWD, at(p), &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        _ => {}
    }
}

/// An overlay mount that ends with its scope.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(store: &Store, layers: &[walt_types::DiffId], upper: &Path, work: &Path, at: &Path) -> Self {
        fs::create_dir_all(work).unwrap();
        fs::create_dir_all(at).unwrap();
        let lowers: Vec<_> = layers.iter().rev().map(|l| store.layer_fs(l).display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=nofollow,metacopy=off,index=off,xino=off",
            lowers.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "overlay",
            at,
            "overlay",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::empty()).unwrap();
    }
}

fn same(a: &Tree, b: &Tree, roads: &str) -> Result<(), TestCaseError> {
    prop_assert!(a == b, "{roads}: {}", differences(a, b));
    Ok(())
}

/// `diff` reports the paths that differ, each once, and no others.
fn told(old: &View, new: &View) -> Result<(), TestCaseError> {
    let (a, b) = (tree_of_view(old).paths, tree_of_view(new).paths);
    let timeless = |seen: Option<&Seen>| {
        seen.cloned().map(|s| if s.kind == Kind::Dir { Seen { mtime: (0, 0), ..s } } else { s })
    };
    let wanted: BTreeSet<Vec<u8>> = a
        .keys()
        .chain(b.keys())
        .filter(|path| timeless(a.get(*path)) != timeless(b.get(*path)))
        .cloned()
        .collect();
    let mut found = Vec::new();
    diff(old, new, &mut |difference| {
        found.push(difference);
        true
    })
    .unwrap();
    for difference in &found {
        let (before, after) = (a.contains_key(&difference.path), b.contains_key(&difference.path));
        let right = match difference.change {
            Told::Added => !before && after,
            Told::Deleted => before && !after,
            Told::Changed(_) => before && after,
        };
        prop_assert!(right, "{difference:?}");
    }
    let paths: Vec<Vec<u8>> = found.into_iter().map(|d| d.path).collect();
    let set: BTreeSet<Vec<u8>> = paths.iter().cloned().collect();
    prop_assert_eq!(set.len(), paths.len());
    prop_assert_eq!(set, wanted);
    Ok(())
}

fn roads(steps: &[Vec<Change>]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = dir.path();
    let store = Store::open(&dir.join("state")).unwrap();
    let empty = dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let tar = Command::new("tar").arg("-C").arg(&empty).args(["-c", "."]).output().unwrap();
    let base = store.import_tar(tar.stdout.as_slice()).unwrap();
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..Default::default() };
    config.push_layer(&base.diff_id, History::default());
    let mount_point = dir.join("mnt");
    let mut live = tree_of_dir(&empty);
    for (i, step) in steps.iter().enumerate() {
        let layers = config.layers().unwrap();
        let lower = store.view(&layers, None).unwrap();
        let session = store.sessions_dir().join(i.to_string());
        let upper = store.prepare_upper(&session.join("layer"), &lower).unwrap();
        {
            let overlay = Overlay::mount(&store, &layers, &upper, &session.join("work"), &mount_point);
            step.iter().for_each(|change| make(&overlay.0, change));
            live = tree_of_dir(&overlay.0);
        }
        match store.prepare_commit(&session.join("layer"), &lower, &SaveRules::exact()).unwrap() {
            Prepared::Unchanged { .. } => {
                same(&live, &tree_of_view(&lower), "live, view below an unchanged session")?
            }
            Prepared::Layer { info, .. } => {
                store.adopt_layer(&session.join("layer"), &info.diff_id).unwrap();
                config.push_layer(&info.diff_id, History::default());
                // At once: the next session is made over this layer, and would hide what it got wrong.
                let view = store.view(&config.layers().unwrap(), None).unwrap();
                same(&live, &tree_of_view(&view), "live mount, view of the commit")?;
                told(&lower, &view)?;
            }
        }
    }
    let layers = config.layers().unwrap();
    let view = store.view(&layers, None).unwrap();
    same(&live, &tree_of_view(&view), "live mount, view")?;
    let reopened = Store::open(&dir.join("state")).unwrap();
    same(&live, &tree_of_view(&reopened.view_by_id(view.id()).unwrap()), "live mount, loaded view")?;

    let session = store.sessions_dir().join("last");
    let upper = store.prepare_upper(&session.join("layer"), &view).unwrap();
    {
        let overlay = Overlay::mount(&store, &layers, &upper, &session.join("work"), &mount_point);
        same(&live, &tree_of_dir(&overlay.0), "live mount, mount of the layers")?;
    }

    layers_twice(&store, &layers, dir)?;

    let flat = store.squash(&view).unwrap();
    let flat = store.view(&[flat.diff_id], None).unwrap();
    same(&live, &tree_of_view(&flat), "live mount, view of the squashed layer")?;
    told(&view, &flat)?;

    // A change whose layer had no room: those below are squashed after it was made on them.
    if let [below @ .., top] = layers.as_slice()
        && !below.is_empty()
    {
        let below = store.squash(&store.view(below, None).unwrap()).unwrap();
        let changed = store.view(&[below.diff_id, *top], None).unwrap();
        same(&live, &tree_of_view(&changed), "live mount, view of the last change on a squashed layer")?;
    }

    let image = store.put_config(&config).unwrap();
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    store.export_oci_layout(&image, "test", &layout).unwrap();
    let mut umoci = Command::new("umoci");
    let output =
        umoci.arg("unpack").arg("--image").arg(format!("{}:test", layout.display())).arg(&bundle).output();
    let output = output.unwrap();
    prop_assert!(output.status.success(), "umoci: {}", String::from_utf8_lossy(&output.stderr));
    same(&live, &tree_of_dir(&bundle.join("rootfs")), "live mount, umoci")?;

    // A second store takes the exported layers in and gives the same bytes.
    let second = Store::open(&dir.join("second")).unwrap();
    for layer in &layers {
        let mut tar = Vec::new();
        store.export_layer(layer, &mut tar).unwrap();
        let info = second.import_tar(tar.as_slice()).unwrap();
        prop_assert_eq!(info.diff_id, *layer);
        let mut again = Vec::new();
        second.export_layer(layer, &mut again).unwrap();
        prop_assert!(again == tar);
    }
    second.put_config(&config).unwrap();
    let imported = second.view(&layers, None).unwrap();
    same(&live, &tree_of_view(&imported), "live mount, view of imported layers")
}

/// An image that has each layer twice or more, in several orders: what a container sees is what a node sees.
fn layers_twice(store: &Store, layers: &[walt_types::DiffId], dir: &Path) -> Result<(), TestCaseError> {
    let reversed: Vec<_> = layers.iter().rev().copied().collect();
    for (i, orders) in [[layers, &reversed, layers], [&reversed, layers, &reversed]].iter().enumerate() {
        let layers = orders.concat();
        let view = store.view(&layers, None).unwrap();
        let base = store.sessions_dir().join(format!("twice-{i}"));
        store.prepare_upper(&base.join("layer"), &view).unwrap();
        let target = dir.join("mnt");
        fs::create_dir(base.join("work")).unwrap();
        walt_sys::mount::overlay(&walt_sys::mount::Overlay {
            lowers: layers.iter().rev().map(|layer| store.layer_fs(layer)).collect(),
            base,
            upper: "layer/fs".into(),
            work: "work".into(),
            target: target.clone(),
            ids: None,
        })
        .unwrap();
        let mounted = Overlay(target);
        same(&tree_of_dir(&mounted.0), &tree_of_view(&view), "mount, view of layers that are there twice")?;
    }
    Ok(())
}

/// The cases that random trees reach too seldom to count on.
#[test]
fn known_hard_cases() {
    let p = |path: &str| path.as_bytes().to_vec();
    let lower = vec![
        Change::Dir(p("dir")),
        Change::File(p("dir/old"), 10),
        Change::Dir(p("dir/sub")),
        Change::File(p("dir/sub/deep"), 0),
        Change::File(p("a"), 700),
        Change::Link(p("a"), p("b")),
        Change::Link(p("a"), p("dir/a")),
        Change::Xattr(p("a"), 2),
        Change::Sparse(p("-n")),
        Change::Symlink(p("nowhere"), p("x y\n")),
    ];
    let upper = vec![
        // Opaque: an odd length makes a directory again.
        Change::Replace(p("dir")),
        Change::File(p("dir/new"), 3),
        // Splits the group of three names.
        Change::Append(p("b")),
        Change::Replace(p("-n")),
        Change::Remove(p("x y\n")),
    ];
    let third = vec![Change::Remove(p("dir")), Change::File(p("dir"), 5), Change::Remove(p("a"))];
    let fourth = vec![Change::Remove(p("dir")), Change::Dir(p("dir")), Change::Touch(p("dir"), -3, 5)];
    roads(&[lower, upper, third, fourth]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn three_roads_show_one_tree(steps in prop::collection::vec(prop::collection::vec(change(), 5..40), 1..5)) {
        roads(&steps)?;
    }
}
