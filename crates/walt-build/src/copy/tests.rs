//! Names of what is copied.

use super::*;
use std::path::Path;
use walt_images::{Composed, NewEntry, NewKind, Store};

/// Names in ISO-8859-1 that would be one name if they were read as UTF-8.
const NAMES: [&[u8]; 3] = [b"G\xe4rten.txt", b"G\xf6rten.txt", b"G\xfcrten.txt"];

fn store(dir: &Path) -> (Store, Arc<View>) {
    let store = Store::open(dir).unwrap();
    let file = |name: &&[u8]| NewEntry {
        path: [b"d/\xff/", *name].concat(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        kind: NewKind::File(name.to_vec()),
    };
    let layer = store.build_layer(NAMES.iter().map(file).collect(), None).unwrap().diff_id;
    let view = store.view(&[layer], None).unwrap();
    (store, view)
}

/// What a `COPY` to `/w/` makes in an empty image.
fn copied(from: Option<&str>, source: &str, parents: bool, exclude: &[&str]) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (store, source_view) = store(dir.path());
    let empty = store.build_layer(Vec::new(), None).unwrap().diff_id;
    let view = store.view(&[empty], None).unwrap();
    let copy = Copy {
        add: false,
        from: from.map(str::to_owned),
        sources: vec![Origin::Path(source.to_owned())],
        dest: "/w/".into(),
        chown: None,
        chmod: None,
        link: false,
        parents,
        exclude: exclude.iter().map(|e| (*e).to_owned()).collect(),
        unpack: None,
        checksum: None,
    };
    let fetched = BTreeMap::new();
    let copier = Copier {
        line: 1,
        copy: &copy,
        source: Some(source_view),
        fetched,
        now: 0,
        notes: RefCell::default(),
    };
    let mut composer = store.compose(&view).unwrap();
    copier.apply(&mut composer).unwrap();
    let Composed::Layer(info) = composer.finish().unwrap() else { panic!("nothing was copied") };
    let made = store.view(&[empty, info.diff_id], None).unwrap();
    let mut all = Vec::new();
    for number in 0..made.len() {
        if made.entry(number).is_some_and(|e| e.kind == Kind::File) {
            let mut text = Vec::new();
            made.open(number).unwrap().read_to_end(&mut text).unwrap();
            let path = made.path(number);
            assert_eq!(split(&path).1, text, "each has its own content");
            all.push(path);
        }
    }
    all.sort();
    all
}

fn below(dir: &[u8], names: &[&[u8]]) -> Vec<Vec<u8>> {
    names.iter().map(|name| [dir, name].concat()).collect()
}

#[test]
fn names_are_bytes() {
    for from in [None, Some("stage")] {
        assert_eq!(copied(from, "d/*/*.txt", false, &[]), below(b"w/", &NAMES));
        assert_eq!(copied(from, "d", false, &[]), below(b"w/\xff/", &NAMES));
        assert_eq!(copied(from, "d/?/G?rten*", false, &[]), below(b"w/", &NAMES));
        assert_eq!(copied(from, "d/?/../?/*", true, &[]), below(b"w/d/\xff/", &NAMES));
    }
    assert_eq!(copied(None, "./d/./*/*.txt", true, &[]), below(b"w/\xff/", &NAMES));
    assert_eq!(copied(None, "d/*/*", false, &["**/G\u{fffd}*", "d/\u{fffd}"]), below(b"w/", &NAMES));
}
