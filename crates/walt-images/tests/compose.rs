//! Layers made of entries on top of a view, against a plain directory in which the same is done, and against GNU tar.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

mod tree;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev};
use std::{
    ffi::OsStr,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use tree::{Tree, differences, tree_of_dir, tree_of_view};
use walt_images::{Composed, Composer, Kind, Last, Meta, Result, Store, Time, View};
use walt_types::DiffId;

/// Random cases; each makes up to three layers, and packs and unpacks the result.
const CASES: u32 = 20;
const NAMES: [&[u8]; 7] = [b"a", b"b", b"link", b"x y\n\"'", b"\xff\xfe", b"-n", &[b'l'; 200]];

/// Something put or removed; paths are resolved first, as far as they lead through links.
#[derive(Debug, Clone)]
enum Change {
    File(Vec<u8>, Meta, u32),
    Dir(Vec<u8>, Meta),
    Dirs(Vec<u8>, Meta),
    Symlink(Vec<u8>, Meta, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Device(Vec<u8>, Meta, u8),
    Remove(Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![5 => 0..3usize, 1 => 0..NAMES.len()];
    prop::collection::vec(name, 1..4)
        .prop_map(|parts| parts.iter().map(|i| NAMES[*i]).collect::<Vec<_>>().join(&b'/'))
}

fn meta() -> impl Strategy<Value = Meta> {
    let mtime = (-5i64..2_000_000_000, 0u32..1_000_000_000);
    (0u32..0o10000, 0u32..70_000, mtime, any::<bool>()).prop_map(|(mode, uid, (sec, nsec), attribute)| Meta {
        mode,
        uid,
        gid: uid / 2,
        mtime: Time { sec, nsec },
        xattrs: if attribute { vec![(b"trusted.walt".to_vec(), b"a\0=\n".to_vec())] } else { Vec::new() },
    })
}

fn change() -> impl Strategy<Value = Change> {
    let target = prop_oneof![
        path(),
        path().prop_map(|p| [b"../".as_slice(), &p].concat()),
        path().prop_map(|p| [b"/".as_slice(), &p].concat())
    ];
    prop_oneof![
        4 => (path(), meta(), 0u32..20_000).prop_map(|(p, m, n)| Change::File(p, m, n)),
        3 => (path(), meta()).prop_map(|(p, m)| Change::Dir(p, m)),
        3 => (path(), meta()).prop_map(|(p, m)| Change::Dirs(p, m)),
        2 => (path(), meta(), target).prop_map(|(p, m, t)| Change::Symlink(p, m, t)),
        3 => (path(), path()).prop_map(|(p, q)| Change::Link(p, q)),
        1 => (path(), meta(), 1u8..9).prop_map(|(p, m, n)| Change::Device(p, m, n)),
        3 => path().prop_map(Change::Remove),
    ]
}

/// Bytes of a file: some with a hole.
fn bytes(n: u32) -> Vec<u8> {
    let mut bytes = vec![n as u8; n as usize];
    if n.is_multiple_of(3) && n > 16_000 {
        bytes[4096..12288].fill(0);
    }
    bytes
}

/// Makes the change in a composer; `Ok(None)` if it does not apply. Gives the path it was made at.
fn compose(composer: &mut Composer, change: &Change) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let parent_is_dir = |c: &Composer, path: &[u8]| {
        let dir = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at]);
        c.kind(dir) == Some(Kind::Dir)
    };
    let (Change::File(p, ..)
    | Change::Dir(p, _)
    | Change::Dirs(p, _)
    | Change::Symlink(p, ..)
    | Change::Link(_, p)
    | Change::Device(p, ..)
    | Change::Remove(p)) = change;
    let Ok(at) = composer.resolve(p, Last::Keep) else { return Ok(None) };
    if at.is_empty() || !matches!(change, Change::Dirs(..)) && !parent_is_dir(composer, &at) {
        return Ok(None);
    }
    let mut other = Vec::new();
    match change {
        Change::File(_, meta, n) => composer.put_file(&at, meta, u64::from(*n), &mut bytes(*n).as_slice())?,
        Change::Dir(_, meta) => composer.put_dir(&at, meta)?,
        Change::Dirs(_, meta) => {
            if composer.make_dirs(&at, meta).is_err() {
                return Ok(None);
            }
        }
        Change::Symlink(_, meta, target) => composer.put_symlink(&at, meta, target)?,
        Change::Device(_, meta, n) => composer.put_node(&at, meta, Kind::Char, (1, u32::from(*n)))?,
        Change::Remove(_) => drop(composer.remove(&at)?),
        Change::Link(from, _) => {
            let Ok(from) = composer.resolve(from, Last::Keep) else { return Ok(None) };
            if composer.put_link(&at, &from).is_err() {
                return Ok(None);
            }
            other = from;
        }
    }
    Ok(Some((at, other)))
}

