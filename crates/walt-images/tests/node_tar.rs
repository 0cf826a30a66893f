//! Tars for the disks of nodes: unpacked by busybox and stacked by the kernel, they show what the view shows.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used)]

mod tree;

use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tree::{Tree, differences, tree_of_dir, tree_of_view};
use walt_images::{NodeTar, NodeTarKey, Store};
use walt_types::DiffId;

/// The layers, each in a directory of its own; names as in OCI layers.
const LAYERS: &str = r#"
set -e
umask 022
mkdir -p 1/etc 1/usr/bin 1/gone 1/again/sub/deep 1/again/kept 1/merged 1/plain; cd 1
echo one >etc/one; chmod 4751 etc/one; chown 5:3000000 etc/one; ln etc/one etc/two
ln -s /etc/one etc/absolute; ln -s one etc/relative; chown -h 7:8 etc/absolute etc/relative
ln -s ../etc etc/up
mkfifo etc/fifo; mknod etc/null c 1 3; chmod 666 etc/null
echo odd >"$(printf 'etc/a\344\nb')"; echo x >gone/x; echo y >gone/y
for f in again/a again/sub/b again/sub/deep/c again/kept/d merged/e plain/f; do echo $f >$f; done
long=$(printf 'n%.0s' $(seq 200)); mkdir -p usr/$long/$long; echo deep >usr/$long/$long/file
head -c 300000 /dev/urandom >usr/bin/random; : >usr/bin/empty
chmod 750 merged; chown 12:13 merged; chmod 1777 plain
find . -type d -exec touch -d '2001-02-03 04:05:06' {} +
cd ..
mkdir -p 2/again/sub/new 2/etc; cd 2
: >again/.wh..wh..opq; echo new >again/sub/new/file; echo file >again/kept
: >.wh.gone; : >etc/.wh.two; echo second >etc/second; chmod 700 again
find . -type d -exec touch -d '2002-02-03 04:05:06' {} +
cd ..
# parents that are not listed
mkdir -p 3/merged 3/usr/bin; echo third >3/merged/third; echo third >3/usr/bin/third
tar -C 1 --format=posix --sparse --numeric-owner -cf 1.tar .
tar -C 2 --format=posix --numeric-owner -cf 2.tar .
tar -C 3 --format=posix --numeric-owner -cf 3.tar merged/third usr/bin/third
"#;

