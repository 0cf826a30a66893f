//! The file system with the files of an image that have attributes: checked by e2fsck, mounted by the kernel.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

use rustix::fs::XattrFlags;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};
use walt_images::*;

/// Makes the tree of an image, in an empty directory.
const TREE: &str = r#"
set -e
umask 022
mkdir -p usr/bin usr/bin/empty 'dir with list' large etc platform
echo plain >usr/bin/plain
cp /bin/true usr/bin/ping; chmod 4755 usr/bin/ping
echo notes >usr/bin/noted
echo odd >"$(printf 'usr/bin/G\344rten')"
head -c 70000 /dev/urandom >usr/bin/two; ln usr/bin/two 'dir with list/names'
chmod 750 'dir with list'; chown 70000:1 'dir with list'
echo listed >'dir with list/file'
mknod 'dir with list/device' c 4 70000
mkfifo 'dir with list/fifo'
truncate -s 150M large/holes; echo end >>large/holes; chmod 600 large/holes
truncate -s 65M large/noted
echo x >large/attributes
echo old >platform/file
i=0; while [ $i -lt 200 ]; do i=$((i + 1)); : >etc/a-name-that-is-long-enough-for-more-than-a-block-$i; done
"#;

/// Times, after all else.
const TIMES: &str = "
touch -d '2001-02-03 04:05:06.789012345' usr/bin/ping; touch -d '2040-01-01 00:00:00.5' usr/bin/two
touch -d '1960-01-01 00:00:00.25' etc
";

/// cap_net_raw, permitted and effective.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An access list, as the kernel shows it: tag, permissions, number.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, number) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(number.to_le_bytes());
    }
    out
}

fn set(dir: &Path, path: &[u8], name: &str, value: &[u8]) {
    let path = dir.join(OsStr::from_bytes(path));
    rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()).unwrap();
}

fn set_all(dir: &Path) {
    let none = u32::MAX;
    let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
    let one = list(&[(1, 6, none), (2, 4, 1000), (4, 4, none), (16, 4, none), (32, 0, none)]);
    let several = list(&[
        (1, 6, none),
        (2, 4, 70000),
        (2, 6, 70001),
        (4, 4, none),
        (8, 7, 4_242_424),
        (16, 7, none),
        (32, 4, none),
    ]);
    for path in ["usr/bin/ping", "usr/bin/two", "large/holes"] {
        set(dir, path.as_bytes(), "security.capability", CAPABILITY);
    }
    set(dir, b"usr/bin/ping", "user.note", b"ABC");
    set(dir, b"usr/bin/ping", "user.a", b"");
    set(dir, b"usr/bin/ping", "user.odd", b"\0\xff\0\x80\x81");
    set(dir, b"usr/bin/noted", "user.containers.override_stat", b"0:0");
    set(dir, b"usr/bin/G\xe4rten", "user.note", b"A");
    set(dir, b"large/noted", "user.note", b"A");
    set(dir, b"large/attributes", "user.long", &[b'x'; 3000]);
    set(dir, b"large/attributes", "security.capability", CAPABILITY);
    set(dir, b"large/attributes", "user.longer", &[b'x'; 1000]);
    set(dir, b"platform/file", "user.note", b"A");
    set(dir, b"dir with list", access, &several);
    set(dir, b"dir with list", default, &several);
    for path in ["dir with list/file", "dir with list/device", "dir with list/fifo"] {
        set(dir, path.as_bytes(), access, &one);
    }
    for number in 1..=200 {
        let path = format!("etc/a-name-that-is-long-enough-for-more-than-a-block-{number}");
        set(dir, path.as_bytes(), access, &one);
    }
}

