//! `FROM` of images that are not on the server.

use super::layout::Layout;
use super::{ANN, BOB, SOON, clean, is_installed, line, run, server_with, walt_at};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walt_registry::manifest::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use walt_testkit::{DockerRegistry, Ran, TestServer};

/// What the image is built for, in the label that every build here has.
const PC: &str = "LABEL walt.node.models=pc-x86-64\n";

/// An OCI layout of an index: an image for each of these platforms, with the file `arch` that tells it; the digest.
fn layout(dir: &Path, platforms: &[(&str, &str)], more: &str) -> String {
    let layout = Layout::new(dir);
    let files = tempfile::tempdir().unwrap();
    let entry = |(architecture, variant): &(&str, &str)| {
        fs::write(files.path().join("arch"), format!("{architecture}{variant}{more}")).unwrap();
        let tar =
            Command::new("tar").arg("-C").arg(files.path()).args(["-cf", "-", "arch"]).output().unwrap();
        let tar = layout.add("application/vnd.oci.image.layer.v1.tar", &tar.stdout);
        let mut platform = json!({ "architecture": architecture, "os": "linux" });
        if !variant.is_empty() {
            platform["variant"] = json!(variant);
        }
        let mut config = platform.clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [tar["digest"]] });
        let config = layout.add_json(OCI_CONFIG, &config);
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [tar] });
        let mut manifest = layout.add_json(OCI_MANIFEST, &manifest);
        manifest["platform"] = platform;
        manifest
    };
    let entries: Vec<Value> = platforms.iter().map(entry).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let index = layout.add_json(OCI_INDEX, &index);
    layout.end(&index);
    index["digest"].as_str().unwrap().to_owned()
}

fn push(layout: &Path, registry: &DockerRegistry, name: &str, creds: &[&str]) {
    let (from, to) = (format!("oci:{}", layout.display()), format!("docker://{}/{name}", registry.host()));
    let words = ["copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false"];
    run("skopeo", &[&words[..], creds, &[&from, &to]].concat());
}

/// A directory with a Dockerfile.
fn project(room: &Path, text: &str) -> PathBuf {
    let dir = room.join("project");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), text).unwrap();
    dir
}

fn file(server: &TestServer, room: &Path, at: &str) -> String {
    let to = room.join("out").display().to_string();
    server.walt(ANN, &["image", "cp", at, &to]).ok();
    fs::read_to_string(to).unwrap()
}

/// A build that fails, and says why.
#[track_caller]
fn fails(ran: &Ran, part: &str) {
    assert!(ran.status == Some(1) && ran.err.contains(part), "{part}: {ran:?}");
}