/// Does the same in a directory.
fn make(root: &Path, change: &Change, at: &[u8], other: &[u8]) {
    let path = root.join(OsStr::from_bytes(at));
    let is_dir = |p: &Path| p.symlink_metadata().is_ok_and(|m| m.is_dir());
    let clear = |p: &Path| if is_dir(p) { fs::remove_dir_all(p).unwrap() } else { drop(fs::remove_file(p)) };
    let dress = |p: &Path, meta: &Meta| {
        std::os::unix::fs::lchown(p, Some(meta.uid), Some(meta.gid)).unwrap();
        let _ = rustix::fs::lremovexattr(p, "trusted.walt");
        for (name, value) in &meta.xattrs {
            rustix::fs::lsetxattr(p, OsStr::from_bytes(name), value, XattrFlags::empty()).unwrap();
        }
        if !p.is_symlink() {
            fs::set_permissions(p, fs::Permissions::from_mode(meta.mode)).unwrap();
        }
        touch(p, meta.mtime.sec, meta.mtime.nsec);
    };
    // A directory keeps its time when something is put into it.
    let parents: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|p| p.starts_with(root)).map(PathBuf::from).collect();
    let times: Vec<_> = parents.iter().filter_map(|p| Some((p, p.symlink_metadata().ok()?))).collect();
    match change {
        Change::File(_, meta, n) => {
            clear(&path);
            fs::write(&path, bytes(*n)).unwrap();
            dress(&path, meta);
        }
        Change::Dir(_, meta) => {
            if !is_dir(&path) {
                clear(&path);
                fs::create_dir(&path).unwrap();
            }
            dress(&path, meta);
        }
        Change::Dirs(_, meta) => {
            let missing = path.ancestors().take_while(|p| !is_dir(p)).collect::<Vec<_>>();
            fs::create_dir_all(&path).unwrap();
            missing.iter().for_each(|p| dress(p, meta));
        }
        Change::Symlink(_, meta, target) => {
            clear(&path);
            std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).unwrap();
            dress(&path, meta);
        }
        Change::Device(_, meta, n) => {
            clear(&path);
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(1, u32::from(*n)))
                .unwrap();
            dress(&path, meta);
        }
        Change::Remove(_) => clear(&path),
        Change::Link(..) if at == other => {}
        Change::Link(..) => {
            clear(&path);
            let from = root.join(OsStr::from_bytes(other));
            rustix::fs::linkat(CWD, &from, CWD, &path, AtFlags::empty()).unwrap();
        }
    }
    for (path, meta) in times {
        touch(path, meta.mtime(), meta.mtime_nsec() as u32);
    }
}