/// Everything about an object but how many names a directory has.
fn look(dir: &Path, path: &Path) -> String {
    let path = dir.join(path);
    let meta = fs::symlink_metadata(&path).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
    let mut attributes: Vec<String> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = [0; 4096];
            let length = rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            format!("{}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    attributes.sort();
    let of_file = if meta.is_file() {
        let sum = run("sha256sum", &[], &path, true);
        format!("{} {} {}", meta.nlink(), meta.size(), String::from_utf8_lossy(&sum))
    } else {
        String::new()
    };
    let (time, nsec) = (meta.mtime(), meta.mtime_nsec());
    format!(
        "{:o} {} {} {} {time}.{nsec} {attributes:?} {of_file}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.rdev()
    )
}

/// In a directory; or with a file as its input.
fn run(program: &str, arguments: &[&str], at: &Path, input: bool) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments);
    if input {
        command.stdin(fs::File::open(at).unwrap())
    } else {
        command.current_dir(at)
    };
    let ran = command.output().unwrap();
    let said = [&ran.stdout[..], &ran.stderr].map(String::from_utf8_lossy).concat();
    assert!(ran.status.success(), "{program} {arguments:?}: {said}");
    ran.stdout
}

/// Unmounted when it is dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn files_with_attributes_are_a_file_system() {
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(&state.path().join("state")).unwrap();
    let (source, at) = (state.path().join("source"), state.path().join("at"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&at).unwrap();
    run("sh", &["-c", TREE], &source, false);
    set_all(&source);
    run("sh", &["-c", TIMES], &source, false);
    let tar = "tar --format=pax --sort=name --xattrs --xattrs-include='*' --numeric-owner -c .";
    let mut tar =
        Command::new("sh").args(["-c", tar]).current_dir(&source).stdout(Stdio::piped()).spawn().unwrap();
    let layer = store.import_tar(tar.stdout.take().unwrap()).unwrap();
    assert!(tar.wait().unwrap().success());
    let view = store.view(&[layer.diff_id], None).unwrap();
    let entry =
        |path: &str, mode, kind| (path.into(), NewEntry { path: path.into(), mode, uid: 7, gid: 0, kind });
    let platform = BTreeMap::from([
        entry("platform", 0o700, NewKind::Dir),
        entry("platform/file", 0o644, NewKind::File(b"new".to_vec())),
        entry("usr/bin", 0o711, NewKind::Dir),
    ]);
    let attributed = Attributed::of(&view, &platform).unwrap();
    let left: Vec<_> = attributed.omitted().iter().map(|(why, path)| (*why, path.as_slice())).collect();
    let wanted: [(Omission, &[u8]); 2] =
        [(Omission::Size, b"large/noted"), (Omission::Attributes, b"large/attributes")];
    assert_eq!(left, wanted);
    let kind = NewKind::Attributed(Arc::new(attributed));
    let entry = NewEntry { path: b"files".into(), mode: 0o600, uid: 0, gid: 0, kind };
    let made = store.build_layer(vec![entry.clone()], None).unwrap();
    assert_eq!(store.build_layer(vec![entry], None).unwrap(), made, "the same gives the same");
    let files = store.layer_fs(&made.diff_id).join("files");
    let blocks = fs::metadata(&files).unwrap().blocks() * 512;
    assert!(blocks < 16 << 20, "holes stay holes: {blocks}");

    let (file, mount) = (files.to_str().unwrap(), at.to_str().unwrap());
    run("e2fsck", &["-fn", file], &at, false);
    run("mount", &["-t", "ext4", "-o", "ro,loop", file, mount], &at, false);
    let mounted = Mounted(&at);
    let list = run("find", &[".", "-print0"], &at, false);
    let paths: Vec<&Path> =
        list.split(|b| *b == 0).filter(|p| !p.is_empty()).map(|p| Path::new(OsStr::from_bytes(p))).collect();
    assert_eq!(paths.len(), 14 + 200);
    for path in paths {
        if path == Path::new("./usr/bin") {
            assert!(look(&at, path).starts_with("40711 7 0 "), "as the platform has it");
        } else {
            assert_eq!(look(&at, path), look(&source, path), "{}", path.display());
        }
    }
    drop(mounted);
}

#[test]
fn an_image_without_attributes_costs_nothing() {
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(&state.path().join("state")).unwrap();
    let file =
        NewEntry { path: b"a".into(), mode: 0o644, uid: 0, gid: 0, kind: NewKind::File(b"a".to_vec()) };
    let layer = store.build_layer(vec![file], None).unwrap();
    let view = store.view(&[layer.diff_id], None).unwrap();
    let attributed = Attributed::of(&view, &BTreeMap::new()).unwrap();
    assert!(attributed.is_empty() && attributed.omitted().is_empty());
}