/// What node/walt-boot-modes does with a tar.
const UNPACK: &str = r#"
set -e
tar -x -f "$0" -C "$1"
cd "$1/fs"
xargs -0 -r -n 2 chown -h <../links
xargs -0 -r -n 3 sh -c '
    read -r n <../n 2>/dev/null || n=0
    skip=0
    for region in $2; do
        dd if="../data/$n" of="$0" bs=1048576 skip=$skip seek="${region%:*}" count="${region#*:}" conv=notrunc 2>/dev/null
        skip=$((skip + ${region#*:}))
    done
    dd if=/dev/null of="$0" bs=1 seek="$1" count=0 2>/dev/null && echo $((n + 1)) >../n' <../sparse
cd ..
tar -x -f dirs
"#;

const SEAL: &str = r#"
cd "$0/fs"
{
    xargs -0 -r stat -c '%f %u %g %N' <../entries
    xargs -0 -r cat <../files
    xargs -0 -r -n 3 sh -c 'for region in $2; do
        dd if="$0" bs=1048576 skip="${region%:*}" count="${region#*:}" 2>/dev/null; done' <../sparse
} | sha256sum
"#;

fn busybox(script: &str, words: &[&Path]) -> String {
    let ran = Command::new("busybox").args(["sh", "-c", script]).args(words).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn store(dir: &Path) -> (Store, Vec<DiffId>) {
    let made = Command::new("sh").args(["-c", LAYERS]).current_dir(dir).status().unwrap();
    assert!(made.success());
    let store = Store::open(&dir.join("state")).unwrap();
    let mut layers = Vec::new();
    for tar in ["1.tar", "2.tar", "3.tar"] {
        let unpacked = store.unpack_tar(fs::File::open(dir.join(tar)).unwrap()).unwrap();
        layers.push(unpacked.info().diff_id);
        store.keep_layers(vec![unpacked], &layers).unwrap();
    }
    (store, layers)
}

/// All bytes of a tar, read in pieces of this size.
fn bytes(store: &Store, tar: &NodeTar, offset: u64, piece: usize) -> Vec<u8> {
    let mut reader = store.open_node_tar(&tar.key, offset).unwrap();
    let mut all = Vec::new();
    loop {
        let bytes = reader.read(piece).unwrap();
        if bytes.is_empty() {
            return all;
        }
        all.extend(bytes);
    }
}

fn unpack(store: &Store, tar: &NodeTar, dir: &Path) -> PathBuf {
    let file = dir.join(format!("{}.tar", tar.key));
    fs::write(&file, bytes(store, tar, 0, 100_000)).unwrap();
    let to = dir.join(tar.key.to_string());
    fs::create_dir(&to).unwrap();
    busybox(UNPACK, &[&file, &to]);
    to
}

/// What a node cannot have: attributes, parts of seconds; and times and hard links of symbolic links.
fn as_on_a_node(mut tree: Tree) -> Tree {
    for seen in tree.paths.values_mut() {
        seen.xattrs.clear();
        seen.mtime.1 = 0;
        if seen.kind == walt_images::Kind::Symlink {
            seen.mtime.0 = 0;
        }
    }
    // The root shows the upper directory.
    tree.paths.remove(b"".as_slice());
    tree
}

#[test]
fn a_node_sees_what_the_view_shows() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (store, layers) = store(dir.path());
    assert_eq!(store.node_tar(&layers).unwrap(), None);
    let tars: Vec<NodeTar> = (1..=3).map(|n| store.make_node_tar(&layers[..n]).unwrap()).collect();
    let mut unpacked = Vec::new();
    for (n, tar) in tars.iter().enumerate() {
        assert_eq!(store.node_tar(&layers[..=n]).unwrap(), Some(*tar));
        let to = unpack(&store, tar, dir.path());
        assert_eq!(busybox(SEAL, &[&to]).split(' ').next(), Some(tar.seal.to_string().as_str()), "{n}");
        let kib: u64 = Command::new("du")
            .args(["-sk"])
            .arg(to.join("fs"))
            .output()
            .map(|o| String::from_utf8(o.stdout).unwrap().split('\t').next().unwrap().parse().unwrap())
            .unwrap();
        assert!(kib <= tar.unpacked_kib && tar.unpacked_kib < kib + 2200, "{kib} {}", tar.unpacked_kib);
        unpacked.push(to.join("fs"));
    }
    let lower: Vec<String> = unpacked.iter().rev().map(|p| p.display().to_string()).collect();
    let at = dir.path().join("merged");
    fs::create_dir(&at).unwrap();
    let options = format!("lowerdir={}", lower.join(":"));
    let mount = Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&at).status();
    assert!(mount.unwrap().success());
    let seen = std::panic::catch_unwind(|| tree_of_dir(&at));
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    let (seen, view) =
        (as_on_a_node(seen.unwrap()), as_on_a_node(tree_of_view(&store.view(&layers, None).unwrap())));
    assert!(seen == view, "{}", differences(&seen, &view));
    assert!(
        view.paths.contains_key(b"again/sub/new/file".as_slice())
            && !view.paths.contains_key(b"again/a".as_slice())
    );
}

/// A layer with two files of almost nothing but holes.
const HOLES: &str = r#"
set -e
mkdir 1; cd 1
truncate -s 3G first; printf middle | dd of=first bs=1M seek=1500 conv=notrunc 2>/dev/null; printf end >>first
truncate -s 2G second; chmod 600 second; chown 3:4 second
cd ..
tar -C 1 --format=posix --sparse --numeric-owner -cf 1.tar .
"#;

#[test]
fn large_holes_are_not_sent() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    assert!(Command::new("sh").args(["-c", HOLES]).current_dir(dir.path()).status().unwrap().success());
    let store = Store::open(&dir.path().join("state")).unwrap();
    let layer = store.import_tar(fs::File::open(dir.path().join("1.tar")).unwrap()).unwrap().diff_id;
    let tar = store.make_node_tar(&[layer]).unwrap();
    assert!(tar.bytes < 3 << 20 && tar.unpacked_kib < 8 << 10, "{tar:?}");
    let to = unpack(&store, &tar, dir.path());
    assert_eq!(busybox(SEAL, &[&to]).split(' ').next(), Some(tar.seal.to_string().as_str()));
    let script = r#"cd "$0/fs"; stat -c '%s %a %u %g' first second; stat -c '%b' first second | tr '\n' ' '
        dd if=first bs=1048576 skip=1500 count=1 2>/dev/null | head -c 6; tail -c 3 first"#;
    let told = busybox(script, &[&to]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..2], ["3221225475 644 0 0", "2147483648 600 3 4"], "{told}");
    let blocks: u64 = lines[2].split(' ').next().unwrap().parse().unwrap();
    assert!(blocks < 8000 && lines[2].ends_with(" 0 middleend"), "{told}");
}

