//! Images of a registry that have more layers than ours can have.

use super::layout::Layout;
use super::{ANN, clean, id_of, is_installed, line, run, server_with};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use walt_images::{MAX_FOREIGN_LAYERS, MAX_LAYERS};
use walt_registry::manifest::{OCI_CONFIG, OCI_MANIFEST};
use walt_testkit::{DockerRegistry, OwnRegistry};

/// An OCI layout of an image; each of its layers has the file `n`, with the layer's number, and one of its own.
fn layout(dir: &Path, layers: usize) {
    let layout = Layout::new(dir);
    let files = tempfile::tempdir().unwrap();
    let tars: Vec<Value> = (1..=layers)
        .map(|number| {
            let own = format!("f{number}");
            for name in ["n", &own] {
                fs::write(files.path().join(name), number.to_string()).unwrap();
            }
            let tar = Command::new("tar")
                .arg("-C")
                .arg(files.path())
                .args(["--mtime=@0", "-cf", "-", "n", &own])
                .output();
            layout.add("application/vnd.oci.image.layer.v1.tar", &tar.unwrap().stdout)
        })
        .collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": { "Labels": { "walt.node.models": "pc-x86-64" } },
        "rootfs": { "type": "layers", "diff_ids": tars.iter().map(|t| &t["digest"]).collect::<Vec<_>>() },
    });
    let config = layout.add_json(OCI_CONFIG, &config);
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": tars });
    let manifest = layout.add_json(OCI_MANIFEST, &manifest);
    layout.end(&manifest);
}

#[test]
fn an_image_with_more_layers_than_ours_is_cloned_squashed() {
    if !DockerRegistry::is_installed() || !is_installed("skopeo") {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = DockerRegistry::start(&room.path().join("lab"), false);
    let server = server_with(&line("lab", registry.port, "none"), &[]);
    for layers in [MAX_LAYERS, MAX_FOREIGN_LAYERS, MAX_FOREIGN_LAYERS + 1] {
        let dir = room.path().join(layers.to_string());
        layout(&dir, layers);
        let to = format!("docker://{}/ann/x:{layers}", registry.host());
        run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &format!("oci:{}", dir.display()), &to]);
    }
    let clone = |layers: usize, name: &str, flags: &[&str]| {
        let link = format!("lab:ann/x:{layers}");
        server.walt(ANN, &[&["image", "clone"], flags, &[&link, name]].concat())
    };
    let usual = clone(MAX_LAYERS, "usual", &[]);
    assert!(!usual.err.contains("squashed"), "{usual:?}");
    usual.ok();
    let many = clone(MAX_FOREIGN_LAYERS, "many", &[]);
    let note = "Note: the image has 128 layers, but at most 125 are supported: squashing them into one.";
    assert!(many.err.contains(note), "{many:?}");
    many.ok();
    // The last layers are in it, and the highest `n`.
    let diff = server.walt(ANN, &["image", "diff", "usual", "many"]).ok();
    let paths: Vec<&str> = diff.lines().filter_map(|l| l.split_whitespace().nth(2)).collect();
    assert_eq!(paths, ["/f126", "/f127", "/f128", "/n"], "{diff}");
    let file = room.path().join("n").display().to_string();
    server.walt(ANN, &["image", "cp", "many:/n", &file]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "128");
    // There is room in it, and it is the same the next time.
    let before = id_of(&server, "ann/many:latest");
    let again = clone(MAX_FOREIGN_LAYERS, "many", &["--force", "-y"]).ok();
    assert!(again.contains("Nothing changed"), "{again}");
    assert_eq!(id_of(&server, "ann/many:latest"), before);
    server.walt(ANN, &["image", "cp", &file, "many:/x"]).ok();
    clone(MAX_FOREIGN_LAYERS + 1, "more", &[]).fails(1, "the image has 129 layers, at most 128 are accepted");

    // What is pushed comes back as it was, and cannot be squashed.
    let own = OwnRegistry::serve(&server, ANN);
    let auth = room.path().join("auth.json");
    own.login(&server, ANN, &auth);
    let source = format!("oci:{}", room.path().join(MAX_FOREIGN_LAYERS.to_string()).display());
    let pushed = Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false", &source])
        .arg(format!("docker://127.0.0.1:{}/ann/pushed", own.port))
        .env("REGISTRY_AUTH_FILE", &auth)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&pushed.stderr);
    assert!(
        !pushed.status.success() && said.contains("the image has 128 layers, at most 125 are accepted"),
        "{said}"
    );
    clean(&server);
}
