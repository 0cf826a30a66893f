use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn packed(path: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut watch = Watch { progress: &mut |_| (), note: &mut |_| () };
    let packing = Packing { name: b"top", dialect: Dialect::Pax, owner: None, changing: false };
    pack(path, &packing, &mut tar, &mut |_, _| true, &mut watch).unwrap();
    tar.extend(crate::END);
    tar
}

fn unpacked(tar: &[u8], dir: &Path, name: Option<&str>) -> Result<(), LocalError> {
    let mut watch = Watch { progress: &mut |_| (), note: &mut |_| () };
    let target = Target { dir, name: name.map(OsStr::new), top: b"top" };
    unpack(&mut &tar[..], &target, &mut watch)
}

fn entry(kind: Type, path: &str, link: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header { kind, path: path.into(), link: link.into(), mode: 0o644, ..Header::file(0) };
    write_header_as(&mut bytes, &header, Dialect::Pax);
    bytes
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let from = room.path().join("from");
    let odd = from.join(OsStr::from_bytes(b"-odd \n\"'\xff"));
    std::fs::create_dir_all(&odd).unwrap();
    std::fs::write(odd.join("f"), "content").unwrap();
    std::fs::hard_link(odd.join("f"), from.join("g")).unwrap();
    symlink("nowhere/at all", from.join("link")).unwrap();
    std::fs::set_permissions(odd.join("f"), PermissionsExt::from_mode(0o640)).unwrap();
    let file = File::create(from.join("holes")).unwrap();
    file.set_len(300_000_000).unwrap();
    std::fs::set_permissions(&odd, PermissionsExt::from_mode(0o500)).unwrap();
    fs::setxattr(from.join("g"), "user.walt", b"a\0b", XattrFlags::empty()).unwrap();
    let tar = packed(&from);
    assert!(tar.len() < 100_000, "holes are not sent");
    unpacked(&tar, room.path(), Some("to")).unwrap();
    let to = room.path().join("to");
    let diff = std::process::Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(&from)
        .arg(&to)
        .output()
        .unwrap();
    assert!(diff.status.success(), "{diff:?}");
    let meta = |dir: &Path, path: &Path| {
        let meta = dir.join(path.strip_prefix(&from).unwrap()).symlink_metadata().unwrap();
        (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.nlink())
    };
    for path in [&odd, &odd.join("f"), &from.join("g"), &from.join("link"), &from.join("holes")] {
        assert_eq!(meta(&from, path), meta(&to, path), "{path:?}");
    }
    assert_eq!(xattrs(&to.join("g"), false).unwrap(), [(b"user.walt".to_vec(), b"a\0b".to_vec())]);
    assert!(to.join("holes").metadata().unwrap().blocks() < 100);
    // Once more over itself: merged, and the same again.
    unpacked(&tar, room.path(), Some("to")).unwrap();
    unpacked(&tar, &to, None).unwrap();
    assert_eq!(std::fs::read(to.join("g")).unwrap(), b"content");
}

#[test]
fn nothing_is_written_outside() {
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let (inside, outside) = (room.path().join("inside"), room.path().join("outside"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "s").unwrap();
    let out = outside.display().to_string();
    let tar = |entries: &[Vec<u8>]| [entries.concat(), crate::END.to_vec()].concat();
    let dir = entry(Type::Dir, "top", "");
    for (entries, why) in [
        (
            vec![dir.clone(), entry(Type::Symlink, "top/l", &out), entry(Type::File, "top/l/x", "")],
            "open directory",
        ),
        (vec![dir.clone(), entry(Type::HardLink, "top/h", "outside/secret")], "outside of what is copied"),
        (vec![dir.clone(), entry(Type::HardLink, "top/h", "top/../../outside/secret")], "'..'"),
        (vec![dir.clone(), entry(Type::File, "top/../x", "")], "'..'"),
        (vec![entry(Type::File, "other", "")], "outside of what is copied"),
        (
            vec![
                dir.clone(),
                entry(Type::Symlink, "top/l", &out),
                entry(Type::HardLink, "top/h", "top/l/secret"),
            ],
            "open directory",
        ),
    ] {
        let error = unpacked(&tar(&entries), &inside, Some("t")).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    // A link that was there is replaced, not followed.
    symlink(outside.join("secret"), inside.join("f")).unwrap();
    unpacked(&tar(&[entry(Type::File, "top", "")]), &inside, Some("f")).unwrap();
    assert!(!inside.join("f").is_symlink());
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    // What breaks off leaves the old file, and nothing half.
    std::fs::write(inside.join("kept"), "old").unwrap();
    let mut long = packed(&inside.join("kept"));
    long.truncate(600);
    assert!(unpacked(&long[..514], &inside, Some("kept")).is_err());
    assert_eq!(std::fs::read(inside.join("kept")).unwrap(), b"old");
    let names = std::fs::read_dir(&inside).unwrap().map(|e| e.unwrap().file_name());
    assert!(names.into_iter().all(|n| !n.as_bytes().starts_with(b".walt")));
}

#[test]
fn files_that_change_are_packed_as_far_as_they_go() {
    use std::cell::{Cell, RefCell};
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let from = room.path().join("from");
    std::fs::create_dir(&from).unwrap();
    for name in ["a", "b", "gone"] {
        std::fs::write(from.join(name), format!("content of {name}")).unwrap();
    }
    std::fs::hard_link(from.join("gone"), from.join("gone-too")).unwrap();
    let notes = RefCell::new(Vec::new());
    let packing = Packing { name: b"top", dialect: Dialect::Pax, owner: None, changing: true };
    let mut tar = Vec::new();
    let mut watch = Watch { progress: &mut |_| (), note: &mut |text| notes.borrow_mut().push(text) };
    let first = Cell::new(true);
    // When the directory has been listed, one of its files goes.
    let mut keep = |_: &[u8], _: bool| {
        if first.take() {
            std::fs::remove_file(from.join("b")).unwrap();
        }
        true
    };
    pack(&from, &packing, &mut tar, &mut keep, &mut watch).unwrap();
    tar.extend(crate::END);
    assert_eq!(
        notes.borrow().as_slice(),
        [format!("{} vanished while it was copied", from.join("b").display())]
    );
    unpacked(&tar, room.path(), Some("to")).unwrap();
    let to = room.path().join("to");
    assert!(to.join("a").exists() && !to.join("b").exists());
    assert_eq!(std::fs::read_to_string(to.join("gone-too")).unwrap(), "content of gone");

    // One that became shorter after its size was read.
    let path = from.join("a");
    let (header, mut file) = (Header::file(5000), File::open(&path).unwrap());
    let mut tar = Vec::new();
    assert!(write_changing_file(&mut tar, &header, &mut file, 16, Dialect::Pax).unwrap());
    let mut input = tar.as_slice();
    let found = read_header(&mut input, &mut Vec::new()).unwrap().unwrap();
    assert_eq!((found.size, input.len()), (5000, 5120), "the entry has its length");
    assert!(input.starts_with(b"content of a\0\0"));
}