fn touch(path: &Path, sec: i64, nsec: u32) {
    let time = Timespec { tv_sec: sec, tv_nsec: i64::from(nsec) };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

struct State {
    _dir: tempfile::TempDir,
    store: Store,
    /// A layer with nothing but the root, and the directory it was made of.
    base: DiffId,
    plain: PathBuf,
}

fn state() -> State {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let plain = dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let tar = Command::new("tar").arg("-C").arg(&plain).args(["--format=pax", "-c", "."]).output().unwrap();
    let base = store.import_tar(tar.stdout.as_slice()).unwrap().diff_id;
    State { _dir: dir, store, base, plain }
}

fn finish(state: &State, composer: Composer, layers: &mut Vec<DiffId>) -> Arc<View> {
    if let Composed::Layer(info) = composer.finish().unwrap() {
        layers.push(info.diff_id);
    }
    state.store.view(layers, None).unwrap()
}

fn pack(view: &View, number: u32, name: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    view.pack(number, name, &mut tar, &mut |_| ()).unwrap();
    tar.extend(walt_tar::END);
    tar
}

fn extract(state: &State, tar: &[u8], into: &[u8]) -> Arc<View> {
    let mut layers = vec![state.base];
    let view = state.store.view(&layers, None).unwrap();
    let mut composer = state.store.compose(&view).unwrap();
    composer.extract(&mut &tar[..], into, &mut |_| Ok(true), &mut |_| ()).unwrap();
    finish(state, composer, &mut layers)
}

/// Overlayfs splits a group of names when a file of a lower layer is linked to or replaced; a plain directory does not.
fn without_links(mut tree: Tree) -> Tree {
    tree.links.clear();
    tree
}

fn check(steps: &[Vec<Change>]) -> std::result::Result<(), TestCaseError> {
    let state = state();
    let mut layers = vec![state.base];
    let mut view = state.store.view(&layers, None).unwrap();
    for (i, step) in steps.iter().enumerate() {
        let mut composer = state.store.compose(&view).unwrap();
        for change in step {
            if let Some((at, other)) = compose(&mut composer, change).unwrap() {
                make(&state.plain, change, &at, &other);
            }
        }
        view = finish(&state, composer, &mut layers);
        let (ours, plain) = (tree_of_view(&view), tree_of_dir(&state.plain));
        let (ours, plain) = if i == 0 { (ours, plain) } else { (without_links(ours), without_links(plain)) };
        prop_assert!(ours == plain, "composed, plain: {}", differences(&ours, &plain));
    }
    let ours = tree_of_view(&view);
    // Out as a tar: GNU tar unpacks the same tree.
    let tar = pack(&view, view.root(), b"");
    let unpacked = state._dir.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut gnu = Command::new("tar")
        .args([
            "-x",
            "-p",
            "--warning=no-timestamp",
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-C",
        ])
        .arg(&unpacked)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    gnu.stdin.take().unwrap().write_all(&tar).unwrap();
    prop_assert!(gnu.wait().unwrap().success());
    let without_root = |mut tree: Tree| {
        tree.paths.remove(b"".as_slice());
        tree
    };
    let (a, b) = (without_root(ours), without_root(tree_of_dir(&unpacked)));
    prop_assert!(a == b, "view, GNU tar: {}", differences(&a, &b));
    // In again: ours, and what GNU tar makes of the tree.
    let again = without_root(tree_of_view(&extract(&state, &tar, b"")));
    prop_assert!(a == again, "packed, extracted: {}", differences(&a, &again));
    let gnu = Command::new("tar")
        .arg("-C")
        .arg(&unpacked)
        .args(["--format=pax", "--xattrs", "--xattrs-include=*", "-S", "-c", "."])
        .output()
        .unwrap();
    prop_assert!(gnu.status.success());
    // GNU tar does not see that two names are one device.
    let mut a = a;
    a.links.retain(|names| names.iter().all(|n| a.paths[n].kind != Kind::Char));
    let again = without_root(tree_of_view(&extract(&state, &gnu.stdout, b"")));
    prop_assert!(a == again, "GNU tar, extracted: {}", differences(&a, &again));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn a_composed_layer_shows_what_a_directory_would(steps in prop::collection::vec(prop::collection::vec(change(), 3..25), 1..4)) {
        check(&steps)?;
    }
}

fn simple(mode: u32) -> Meta {
    Meta { mode, mtime: Time { sec: 1000, nsec: 5 }, ..Meta::default() }
}

#[test]
fn what_is_put_again_as_it_was_is_no_change() {
    let state = state();
    let mut layers = vec![state.base];
    let view = state.store.view(&layers, None).unwrap();
    let fill = |composer: &mut Composer| {
        composer.put_dir(b"d", &simple(0o750)).unwrap();
        composer.put_file(b"d/f", &simple(0o600), 3, &mut &b"abc"[..]).unwrap();
        composer.put_link(b"d/g", b"d/f").unwrap();
    };
    let names = |view: &View| view.entry(view.find(b"d/f").unwrap()).unwrap().nlink;
    let mut composer = state.store.compose(&view).unwrap();
    fill(&mut composer);
    let view = finish(&state, composer, &mut layers);
    assert_eq!(layers.len(), 2);

    let mut composer = state.store.compose(&view).unwrap();
    fill(&mut composer);
    assert!(composer.remove(b"gone").is_ok_and(|was| !was));
    assert_eq!(composer.finish().unwrap(), Composed::Unchanged);

    // The same content as a file of its own is a change: it was two names of one file.
    let mut composer = state.store.compose(&view).unwrap();
    composer.put_file(b"d/f", &simple(0o600), 3, &mut &b"abc"[..]).unwrap();
    let split = finish(&state, composer, &mut layers);
    assert_eq!((names(&view), names(&split)), (2, 1));
    layers.pop();

    // Removed and made again: a directory that hides the old one, and all of its files in the layer.
    let mut composer = state.store.compose(&view).unwrap();
    composer.remove(b"d").unwrap();
    assert_eq!(composer.kind(b"d/f"), None);
    fill(&mut composer);
    let after = finish(&state, composer, &mut layers);
    assert_eq!(layers.len(), 3);
    assert!(after.find(b"d/f").is_some(), "a file that equals a hidden one is part of the layer");
    assert_eq!(tree_of_view(&after), tree_of_view(&view));

    // A composer that is dropped leaves nothing behind.
    let mut composer = state.store.compose(&view).unwrap();
    fill(&mut composer);
    drop(composer);
    assert_eq!(fs::read_dir(state._dir.path().join("state/images/tmp")).unwrap().count(), 0);
}

#[test]
fn what_a_source_cannot_tell_is_kept_from_below() {
    let state = state();
    let mut layers = vec![state.base];
    let view = state.store.view(&layers, None).unwrap();
    let capability = (b"security.capability".to_vec(), [&b"\x01\0\0\x02\0\x04"[..], &[0; 14]].concat());
    let rich = Meta { xattrs: vec![capability.clone()], ..simple(0o755) };
    let mut composer = state.store.compose(&view).unwrap();
    composer
        .put_dir(b"d", &Meta { xattrs: vec![(b"user.d".to_vec(), b"x".to_vec())], ..simple(0o755) })
        .unwrap();
    for name in [&b"d/same"[..], b"d/mode", b"d/other"] {
        composer.put_file(name, &rich, 3, &mut &b"abc"[..]).unwrap();
    }
    let view = finish(&state, composer, &mut layers);
    // A source with whole seconds and without attributes, as busybox' tar on a node.
    let coarse = |mode| Meta { mtime: Time { sec: 1000, nsec: 0 }, ..simple(mode) };
    let mut composer = state.store.compose(&view).unwrap();
    composer.put_dir(b"d", &coarse(0o755)).unwrap();
    for (name, mode, text) in
        [(&b"d/same"[..], 0o755, b"abc"), (b"d/mode", 0o700, b"abc"), (b"d/other", 0o755, b"xyz")]
    {
        composer.put_file(name, &coarse(mode), 3, &mut &text[..]).unwrap();
    }
    composer.keep_from_below().unwrap();
    let after = finish(&state, composer, &mut layers);
    let seen = |path: &[u8]| {
        let number = after.find(path).unwrap();
        let entry = after.entry(number).unwrap();
        (entry.mode, entry.mtime.nsec, after.xattrs(number).unwrap().len())
    };
    assert_eq!(seen(b"d/same"), (0o755, 5, 1));
    assert_eq!(seen(b"d/mode"), (0o700, 5, 1), "a change of the mode leaves the capability");
    assert_eq!(seen(b"d/other"), (0o755, 0, 0), "other content has none");
    assert_eq!(after.xattrs(after.find(b"d").unwrap()).unwrap().len(), 1);
    assert_eq!(
        state.store.layer_info(&layers[2]).unwrap().entries,
        3,
        "unchanged entries are not part of the layer"
    );
}

#[test]
fn paths_lead_through_links_inside_the_tree() {
    let state = state();
    let mut layers = vec![state.base];
    let view = state.store.view(&layers, None).unwrap();
    let mut composer = state.store.compose(&view).unwrap();
    composer.make_dirs(b"usr/bin", &simple(0o755)).unwrap();
    for (link, target) in [
        ("bin", "usr/bin"),
        ("abs", "/usr"),
        ("up", "../../.."),
        ("loop", "loop"),
        ("usr/self", "../usr/bin/.."),
    ] {
        composer.put_symlink(link.as_bytes(), &simple(0), target.as_bytes()).unwrap();
    }
    let view = finish(&state, composer, &mut layers);
    let mut composer = state.store.compose(&view).unwrap();
    let resolve = |c: &Composer, path: &str, last| {
        c.resolve(path.as_bytes(), last).map(|p| String::from_utf8(p).unwrap())
    };
    for (path, real) in [
        ("/bin/x", "usr/bin/x"),
        ("abs/bin//./x", "usr/bin/x"),
        ("up/up/bin", "usr/bin"),
        ("../../usr", "usr"),
        ("usr/self/self/bin", "usr/bin"),
        ("new/x", "new/x"),
        ("new/../bin/x", "usr/bin/x"),
        ("", ""),
        ("/", ""),
    ] {
        assert_eq!(resolve(&composer, path, Last::Follow).unwrap(), real, "{path}");
    }
    assert_eq!(resolve(&composer, "bin", Last::Keep).unwrap(), "bin");
    assert!(
        resolve(&composer, "loop", Last::Follow).unwrap_err().to_string().contains("too many symbolic links")
    );
    composer.put_file(b"usr/bin/f", &simple(0o755), 1, &mut &b"x"[..]).unwrap();
    assert!(resolve(&composer, "bin/f/y", Last::Follow).unwrap_err().to_string().contains("not a directory"));
    // A directory of a tar over a link to a directory is merged with what the link leads to.
    let from = state.plain.join("bin");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("tool"), "t").unwrap();
    let tar = Command::new("tar").arg("-C").arg(&state.plain).args(["-c", "bin"]).output().unwrap();
    composer.extract(&mut tar.stdout.as_slice(), b"", &mut |_| Ok(true), &mut |_| ()).unwrap();
    let view = finish(&state, composer, &mut layers);
    assert!(view.find(b"usr/bin/tool").is_some() && view.find(b"usr/bin/f").is_some());
    assert_eq!(view.entry(view.find(b"bin").unwrap()).unwrap().kind, Kind::Symlink);
}

