//! Files with holes cost what is in them, and work that nobody wants any more ends.

#![allow(clippy::unwrap_used)]

use std::{
    cell::Cell,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};
use walt_images::*;
use walt_types::DiffId;

/// Size of the file, and how long any one thing may take with it; reading its zeros takes minutes.
const SIZE: u64 = 278 << 30;
const LIMIT: Duration = Duration::from_secs(8);

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    assert!(start.elapsed() < LIMIT, "{what} took {:?}", start.elapsed());
    done
}

fn sparse(path: &Path, size: u64, parts: &[(u64, &[u8])]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    parts.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
}

const PARTS: [(u64, &[u8]); 3] = [(5, b"start"), (SIZE / 2 + 1, b"middle"), (SIZE - 3, b"end")];

/// A store with an image, whose layers are a small one and what a session has made of it.
fn with_session(make: impl Fn(&Path)) -> (tempfile::TempDir, Store, Result<Prepared>, DiffId) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let base = store.build_layer(Vec::new(), None).unwrap().diff_id;
    let view = store.view(&[base], None).unwrap();
    let layer = store.sessions_dir().join("s/layer");
    make(&store.prepare_upper(&layer, &view).unwrap());
    let prepared = timed("a commit", || store.prepare_commit(&layer, &view, &SaveRules::exact()));
    (dir, store, prepared, base)
}

fn has_parts(view: &View, path: &str) {
    let file = view.open(view.find(path.as_bytes()).unwrap()).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), SIZE);
    assert!(meta.blocks() * 512 < 8 << 20, "{path} has {} blocks", meta.blocks());
    for (at, bytes) in PARTS {
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, at).unwrap();
        assert_eq!(read, bytes);
    }
}

#[test]
fn holes_cost_nothing_wherever_a_file_goes() {
    let (dir, store, prepared, base) = with_session(|upper| sparse(&upper.join("opt/disk"), SIZE, &PARTS));
    let Prepared::Layer { info, .. } = prepared.unwrap() else { panic!("nothing changed") };
    store.adopt_layer(&store.sessions_dir().join("s/layer"), &info.diff_id).unwrap();
    assert!(info.size < 8 << 20, "{info:?}");
    let layers = [base, info.diff_id];
    let view = store.view(&layers, None).unwrap();
    has_parts(&view, "opt/disk");
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..Default::default() };
    layers.iter().for_each(|l| config.push_layer(l, History::default()));
    let image = store.put_config(&config).unwrap();

    // Published, and cloned by somebody else.
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    timed("an export", || store.export_layer(&info.diff_id, &mut packed).unwrap());
    let packed = packed.finish().unwrap();
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    let elsewhere = Store::open(other.path()).unwrap();
    let unpacked = timed("a clone", || elsewhere.unpack_layer(packed.as_slice(), &info.diff_id).unwrap());
    elsewhere.keep_layer(unpacked).unwrap();
    has_parts(&elsewhere.view(&[info.diff_id], None).unwrap(), "opt/disk");

    // Checked, compared, copied out and in, squashed.
    let live = Live { images: vec![image].into_iter().collect(), ..Live::default() };
    let look = store.audit(&live).unwrap();
    assert_eq!(timed("a check", || store.verify(&look, &mut |_| ())), []);
    let twin = elsewhere.view(&[info.diff_id], None).unwrap();
    let mut differences = Vec::new();
    timed("a comparison", || {
        diff(&twin, &view, &mut |d| {
            differences.push(d);
            true
        })
        .unwrap();
    });
    assert!(differences.iter().all(|d| d.path != b"opt/disk"), "{differences:?}");
    let mut tar = Vec::new();
    timed("a copy out", || view.pack(view.root(), b"", &mut tar, &mut |_| ()).unwrap());
    tar.extend_from_slice(&walt_tar::END);
    let copied = timed("a copy in", || {
        let mut composer = store.compose(&view).unwrap();
        composer.extract(&mut tar.as_slice(), b"new", &mut |_| Ok(true), &mut |_| ()).unwrap();
        composer.finish().unwrap()
    });
    let Composed::Layer(copied) = copied else { panic!("nothing changed") };
    let view = store.view(&[base, info.diff_id, copied.diff_id], None).unwrap();
    has_parts(&view, "new/opt/disk");
    let squashed = timed("a squash", || store.squash(&view).unwrap());
    has_parts(&store.view(&[squashed.diff_id], None).unwrap(), "opt/disk");

    // As others read the layer. Go's programs, tried once, read it too, and write gigabytes of zeros.
    let layer_tar = dir.path().join("layer.tar");
    store.export_layer(&info.diff_id, File::create(&layer_tar).unwrap()).unwrap();
    let listed = Command::new("tar").arg("-tvf").arg(&layer_tar).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&format!(" {SIZE} ")) && listed.contains(" opt/disk"), "{listed}");
}