#[test]
fn builds_start_from_images_of_registries() {
    if !DockerRegistry::is_installed() || !is_installed("skopeo") {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let room = room.path();
    let lab = DockerRegistry::start(&room.join("lab"), false);
    let first = room.join("first");
    let digest = layout(&first, &[("arm64", ""), ("amd64", ""), ("arm", "v5"), ("arm", "v7")], "");
    // A mirror of the hub has images without an owner there.
    push(&first, &lab, "library/base:1.2_x", &[]);
    push(&first, &lab, "other/tools", &[]);
    // Nobody listens at port 1.
    let config = line("down", 1, "none") + &line("lab", lab.port, "none");
    let mut server = server_with(&config, &[]);
    let build = |server: &TestServer, user, text: &str, flags: &[&str]| {
        let dir = project(room, text).display().to_string();
        server.walt(user, &[&["image", "build", "--yes", "--from-dir", &dir][..], flags, &["made"]].concat())
    };

    // A server that dies on the way has nothing of it.
    let text = format!("FROM base:1.2_x\n{PC}COPY --from=other/tools /arch /tools\n");
    server.kill();
    server.launch_with(&[("WALT_FAIL_STORE", "pull-config")]).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(build(&server, ANN, &text, &[]).status, Some(1));
    server.wait_for_end();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    clean(&server);

    let built = build(&server, ANN, &text, &[]);
    assert!(built.err.contains("Ignoring down registry: cannot reach the registry 127.0.0.1:1"), "{built:?}");
    let said = built.ok();
    for part in [
        format!("base:1.2_x is lab:library/base:1.2_x@{digest}, for linux/amd64\n"),
        format!("other/tools is lab:other/tools:latest@{digest}, for linux/amd64\n"),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    assert_eq!(file(&server, room, "made:/arch") + &file(&server, room, "made:/tools"), "amd64amd64");
    // It is nobody's image, and no damage.
    let names = server.walt(ANN, &["image", "show", "--all"]).ok();
    assert!(!names.contains("base") && !names.contains("tools"), "{names}");
    clean(&server);

    // For other CPUs: by the models in the label, by the option; what these need is the variable.
    for (from, label, is) in [
        ("FROM base:1.2_x", "rpi-4-b", "arm64"),
        ("FROM base:1.2_x", "rpi-2-b,rpi-4-b", "armv7"),
        ("FROM --platform=linux/arm/v6 base:1.2_x", "rpi-b", "armv5"),
        ("FROM --platform=$BUILDPLATFORM base:1.2_x", "rpi-b", "amd64"),
    ] {
        let text =
            format!("{from}\nARG TARGETPLATFORM\nLABEL for=$TARGETPLATFORM walt.node.models={label}\n");
        build(&server, ANN, &text, &[]).ok();
        assert_eq!(file(&server, room, "made:/arch"), is, "{from} {label}");
    }
    // What the name means is for a Raspberry Pi now: so is what is built without a label.
    let text = "FROM base:1.2_x\nCOPY --from=no/such /x /\n";
    let failed = build(&server, ANN, text, &[]);
    assert!(failed.out.contains(&format!("@{digest}, for linux/arm/v5, as pulled by")), "{failed:?}");
    fails(&failed, "Dockerfile, line 2: cannot find the image 'no/such': it is not an image of this server");

    for (text, says) in [
        (
            "FROM --platform=linux/riscv64 base:1.2_x",
            "no image for linux/riscv64, it has linux/arm64, linux/amd64",
        ),
        ("FROM none/such", "lab does not have it"),
        ("FROM --platform=windows/amd64 base:1.2_x", "only images for Linux"),
        ("FROM ghcr.io/ann/x", "'ghcr.io' is not one of this server's registries: down (127.0.0.1:1), lab ("),
        ("FROM Base", "is not a valid image name"),
    ] {
        fails(&build(&server, ANN, text, &[]), says);
    }

    // The tag means something else now. It is asked for when that is wanted; a digest means what it meant.
    let second = room.join("second");
    let newer = layout(&second, &[("amd64", "")], " again");
    push(&second, &lab, "library/base:1.2_x", &[]);
    let text = format!("FROM base:1.2_x\n{PC}");
    let kept = format!(
        "base:1.2_x is lab:library/base:1.2_x@{digest}, for linux/amd64, as pulled by an earlier build\n"
    );
    let said = build(&server, ANN, &text, &[]).ok();
    assert!(said.contains(&kept), "{said}");
    let said = build(&server, ANN, &text, &["--pull"]).ok();
    assert!(said.contains(&newer) && !said.contains(&digest), "{said}");
    assert_eq!(file(&server, room, "made:/arch"), "amd64 again");
    let host = lab.host();
    for name in [format!("library/base@{digest}"), format!("{host}/library/base:1.2_x@{digest}")] {
        build(&server, ANN, &format!("FROM {name}\n{PC}"), &["--pull"]).ok();
        assert_eq!(file(&server, room, "made:/arch"), "amd64", "{name}");
    }
    // One's own image comes first, also by the digest that its registry gives for it.
    server.walt(ANN, &["image", "duplicate", "made", "base"]).ok();
    let said = build(&server, ANN, &format!("FROM base\n{PC}"), &["--pull"]).ok();
    assert!(!said.contains("base is"), "{said}");

    // Away: what is kept goes on to be used, by the user whose build has got it.
    drop(lab);
    let said = build(&server, ANN, &text, &["--no-cache"]).ok();
    assert!(said.contains(", as pulled by an earlier build\n"), "{said}");
    for (user, flags) in [(ANN, &["--pull"][..]), (BOB, &[])] {
        let failed = build(&server, user, &text, flags);
        for part in
            ["down: cannot reach the registry 127.0.0.1:1", &format!("lab: cannot reach the registry {host}")]
        {
            assert!(failed.err.contains(part), "{failed:?}");
        }
        assert_eq!(failed.err.matches("Ignoring down").count(), 1, "{failed:?}");
        fails(&failed, "line 1: cannot find the image 'base:1.2_x'");
    }
    clean(&server);
}

#[test]
fn a_registry_asks_who_builds() {
    if !DockerRegistry::is_installed() || !is_installed("skopeo") {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let room = room.path();
    let safe = DockerRegistry::start(&room.join("safe"), true);
    layout(&room.join("image"), &[("amd64", "")], "");
    push(&room.join("image"), &safe, "ann/private", &["--dest-creds", "ann:secret"]);
    let server = server_with(&line("safe", safe.port, "basic"), &[]);
    let home = room.join("home");
    fs::create_dir(&home).unwrap();
    let dir = project(room, &format!("FROM ann/private\n{PC}")).display().to_string();
    let words = ["image", "build", "--yes", "--from-dir", &dir, "made"];

    let (status, _, said) = walt_at(&server, &home, &[], &words);
    let why =
        format!("safe: the registry {} requires credentials (see 'walt help show registries')", safe.host());
    assert!(status == Some(1) && said.contains(&why), "{said}");
    // What a file of podman has is not right; on a terminal its user is asked.
    let auth = room.join("auth.json");
    let write = |text: &str| {
        fs::write(&auth, format!(r#"{{"auths":{{"{}":{{"auth":"{text}"}}}}}}"#, safe.host())).unwrap();
    };
    write("YW5uOndyb25n"); // ann:wrong
    let env = [("REGISTRY_AUTH_FILE", auth.to_str().unwrap())];
    let (status, _, said) = walt_at(&server, &home, &env, &words);
    assert!(status == Some(1) && said.contains("does not accept these credentials"), "{said}");
    let mut command = server.walt_command(ANN, &words);
    command.env("HOME", &home).env("REGISTRY_AUTH_FILE", &auth);
    let mut terminal = walt_testkit::Terminal::spawn(command);
    terminal.expect("username: ", SOON);
    terminal.line("ann");
    terminal.expect("token): ", SOON);
    terminal.line("secret");
    let (status, said) = terminal.end(SOON);
    assert!(status.success() && said.contains("ann/private is safe:ann/private:latest@sha256:"), "{said}");
    // Kept by the client; others have to say who they are.
    let (status, out, said) = walt_at(&server, &home, &[], &[&words[..2], &["--pull"], &words[2..]].concat());
    assert!(status == Some(0) && out.contains("for linux/amd64"), "{out}{said}");
    fails(&server.walt(BOB, &words), "requires credentials");
    assert!(!server.log().contains("secret"));
    for file in ["walt.sqlite", "walt.sqlite-wal"].map(|name| server.state_dir().join(name)) {
        let bytes = fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(6).any(|w| w == b"secret"), "{}", file.display());
    }
    clean(&server);
}
