//! Disks of virtual nodes: which are made, which are kept, and what is asked before data is lost.

use super::start::path_without;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use walt_testkit::{Options, TestServer, User, images};

const ANN: User = User::RootFor("ann");

/// The files of the disks of the only node, by name.
fn files(server: &TestServer) -> Vec<(String, PathBuf)> {
    let node = std::fs::read_dir(server.state_dir().join("nodes")).unwrap().next().unwrap().unwrap();
    let mut files: Vec<(String, PathBuf)> = std::fs::read_dir(node.path().join("disks"))
        .into_iter()
        .flatten()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), e.path()))
        .collect();
    files.sort();
    files
}

fn names(server: &TestServer) -> String {
    files(server).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

fn set(server: &TestServer, disks: &str) {
    let said = server.walt(ANN, &["node", "config", "vn1", &format!("disks={disks}")]).ok();
    assert_eq!(said, "Done. Reboot node(s) to see new settings in effect.\n");
}

fn reboot(server: &TestServer) {
    server.walt(ANN, &["node", "reboot", "--hard", "vn1"]).ok();
}

#[test]
fn disks_are_kept_until_somebody_agrees() {
    let mut server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    set(&server, "1G,2G[template=ext4]");
    assert_eq!(names(&server), "", "a setting takes effect at the next start");
    reboot(&server);
    assert_eq!(names(&server), "sda-1000000000-none sdb-2000000000-ext4");
    let numbers = |server: &TestServer| -> Vec<u64> {
        files(server).iter().map(|(_, path)| path.metadata().unwrap().ino()).collect()
    };
    let (first, kept) = (numbers(&server), files(&server));
    let owner = nix_account("walt-qemu");
    assert!(kept.iter().all(|(_, path)| path.metadata().unwrap().uid() == owner), "{kept:?}");
    let config = server.walt(ANN, &["node", "config", "vn1"]).ok();
    assert!(config.contains("\ndisks=1G,2G[template=ext4]\n"), "{config}");

    // The same disks, more of them, a new server: nobody asks, and nothing changes.
    set(&server, "1G[template=none],2G[template=ext4],1G");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    reboot(&server);
    assert_eq!(names(&server), "sda-1000000000-none sdb-2000000000-ext4 sdc-1000000000-none");
    assert_eq!(numbers(&server)[..2], first[..]);

    // What would lose data is asked.
    let api = server.api(Some("ann"));
    let request =
        |disks: &str| json!({"action": "config", "nodes": "vn1", "settings": [format!("disks={disks}")]});
    for (disks, warning) in [
        ("2G,2G[template=ext4],1G", "Warning: Disk sda of node vn1 loses all its data at the next reboot."),
        ("1G,2G,1G", "Warning: Disk sdb of node vn1 loses all its data at the next reboot."),
        ("1G", "Warning: Disks sdb and sdc of node vn1 lose all their data at the next reboot."),
        ("none", "Warning: Disks sda, sdb and sdc of node vn1 lose all their data at the next reboot."),
    ] {
        let asked = api.node(&request(disks), None);
        assert_eq!(asked.status, 409, "{disks}: {asked:?}");
        assert_eq!(asked.json()["confirmation"]["warnings"], json!([warning]));
    }
    // A token agrees to one value.
    let token = api.node(&request("1G"), None).token();
    assert_eq!(api.node(&request("none"), Some(&token)).status, 409);
    let refused = server.walt_with_input(ANN, &["node", "config", "vn1", "disks=none"], "n\n");
    assert!(refused.status == Some(1) && refused.err.contains("lose all their data"), "{refused:?}");
    // One question for another's node and its data.
    let bob = server.api(Some("bob")).node(&request("none"), None);
    assert_eq!(bob.json()["confirmation"]["warnings"].as_array().unwrap().len(), 2, "{bob:?}");
    reboot(&server);
    assert_eq!(numbers(&server)[..2], first[..], "nothing was done");

    assert_eq!(api.node(&request("1G"), Some(&token)).status, 200);
    assert_eq!(files(&server).len(), 3, "the data is there until the node starts again");
    reboot(&server);
    assert_eq!(names(&server), "sda-1000000000-none");
    server.walt(ANN, &["node", "config", "-y", "vn1", "disks=1T"]).ok();
    reboot(&server);
    assert_eq!(names(&server), "sda-1000000000000-none");
    assert_eq!(files(&server)[0].1.metadata().unwrap().blocks(), 0, "room is taken by what is written");
    server.walt(ANN, &["node", "remove", "vn1"]).ok();
    assert_eq!(std::fs::read_dir(server.state_dir().join("nodes")).unwrap().count(), 0);
}

fn nix_account(name: &str) -> u32 {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|l| l.starts_with(&format!("{name}:"))).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

#[test]
fn bad_disks() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    for (value, says) in [
        ("0G", "the disk '0G' is too small; a disk has at least 1G"),
        ("8M", "'8M' is not a disk; a disk is a number followed by G or T"),
        ("99999999T", "the disk '99999999T' is too large; a disk has at most 16T"),
        ("3T[template=ext4]", "a disk with a template has at most 2T"),
        ("8G[template=xfs]", "there is no template 'xfs'; there are: none, ext4, fat32, hybrid-boot-v"),
        (&["1G"; 17].join(","), "17 disks are too many; a node has at most 16"),
        ("8G,", "'' is not a disk"),
    ] {
        let ran = server.walt(ANN, &["node", "config", "vn1", "ram=1G", &format!("disks={value}")]);
        assert!(ran.err.starts_with("Error: cannot set 'disks': "), "{ran:?}");
        ran.fails(1, says);
    }
    let config = server.walt(ANN, &["node", "config", "vn1"]).ok();
    assert!(config.contains("\ndisks=none\n") && config.contains("\nram=512M\n"), "{config}");
    assert_eq!(names(&server), "");
}

#[test]
fn a_missing_program_names_its_package() {
    // Programs that only some servers need are not in it either.
    let bin = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = Some(path_without(bin.path(), "mkfs.ext4"));
    let server = TestServer::start_with(Options { path, ..Options::default() }).unwrap();
    server.import(images::TINY, &images::tiny(server.dir()));
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let config = |disks: &str| server.walt(ANN, &["node", "config", "vn1", &format!("disks={disks}")]);
    for (template, program, package) in
        [("fat32", "mkfs.vfat", "dosfstools"), ("hybrid-boot-p", "mkfs.ext4", "e2fsprogs")]
    {
        let ran = config(&format!("1G,1G[template={template}]"));
        assert!(ran.err.contains(&format!("(Debian package {package})")), "{ran:?}");
        ran.fails(1, &format!("the program '{program}' is missing on the server."));
    }
    config("1G").ok();
}