#[test]
fn bytes_are_the_same_from_every_offset() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (store, layers) = store(dir.path());
    let tar = store.make_node_tar(&layers[..1]).unwrap();
    let all = bytes(&store, &tar, 0, 1 << 20);
    assert_eq!((all.len() as u64, Sha256::digest(&all)[..].to_vec()), (tar.bytes, tar.sha256.0.to_vec()));
    for (offset, piece) in
        [(1, 7777), (511, 512), (512, 1), (100_000, 99_999), (tar.bytes - 1, 10), (tar.bytes, 10)]
    {
        let piece = if piece == 1 { 4096 } else { piece };
        assert!(bytes(&store, &tar, offset, piece) == all[offset as usize..], "{offset}");
    }
    assert!(store.open_node_tar(&tar.key, tar.bytes + 1).is_err());
}

#[test]
fn a_key_names_what_a_tar_depends_on() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (store, layers) = store(dir.path());
    let key = |layers: &[DiffId]| store.make_node_tar(layers).unwrap().key;
    assert_eq!(key(&layers[..1]).to_string(), layers[0].to_string());
    // It hides what is below, or has the metadata of directories below.
    let (second, third) = (key(&layers[..2]), key(&layers));
    assert!(second.to_string().starts_with(&format!("{}-", layers[1])), "{second}");
    assert!(third.to_string().starts_with(&format!("{}-", layers[2])), "{third}");
    assert_ne!(key(&[layers[0], layers[2]]), third);
    // The lowest one has nothing below, and another tar.
    let lowest = key(&layers[2..]);
    assert!(lowest.layer() == &layers[2] && lowest != third);
    for key in [second, third] {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    for bad in ["", "x", &second.to_string().to_uppercase(), &format!("{}-", layers[0]), &format!("{third}-")]
    {
        assert!(bad.parse::<NodeTarKey>().is_err(), "{bad}");
    }
    // Those of layers that are gone go too, and one that a crash has cut is made again.
    let tars = dir.path().join("state/images/node-tars");
    fs::write(tars.join(third.to_string()).join("sums"), "walt node tar").unwrap();
    assert_eq!(store.node_tar(&layers).unwrap(), None);
    assert_eq!(key(&layers), third);
    fs::remove_dir_all(dir.path().join("state/images/layers").join(layers[2].to_string())).unwrap();
    fs::write(tars.join("strange"), "").unwrap();
    assert_eq!(store.remove_old_node_tars().unwrap(), 4);
    assert!(store.node_tar(&layers[..2]).unwrap().is_some());
    assert!(store.make_node_tar(&layers).is_err());
}
