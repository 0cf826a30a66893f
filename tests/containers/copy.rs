//! `walt image cp`, both ways.

use super::mini::MINI;
use super::{SOON, USER};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use walt_testkit::TestServer;

/// A tree with the names and types that copies get wrong.
fn tree(dir: &Path) {
    let odd = dir.join(OsStr::from_bytes(b"-odd 'name'\n\"$x\" \xff"));
    fs::create_dir_all(&odd).unwrap();
    fs::write(odd.join("file"), "content").unwrap();
    fs::write(odd.join("-f"), "").unwrap();
    for name in [&b"G\xe4rten"[..], b"G\xf6rten", b"G\xfcrten"] {
        fs::write(odd.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::hard_link(odd.join("file"), dir.join("linked")).unwrap();
    symlink("linked", dir.join("link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    fs::File::create(dir.join("holes")).unwrap().set_len(200_000_000).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::set_permissions(odd.join("file"), PermissionsExt::from_mode(0o745)).unwrap();
    let out = Command::new("sh")
        .args(["-c", "touch -d '2001-02-03 04:05:06.789012345' -h link linked empty"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
}

/// All that must come back: path, mode, time, type, link, size, and which names are one file.
fn look(dir: &Path) -> String {
    let script = "find . -mindepth 1 -printf '%P %m %T@ %y %l %s %n\\n' | sort; find . -type f -exec sha256sum {} + | sort; test linked -ef ./-odd*/file && echo same";
    let out = Command::new("sh").args(["-c", script]).current_dir(dir).env("LC_ALL", "C").output().unwrap();
    // Directories have sizes and times of their own.
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("same"), "{text}");
    text.lines().filter(|l| !l.contains(" d ")).map(|l| l.to_owned() + "\n").collect()
}

fn walt(server: &TestServer, dir: &Path, source: &OsStr, destination: &OsStr) -> Output {
    let words = ["image", "cp"].map(OsString::from);
    let mut command = server.walt_command(USER, &words);
    command.arg(source).arg(destination).current_dir(dir).output().unwrap()
}

#[track_caller]
fn copy(server: &TestServer, dir: &Path, source: &str, destination: &str) -> String {
    let out = walt(server, dir, source.as_ref(), destination.as_ref());
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && err.is_empty(), "{source} {destination}: {err}");
    String::from_utf8(out.stdout).unwrap()
}

#[track_caller]
fn refused(server: &TestServer, dir: &Path, source: &str, destination: &str, status: i32, why: &str) {
    let out = walt(server, dir, source.as_ref(), destination.as_ref());
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{source} {destination}: {err}");
    assert!(err.contains(why) && out.stdout.is_empty(), "{why}: {err}");
}

fn versions(server: &TestServer) -> usize {
    let json = server.walt(USER, &["image", "history", "mine", "--json"]).ok();
    json.matches("\"version\":").count()
}

#[test]
fn trees_are_copied_in_and_out() {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{MINI}"), "mine"]).ok();
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = room.path();
    fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    tree(&dir.join("tree"));
    fs::create_dir(dir.join("back")).unwrap();
    fs::set_permissions(dir.join("back"), PermissionsExt::from_mode(0o777)).unwrap();
    let before = look(&dir.join("tree"));

    // In, relative to /root, under a new name; out, into an existing directory: slashes at the end mean nothing.
    assert_eq!(copy(&server, dir, "tree/", "mine:new///"), "Image mine updated.\n");
    assert_eq!(copy(&server, dir, "mine:/root/new/", "back/"), "");
    assert_eq!(look(&dir.join("back/new")), before);
    assert!(dir.join("back/new/holes").metadata().unwrap().blocks() < 1000, "holes stay holes");
    let script =
        "stat -c '%u %g' /root/new /root/new/* /root/new/-*/* | sort | uniq -c; stat -c %Y /root/new/linked";
    let seen = server.walt_with_input(USER, &["image", "shell", "mine"], script);
    let owners: Vec<&str> = seen.out.lines().collect();
    assert!(owners.len() == 2 && owners[0].ends_with(" 0 0"), "all belongs to root: {seen:?}");
    assert_eq!(owners[1], "981173106");

    // The same once more is no change, and no version.
    let count = versions(&server);
    assert_eq!(copy(&server, dir, "tree", "mine:/root/new/../new/."), "Image mine updated.\n", "inside");
    assert_eq!(
        copy(&server, dir, "tree", "mine:/root/new"),
        "Nothing changed: image mine is left as it was.\n"
    );
    assert_eq!(versions(&server), count + 1);

    // A file: over a file, into a directory, under a new name; a directory merged by '.'.
    fs::write(dir.join("one"), "1").unwrap();
    fs::create_dir(dir.join("more")).unwrap();
    fs::write(dir.join("more/two"), "2").unwrap();
    fs::create_dir(dir.join("more/new")).unwrap();
    copy(&server, dir, "one", "mine:/etc/profile");
    copy(&server, dir, "one", "mine:/root");
    copy(&server, dir, "one", "mine:third");
    copy(&server, &dir.join("more"), ".", "mine:/root/");
    copy(&server, &dir.join("more"), ".", "mine:/root/fresh");
    for (path, text) in [
        ("/etc/profile", "1"),
        ("one", "1"),
        ("third", "1"),
        ("two", "2"),
        ("fresh/two", "2"),
        ("new/tree/linked", "content"),
    ] {
        copy(&server, dir, &format!("mine:{path}"), "got");
        assert_eq!(fs::read_to_string(dir.join("got")).unwrap(), text, "{path}");
        fs::remove_file(dir.join("got")).unwrap();
    }

    // What the table refuses, and what does not exist: nothing is changed.
    let count = versions(&server);
    refused(
        &server,
        dir,
        "tree",
        "mine:/etc/profile",
        1,
        "Overwriting regular file /etc/profile with a directory is not allowed",
    );
    refused(&server, dir, "one", "mine:/no/where", 1, "No such file or directory: /no/where");
    refused(&server, dir, "nothing", "mine:/root", 1, "No such file or directory: nothing");
    refused(&server, dir, "mine:nothing", "back", 1, "No such file or directory: nothing");
    refused(
        &server,
        dir,
        "mine:/etc",
        "one",
        1,
        "Overwriting regular file one with a directory is not allowed",
    );
    refused(&server, dir, "mine:/etc", "no/where", 1, "No such file or directory: no/where");
    refused(&server, dir, "one", "other:/root", 1, "No such image 'other'");
    refused(
        &server,
        dir,
        "one",
        "two",
        2,
        "either the source or the destination must be a path of this machine",
    );
    refused(
        &server,
        dir,
        "mine:/a",
        "mine:/b",
        2,
        "either the source or the destination must be a path of this machine",
    );
    fs::write(dir.join("more/secret"), "").unwrap();
    fs::set_permissions(dir.join("more/secret"), PermissionsExt::from_mode(0o600)).unwrap();
    refused(&server, dir, "more", "mine:/root", 1, "nothing was copied");
    assert_eq!(versions(&server), count);

    // A name that no JSON string holds; and one that looks like an option.
    let odd = OsStr::from_bytes(b"mine:/root/new/-odd 'name'\n\"$x\" \xff/-f");
    let out = walt(&server, dir, odd, OsStr::from_bytes(b"./\xfe:"));
    assert!(out.status.success(), "{out:?}");
    assert!(dir.join(OsStr::from_bytes(b"\xfe:")).exists());

    // The animation is for terminals.
    fs::write(dir.join("last"), "last").unwrap();
    let path = dir.join("last").display().to_string();
    let terminal = server.terminal(USER, &["image", "cp", &path, "mine:/root"]);
    let (status, said) = terminal.end(SOON);
    assert!(status.success() && said.contains("Transfering... done"), "{said}");
    let check = server.server_command(&["check-store"]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
}