#[test]
fn zeros_of_a_layer_become_holes() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (size, mut tar) = (64u64 << 20, Vec::new());
    walt_tar::write_header(
        &mut tar,
        &walt_tar::Header { path: b"z".to_vec(), ..walt_tar::Header::file(size) },
    );
    tar.resize(tar.len() + size as usize, 0);
    tar.extend_from_slice(&walt_tar::END);
    let layer = store.import_tar(tar.as_slice()).unwrap().diff_id;
    let file = fs::metadata(store.layer_fs(&layer).join("z")).unwrap();
    assert_eq!(file.len(), size);
    assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
    let mut back = Vec::new();
    store.export_layer(&layer, &mut back).unwrap();
    assert!(back == tar);
}

#[test]
fn logs_of_logins_are_emptied_and_what_is_too_large_is_named() {
    let (_dir, store, prepared, base) = with_session(|upper| {
        sparse(&upper.join("var/log/lastlog"), SIZE, &[(SIZE - 292, b"x")]);
        sparse(&upper.join("var/log/faillog"), 4096, &[(7, b"x")]);
    });
    let Prepared::Layer { info, left_out } = prepared.unwrap() else { panic!("nothing changed") };
    let paths: Vec<_> = left_out.iter().map(|l| l.path.as_slice()).collect();
    assert_eq!(paths, [b"var/log/lastlog"]);
    store.adopt_layer(&store.sessions_dir().join("s/layer"), &info.diff_id).unwrap();
    let view = store.view(&[base, info.diff_id], None).unwrap();
    let size = |path: &str| view.entry(view.find(path.as_bytes()).unwrap()).unwrap().size;
    assert_eq!((size("var/log/lastlog"), size("var/log/faillog")), (0, 4096));

    let (.., prepared, _) = with_session(|upper| {
        sparse(&upper.join("a/huge"), 1 << 40, &[]);
        sparse(&upper.join("z"), 4096, &[]);
    });
    let error = prepared.unwrap_err().to_string();
    assert!(error.contains("the largest is /a/huge with 1024 GiB"), "{error}");
}

#[test]
fn every_work_ends_soon_after_it_is_not_wanted() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let entry = |path: String| {
        let kind = NewKind::File(vec![7; 3 << 20]);
        NewEntry { path: path.into(), mode: 0o644, uid: 0, gid: 0, kind }
    };
    let base = store.build_layer((0..4).map(|n| entry(format!("d/{n}"))).collect(), None).unwrap().diff_id;
    let view = store.view(&[base], None).unwrap();
    let mut tar = Vec::new();
    view.pack(view.root(), b"", &mut tar, &mut |_| ()).unwrap();
    tar.extend_from_slice(&walt_tar::END);
    let layer = store.sessions_dir().join("s/layer");
    let upper = store.prepare_upper(&layer, &view).unwrap();
    fs::write(upper.join("new"), vec![1; 5 << 20]).unwrap();
    let compose = || {
        let mut composer = store.compose(&view)?;
        composer.extract(&mut tar.as_slice(), b"new", &mut |_| Ok(true), &mut |_| ())?;
        composer.finish().map(drop)
    };
    type Work<'a> = (&'a str, &'a dyn Fn() -> Result<()>);
    let works: [Work; 6] = [
        ("unpack", &|| store.import_tar(tar.as_slice()).map(drop)),
        ("commit", &|| store.prepare_commit(&layer, &view, &SaveRules::exact()).map(drop)),
        ("compose", &compose),
        ("squash", &|| store.squash(&view).map(drop)),
        ("export", &|| store.export_layer(&base, io::sink()).map(drop)),
        ("pack", &|| view.pack(view.root(), b"", &mut io::sink(), &mut |_| ())),
    ];
    let layers = || fs::read_dir(dir.path().join("images/layers")).unwrap().count();
    for (name, work) in works {
        let counted = Rc::new(Cell::new(0u32));
        let (asked, before) = (counted.clone(), layers());
        let never = move || {
            asked.set(asked.get() + 1);
            false
        };
        cancel::when(never, work).unwrap();
        let asked = counted.get();
        // A megabyte, and a file, are never passed without a look.
        assert!(asked > 16 || name == "commit" && asked > 8, "{name} looks {asked} times");
        if layers() > before {
            // What it made is there now, and would hide that a stopped one makes it, too.
            let made = Live { layers: [base].into(), ..Live::default() };
            store.remove_unreferenced(&made).unwrap();
        }
        let before = layers();
        for stop_at in [1, asked / 2, asked] {
            let left = Cell::new(stop_at);
            let error = cancel::when(
                move || {
                    left.set(left.get().saturating_sub(1));
                    left.get() == 0
                },
                work,
            )
            .unwrap_err();
            assert!(error.is_cancelled(), "{name} at {stop_at} of {asked}: {error}");
            assert_eq!(layers(), before, "{name} has left a layer");
        }
    }
    let mut told = 0;
    let stopped = cancel::when(
        || true,
        || {
            diff(&view, &view, &mut |_| {
                told += 1;
                true
            })
        },
    );
    assert!(stopped.is_err() && told == 0);
}
