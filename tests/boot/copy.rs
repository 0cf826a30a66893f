//! `walt node cp` and `walt node save`, on one node of the mini image, whose only tar is busybox'.

mod kills;
mod layers;

use super::{MINI, USER, on, wait};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use walt_testkit::{Ran, TestServer};

/// What is compared of a tree of the node.
const LOOK: &str = "cd /srv && find . | sort | while read -r f; do stat -c '%n|%F|%a|%u|%g|%t|%T' \"$f\"; \
                    [ -d \"$f\" ] || stat -c '%s %Y %h' \"$f\"; [ ! -f \"$f\" ] || md5sum \"$f\"; readlink \"$f\"; done; \
                    ls -R /etc /root /home /usr/local";

fn walt(server: &TestServer, words: &[&str]) -> Ran {
    server.walt(USER, words)
}

#[track_caller]
fn cp(server: &TestServer, source: &str, destination: &str) {
    let ran = walt(server, &["node", "cp", source, destination]);
    assert!(ran.err.is_empty(), "{ran:?}");
    assert_eq!(ran.ok(), "");
}

/// Files for the image, before the node boots.
fn prepare(dir: &Path) {
    fs::create_dir_all(dir.join("data/sub")).unwrap();
    for (name, text) in [("keep", "k"), ("old", "o"), ("same", "s"), ("sub/x", "x"), ("sub/y", "y")] {
        fs::write(dir.join("data").join(name), text).unwrap();
    }
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("-odd 'n'\n\"$x\"")).unwrap();
    fs::write(tree.join("-odd 'n'\n\"$x\"").join("f"), "odd").unwrap();
    fs::write(tree.join("n".repeat(200)), "long").unwrap();
    for name in [&b"G\xe4rten"[..], b"G\xf6rten"] {
        fs::write(tree.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::hard_link(tree.join("n".repeat(200)), tree.join("linked")).unwrap();
    symlink("linked", tree.join("link")).unwrap();
    fs::File::create(tree.join("holes")).unwrap().set_len(20_000_000).unwrap();
    fs::set_permissions(tree.join("linked"), PermissionsExt::from_mode(0o4755)).unwrap();
}

#[test]
fn files_are_copied_and_changes_saved() {
    let server = TestServer::start_with_images(&[MINI]);
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = room.path();
    prepare(dir);
    fs::create_dir(dir.join("back")).unwrap();
    for path in [dir.to_path_buf(), dir.join("back")] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let local = |path: &str| dir.join(path).display().to_string();
    walt(&server, &["image", "clone", &format!("walt:waltplatform/{MINI}"), "mine"]).ok();
    assert!(
        walt(&server, &["image", "cp", &local("data"), "mine:/home/"]).ok().contains("Image mine updated.")
    );
    walt(&server, &["node", "create", "vn1", "--image", "mine"]).ok();

    // No wait: the copy waits for the boot itself.
    cp(&server, &local("tree/"), "vn1:");
    cp(&server, &local("data/keep"), "vn1:/root/one");
    cp(&server, &local("data/old"), "vn1:one");
    assert_eq!(on(&server, "vn1", "cat /root/one; stat -c '%u %a' /root/tree/linked"), "o0 4755\n");
    cp(&server, "vn1:/root/tree", &local("back"));
    let back = dir.join("back/tree");
    let same = std::process::Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(dir.join("tree"))
        .arg(&back)
        .output();
    assert!(same.as_ref().unwrap().status.success(), "{same:?}");
    let meta =
        |path: &Path| path.symlink_metadata().map(|m| (m.mode() & 0o777, m.mtime(), m.nlink())).unwrap();
    // Busybox' tar gives links the time at which it makes them.
    for name in ["linked", "holes"] {
        assert_eq!(meta(&back.join(name)), meta(&dir.join("tree").join(name)), "{name}");
    }
    assert!(back.join("holes").metadata().unwrap().blocks() < 100);
    let refused = |source: &str, destination: &str, why: &str| {
        walt(&server, &["node", "cp", source, destination]).fails(1, why);
    };
    refused(
        &local("tree"),
        "vn1:/root/one",
        "Overwriting regular file /root/one with a directory is not allowed",
    );
    refused(&local("data/keep"), "vn1:/no/where", "No such file or directory: /no/where");
    refused("vn1:nothing", &local("back"), "No such file or directory: nothing");
    refused(&local("data/keep"), "nobody-there:/", "nobody-there");

    // Everything that a save has to see.
    on(
        &server,
        "vn1",
        "set -e; mkdir -p /srv; cp -a /home/data /srv; rm -r /root/tree /root/one /etc/profile; cd /home/data; rm old; rm -r sub; mkdir sub; \
         echo n >sub/new; mv keep moved; chmod 600 same; ln moved hard; cd /srv; mkdir empty; mknod null c 1 3; \
         mkfifo fifo; ln data/keep hard; ln -s data/keep sym; chown -h 1000:100 sym hard; chmod 711 data; \
         echo q >'a b\"c'; for n in 344 366; do echo $n >$(printf \"G\\\\$n\"); done; dd if=/dev/zero of=holes bs=1 count=1 seek=5000000; mkdir /tmp/t; echo run >/run/r",
    );
    let listed = walt(&server, &["node", "save", "vn1", "saved", "--dry-run"]);
    for (word, size, path) in [
        ("added", 0, "/srv/empty/"),
        ("deleted", 1, "/home/data/old"),
        ("changed", 1, "/home/data/same"),
        ("added", 4, "/srv/G\\xe4"),
        ("added", 4, "/srv/G\\xf6"),
    ] {
        let line = format!("{word:<8}{size:>12}  {path}\n");
        assert!(listed.out.contains(&line), "{line:?} is not in {listed:?}");
    }
    assert!(listed.err.contains("Nothing was saved.") && !listed.out.contains("/tmp/t"), "{listed:?}");
    assert!(!walt(&server, &["image", "show", "--names-only"]).ok().contains("saved"));

    let before = on(&server, "vn1", &format!("rm -r /tmp/t; {LOOK}; {}", LOOK.replace("/srv", "/home")));
    let saved = walt(&server, &["node", "save", "vn1", "saved"]).ok();
    assert_eq!(
        saved,
        "** Analysing changes made on this node\n** Building the image\n** Verifying the image\nOK\n"
    );
    walt(&server, &["node", "boot", "vn1", "saved"]).ok();
    wait(&server, "vn1");
    let after = on(&server, "vn1", &format!("{LOOK}; {}", LOOK.replace("/srv", "/home")));
    assert_eq!(after, before, "the node that boots the saved image has the same tree");
    assert_eq!(
        on(&server, "vn1", "ls /home/data /home/data/sub; test ! -e /etc/profile"),
        "/home/data:\nhard\nmoved\nsame\nsub\n\n/home/data/sub:\nnew\n"
    );

    // Nothing was changed since.
    assert!(
        walt(&server, &["node", "save", "vn1", "saved", "-y"]).ok().contains("Nothing changed on this node")
    );
    let declined = server.walt_with_input(USER, &["node", "save", "vn1", "saved"], "n\n");
    assert!(
        declined.status == Some(1) && declined.err.contains("would overwrite it (and reboot 1 node(s))"),
        "{declined:?}"
    );

    // Into the image of the node, and the node boots it.
    on(&server, "vn1", "mkdir /root/new; echo booted >/root/new/file");
    let declined = server.walt_with_input(USER, &["node", "cp", "vn1:/root/new", "booted-image"], "n\n");
    assert!(declined.status == Some(1) && declined.err.contains("would reboot 1 node(s)"), "{declined:?}");
    let copied = walt(&server, &["node", "cp", "-y", "vn1:/root/new", "booted-image"]).ok();
    assert!(
        copied.contains("Image saved updated.\n") && copied.contains("Node vn1: rebooted ok."),
        "{copied}"
    );
    wait(&server, "vn1");
    assert_eq!(on(&server, "vn1", "cat /root/new/file"), "booted\n");
    kills::clients_go(&server, dir);
    kills::server_dies(&server);
}