#[test]
fn files_with_holes_stay_so_in_every_format() {
    let state = state();
    let path = state.plain.join("holes");
    let mut file = fs::File::create(&path).unwrap();
    for at in 0..120u64 {
        file.seek(SeekFrom::Start(at * 3_000_000 + 17)).unwrap();
        file.write_all(&[at as u8 + 1; 5000]).unwrap();
    }
    file.set_len(400_000_001).unwrap();
    drop(file);
    let used = path.metadata().unwrap().blocks();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax"],
    ] {
        let tar = Command::new("tar")
            .arg("-C")
            .arg(&state.plain)
            .args(format)
            .args(["-S", "-c", "holes"])
            .output()
            .unwrap();
        assert!(tar.stdout.len() < 2_000_000, "{format:?}");
        let view = extract(&state, &tar.stdout, b"");
        let number = view.find(b"holes").unwrap();
        let kept = view.open(number).unwrap().metadata().unwrap();
        assert_eq!(kept.len(), 400_000_001);
        assert!(kept.blocks() <= used + 8, "{format:?}: {} of {used} blocks", kept.blocks());
        let tar = pack(&view, number, b"again");
        assert!(tar.len() < 2_000_000);
        let out = Command::new("tar")
            .arg("-C")
            .arg(&state.plain)
            .args(["-x", "-f", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn();
        let mut out = out.unwrap();
        out.stdin.take().unwrap().write_all(&tar).unwrap();
        assert!(out.wait().unwrap().success());
        let same = Command::new("cmp").arg(&path).arg(state.plain.join("again")).status().unwrap();
        assert!(same.success(), "{format:?}");
        assert!(state.plain.join("again").metadata().unwrap().blocks() <= used + 8);
    }
}
