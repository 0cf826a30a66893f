//! Indexes (docker: manifest lists) that are pushed to the server's own registry.

use super::layout::{descriptor, digest};
use super::{ANN, BOB, LIMIT, SOON, clean, id_of, is_installed, line, run, server_with, walt_at};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use walt_registry::manifest::{DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use walt_testkit::{OwnRegistry, TestServer, until};

/// A server with the image `ann/mine`, its registry, and ann's login.
struct Scene {
    room: tempfile::TempDir,
    server: TestServer,
    registry: OwnRegistry,
    auth: PathBuf,
}

/// An entry of an index: what points to a manifest, for a platform.
fn entry(mut descriptor: Value, os: &str, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    descriptor
}

/// An index, not in the shortest form: it has to come back as it is.
fn index(entries: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    format!("{index:#}\n").into_bytes()
}

impl Scene {
    fn new() -> Self {
        let room = tempfile::tempdir_in("/var/tmp").unwrap();
        let server = server_with("  []\n", &[]);
        server.walt(ANN, &["image", "duplicate", "pc-x86-64", "mine"]).ok();
        let registry = OwnRegistry::serve(&server, ANN);
        let auth = room.path().join("auth.json");
        registry.login(&server, ANN, &auth);
        Self { room, server, registry, auth }
    }

    fn link(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/ann/{name}", self.registry.port)
    }

    fn path(&self, name: &str) -> String {
        self.room.path().join(name).display().to_string()
    }

    /// Copies all of an image by skopeo; what it says if it fails.
    fn copy(&self, from: &str, to: &str) -> Result<(), String> {
        let mut command = Command::new("timeout");
        command.args([
            LIMIT,
            "skopeo",
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
        ]);
        command.args(["--dest-tls-verify=false", from, to]).env("REGISTRY_AUTH_FILE", &self.auth);
        let ran = command.output().unwrap();
        if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
    }

    /// A request as a user; status, head and body of the answer.
    fn ask_as(&self, auth: &Path, request: &str, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let auth: Value = serde_json::from_slice(&fs::read(auth).unwrap()).unwrap();
        let auth = auth["auths"][format!("127.0.0.1:{}", self.registry.port)]["auth"].as_str().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", self.registry.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let size = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {auth}\r\n\
             Content-Length: {size}\r\n{head}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses may close before it has read all.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{request}: {}", String::from_utf8_lossy(&answer)));
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).unwrap().to_lowercase();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
    }

    fn ask(&self, request: &str, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        self.ask_as(&self.auth, request, head, body)
    }

    /// What a tag or digest gives: media type and bytes.
    #[track_caller]
    fn manifest(&self, name: &str, what: &str) -> Option<(String, Vec<u8>)> {
        let (status, head, body) = self.ask(&format!("GET /v2/ann/{name}/manifests/{what}"), "", b"");
        if status == 404 {
            return None;
        }
        assert_eq!(status, 200, "{head}");
        assert!(head.contains(&format!("docker-content-digest: {}", digest(&body))), "{head}");
        let media_type = head.lines().find_map(|l| l.strip_prefix("content-type: ")).unwrap();
        Some((media_type.to_owned(), body))
    }

    /// Pushes a manifest or an index; what is said to it.
    fn put(&self, name: &str, what: &str, media_type: &str, bytes: &[u8]) -> (u16, String) {
        let request = format!("PUT /v2/ann/{name}/manifests/{what}");
        let (status, _, body) = self.ask(&request, &format!("Content-Type: {media_type}\r\n"), bytes);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn put_blob(&self, name: &str, bytes: &[u8]) {
        let request = format!("POST /v2/ann/{name}/blobs/uploads/?digest={}", digest(bytes));
        let (status, head, _) = self.ask(&request, "Content-Type: application/octet-stream\r\n", bytes);
        assert_eq!(status, 201, "{head}");
    }

    /// Uploads the parts of an image with one empty layer; its manifest.
    fn parts(&self, name: &str, labels: &Value) -> Vec<u8> {
        let layer = [0; 1024];
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        self.put_blob(name, &config);
        self.put_blob(name, &layer);
        let tar = descriptor("application/vnd.oci.image.layer.v1.tar", &layer);
        let manifest =
            json!({ "schemaVersion": 2, "config": descriptor(OCI_CONFIG, &config), "layers": [tar] });
        manifest.to_string().into_bytes()
    }

    /// Files of a directory of the store.
    fn stored(&self, dir: &str) -> usize {
        fs::read_dir(self.server.state_dir().join("images").join(dir)).unwrap().count()
    }
}

/// An OCI layout on the disk.
struct Layout(PathBuf);

impl Layout {
    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap()
    }

    fn add(&self, bytes: &[u8]) {
        fs::write(self.blob(&digest(bytes)), bytes).unwrap();
    }

    /// What a tag points to: only type, digest, size.
    fn tagged(&self, tag: &str) -> Value {
        let index = self.index();
        let all = index["manifests"].as_array().unwrap();
        let found =
            all.iter().find(|m| m["annotations"]["org.opencontainers.image.ref.name"] == tag).unwrap();
        json!({ "mediaType": found["mediaType"], "digest": found["digest"], "size": found["size"] })
    }

    fn tag(&self, tag: &str, mut descriptor: Value) {
        let mut index = self.index();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        index["manifests"].as_array_mut().unwrap().push(descriptor);
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    /// The id of the image of a tag.
    fn id(&self, tag: &str) -> String {
        let digest = self.tagged(tag)["digest"].as_str().unwrap().to_owned();
        let manifest: Value = serde_json::from_slice(&fs::read(self.blob(&digest)).unwrap()).unwrap();
        manifest["config"]["digest"].as_str().unwrap().to_owned()
    }
}

/// `ann/mine` as `pc`; the same with a new layer for a board as `rpi`; without labels as `plain`; what docker's
/// builder attests; all of it as `multi`, and what no PC can boot as `no-pc`. The digests in `multi`.
fn make_layout(scene: &Scene) -> (Layout, Vec<u8>, Vec<String>) {
    let (dir, bundle) = (scene.path("oci"), scene.path("bundle"));
    scene.copy(&scene.link("mine"), &format!("oci:{dir}:pc")).unwrap();
    let tag = |name: &str| format!("{dir}:{name}");
    run("umoci", &["unpack", "--image", &tag("pc"), &bundle]);
    fs::write(Path::new(&bundle).join("rootfs/hello"), "hello from a board").unwrap();
    run("umoci", &["repack", "--image", &tag("rpi"), &bundle]);
    let board = ["--architecture", "arm64", "--config.label", "walt.node.models=rpi-4-b"];
    run("umoci", &[&["config", "--image", &tag("rpi")][..], &board].concat());
    run("umoci", &["config", "--image", &tag("pc"), "--tag", "plain", "--clear", "config.labels"]);
    let layout = Layout(dir.into());
    let statement = br#"{"predicateType":"https://slsa.dev/provenance/v0.2"}"#;
    let config = json!({
        "architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(statement)] },
    });
    let config = config.to_string().into_bytes();
    let attestation = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, &config),
        "layers": [descriptor("application/vnd.in-toto+json", statement)],
    });
    let attestation = attestation.to_string().into_bytes();
    [&statement[..], &config, &attestation].into_iter().for_each(|bytes| layout.add(bytes));

    let attests = entry(descriptor(OCI_MANIFEST, &attestation), "unknown", "unknown");
    let entries = [
        entry(layout.tagged("rpi"), "linux", "arm64"),
        attests,
        entry(layout.tagged("plain"), "linux", "s390x"),
        entry(layout.tagged("pc"), "linux", "amd64"),
    ];
    let multi = index(&entries);
    for (tag, bytes) in [("multi", &multi), ("no-pc", &index(&entries[..3]))] {
        layout.add(bytes);
        layout.tag(tag, descriptor(OCI_INDEX, bytes));
    }
    let digests = entries.iter().map(|e| e["digest"].as_str().unwrap().to_owned()).collect();
    (layout, multi, digests)
}

#[test]
fn an_index_is_one_image_and_comes_back_as_it_was() {
    if !is_installed("skopeo") || !is_installed("umoci") {
        return;
    }
    let mut scene = Scene::new();
    let (layout, multi, children) = make_layout(&scene);
    let from = |tag: &str| format!("oci:{}:{tag}", layout.0.display());
    let given = Some((OCI_INDEX.to_owned(), multi.clone()));
    let all_comes_back = |scene: &Scene, name: &str| {
        let back = Layout(scene.room.path().join(format!("back-{name}")));
        scene.copy(&scene.link(name), &format!("oci:{}:x", back.0.display())).unwrap();
        for digest in children.iter().chain([&digest(&multi)]) {
            assert!(back.blob(digest).exists(), "{name}: {digest}");
            assert!(scene.manifest(name, digest).is_some(), "{name}: {digest}");
        }
        for file in fs::read_dir(back.0.join("blobs/sha256")).unwrap() {
            let file = file.unwrap();
            let before = fs::read(layout.0.join("blobs/sha256").join(file.file_name())).unwrap();
            assert_eq!(fs::read(file.path()).unwrap(), before, "{name}: {file:?}");
        }
    };

    // The name means the image for the nodes here, and gives the index.
    scene.copy(&from("multi"), &scene.link("multi")).unwrap();
    assert_eq!(id_of(&scene.server, "ann/multi:latest"), layout.id("pc"));
    assert_eq!(scene.manifest("multi", "latest"), given);
    assert!(scene.manifest("multi", &digest(&multi)).is_some());
    all_comes_back(&scene, "multi");
    clean(&scene.server);
    // One that means an image already goes on to mean one for these models.
    scene.copy(&from("rpi"), &scene.link("berry")).unwrap();
    scene.copy(&from("multi"), &scene.link("berry")).unwrap();
    assert_eq!(id_of(&scene.server, "ann/berry:latest"), layout.id("rpi"));
    assert_eq!(scene.manifest("berry", "latest"), given);
    scene.server.walt(ANN, &["image", "remove", "berry"]).ok();
    // A node's models forbid an index without an image for it; nothing changes.
    scene.server.walt(ANN, &["node", "create", "vn1"]).ok();
    let before = id_of(&scene.server, "ann/pc-x86-64:latest");
    // (skopeo tries another type then, and says of that only.)
    scene.copy(&from("no-pc"), &scene.link("pc-x86-64")).unwrap_err();
    let no_pc = fs::read(layout.blob(layout.tagged("no-pc")["digest"].as_str().unwrap())).unwrap();
    let (status, said) = scene.put("pc-x86-64", "latest", OCI_INDEX, &no_pc);
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("not compatible with node model(s) pc-x86-64 of node vn1"), "{said}");
    assert_eq!(id_of(&scene.server, "ann/pc-x86-64:latest"), before);
    scene.server.walt(ANN, &["node", "remove", "vn1"]).ok();

    // Another server clones the one for its nodes, and finds it.
    let home = scene.room.path().join("home");
    fs::create_dir(&home).unwrap();
    let second = server_with(&line("other", scene.registry.port, "basic"), &[]);
    let env = [("REGISTRY_AUTH_FILE", scene.auth.to_str().unwrap())];
    let (status, out, said) = walt_at(&second, &home, &env, &["image", "search", "other:ann/multi"]);
    assert!(status == Some(0) && out.contains("other:ann/multi"), "{out}{said}");
    let (status, _, said) = walt_at(&second, &home, &env, &["image", "clone", "other:ann/multi"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(id_of(&second, "ann/multi:latest"), layout.id("pc"));
    drop(second);

    if is_installed("podman") {
        let storage = [scene.path("podman"), scene.path("podman-run")];
        let store = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver", "vfs"];
        let login = ["--authfile", scene.auth.to_str().unwrap(), "--tls-verify=false"];
        let podman = |words: &[&str]| run("podman", &[&store[..], words].concat());
        podman(&["manifest", "create", "list"]);
        let link = scene.link("multi");
        podman(&[&["manifest", "add", "--all"][..], &login, &["list", &link]].concat());
        let to = scene.link("by-podman");
        podman(&[&["manifest", "push", "--all", "-q"][..], &login, &["list", &to]].concat());
        assert_eq!(id_of(&scene.server, "ann/by-podman:latest"), layout.id("pc"));
        let (media_type, bytes) = scene.manifest("by-podman", "latest").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(media_type == OCI_INDEX && children.iter().all(|c| text.contains(c)), "{media_type}: {text}");
        scene.server.walt(ANN, &["image", "remove", "by-podman"]).ok();
    }

    // The last push counts, also if the image is the same; by digest, the earlier one is there.
    scene.copy(&from("pc"), &scene.link("multi")).unwrap();
    assert_eq!(digest(&scene.manifest("multi", "latest").unwrap().1), layout.tagged("pc")["digest"]);
    assert_eq!(scene.manifest("multi", &digest(&multi)), given);
    scene.copy(&from("multi"), &scene.link("multi")).unwrap();
    assert_eq!(scene.manifest("multi", "latest"), given);
    // Another name for the image is not the index; a new name for the same is.
    scene.server.walt(ANN, &["image", "duplicate", "multi", "twin"]).ok();
    assert_eq!(digest(&scene.manifest("twin", "latest").unwrap().1), layout.tagged("pc")["digest"]);
    scene.server.walt(ANN, &["image", "remove", "twin"]).ok();
    scene.server.walt(ANN, &["image", "rename", "multi", "many"]).ok();
    scene.server.kill();
    scene.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(scene.manifest("many", "latest"), given);
    all_comes_back(&scene, "many");
    clean(&scene.server);

    // A change of the image ends it; going back brings it back, and forgetting what was before does not.
    let note = scene.path("note");
    fs::write(&note, "a change").unwrap();
    scene.server.walt(ANN, &["image", "cp", &note, "many:/one"]).ok();
    let (media_type, _) = scene.manifest("many", "latest").unwrap();
    assert_eq!(media_type, OCI_MANIFEST);
    for wanted in children.iter().chain([&digest(&multi)]) {
        let (_, bytes) = scene.manifest("many", wanted).unwrap_or_else(|| panic!("{wanted}"));
        assert_eq!(digest(&bytes), *wanted);
    }
    scene.server.walt(ANN, &["image", "rollback", "many"]).ok();
    assert_eq!(scene.manifest("many", "latest"), given);
    scene.server.walt(ANN, &["image", "cp", &note, "many:/two"]).ok();
    scene.server.walt(ANN, &["image", "prune", "-y"]).ok();
    assert_eq!(scene.manifest("many", &digest(&multi)), None);
    let board = scene.server.state_dir().join("images/configs");
    let board = board.join(format!("{}.json", layout.id("rpi").trim_start_matches("sha256:")));
    until("the image for boards to be removed", SOON, || (!board.exists()).then_some(()));
    clean(&scene.server);
    scene.server.walt(ANN, &["image", "remove", "many"]).ok();
    until("the blobs to be removed", SOON, || (scene.stored("blobs") == 0).then_some(()));
    clean(&scene.server);
}

#[test]
fn an_index_that_is_wrong_does_no_harm() {
    let mut scene = Scene::new();
    let models = json!({ "walt.node.models": "pc-x86-64" });
    let image = scene.parts("x", &models);
    let own = entry(descriptor(OCI_MANIFEST, &image), "linux", "amd64");
    let stranger = scene.parts("x", &json!({}));
    let refused = |name: &str, tag: &str, bytes: &[u8], says: &str| {
        let (status, said) = scene.put(name, tag, OCI_INDEX, bytes);
        assert!(status == 400 && said.contains(says), "{says}: {status} {said}");
    };
    // Before its manifest, and from another repository.
    refused("x", "v1", &index(std::slice::from_ref(&own)), "MANIFEST_BLOB_UNKNOWN");
    for manifest in [&image, &stranger] {
        let (status, said) = scene.put("x", &digest(manifest), OCI_MANIFEST, manifest);
        assert_eq!(status, 201, "{said}");
    }
    refused("y", "v1", &index(std::slice::from_ref(&own)), "is missing");
    // What waits makes no name; its sender can read it, nobody else.
    assert_eq!(scene.manifest("x", &digest(&image)), Some((OCI_MANIFEST.to_owned(), image.clone())));
    let bob = scene.room.path().join("bob.json");
    scene.registry.login(&scene.server, BOB, &bob);
    let path = format!("/v2/ann/x/manifests/{}", digest(&image));
    assert_eq!(scene.ask_as(&bob, &format!("GET {path}"), "", b"").0, 404);
    assert_eq!(scene.ask_as(&bob, &format!("PUT {path}"), "", &image).0, 403);
    let names = scene.server.walt(ANN, &["image", "show", "--names-only"]).ok();
    assert!(!names.lines().any(|n| n == "x"), "{names}");

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut changed = own.clone();
        change(&mut changed);
        index(&[changed])
    };
    let wrong = |change: &dyn Fn(&mut Value), says: &str| refused("x", "v1", &changed(change), says);
    wrong(&|e| e["size"] = (image.len() + 1).into(), "in the index");
    wrong(&|e| e["size"] = (1_u64 << 40).into(), "bytes exceed the limit of");
    wrong(&|e| e["size"] = (-1).into(), "not valid");
    wrong(&|e| e["digest"] = "sha256:00".into(), "is not 'sha256:<64 digits>'");
    wrong(&|e| e["mediaType"] = DOCKER_MANIFEST.into(), "has another type in the index");
    wrong(&|e| e["mediaType"] = OCI_INDEX.into(), "is an index within an index");
    wrong(
        &|e| e["platform"]["os"] = "windows".into(),
        "none of the index's manifests is an image for WalT nodes",
    );
    let none = "none of the index's manifests is an image for WalT nodes";
    refused("x", "v1", &index(&[]), none);
    refused("x", "v1", &index(&[entry(descriptor(OCI_MANIFEST, &stranger), "linux", "amd64")]), none);
    refused("x", "v1", &index(&vec![own.clone(); 65]), "65 manifests, at most 64 are accepted");
    refused("x", "v1", &index(&vec![own.clone(); 10_000]), "more than 1024 entries");
    let good = index(&[own.clone(), entry(descriptor(OCI_MANIFEST, &stranger), "linux", "s390x")]);
    refused("x", &digest(&good), &good, "an index is accepted with a tag only");
    refused("x", &digest(&image), &good, "DIGEST_INVALID");
    refused("x", "v1", &vec![b' '; (8 << 20) + 1], "too large");
    let mut both: Value = serde_json::from_slice(&good).unwrap();
    both["config"] = own.clone();
    both["layers"] = json!([]);
    refused("x", "v1", both.to_string().as_bytes(), "neither an image nor an index");
    let (status, said) = scene.put("x", "v1", OCI_MANIFEST, &good);
    assert!(status == 400 && said.contains("must have the type"), "{said}");
    let (status, said) = scene.put("x", "v1", OCI_INDEX, &image);
    assert!(status == 400 && said.contains("must have the type"), "{said}");
    assert_eq!(scene.ask("GET /v2/ann/x/tags/list", "", b"").0, 404);
    clean(&scene.server);

    // What was not sent, since an image here has it, is kept for the index all the same.
    let (_, mine) = scene.manifest("mine", "latest").unwrap();
    let mine: Value = serde_json::from_slice(&mine).unwrap();
    let layer = mine["layers"][0].clone();
    let layer_digest = layer["digest"].as_str().unwrap();
    let mount = format!("POST /v2/ann/x/blobs/uploads/?mount={layer_digest}&from=ann/mine");
    assert_eq!(scene.ask(&mount, "", b"").0, 201);
    scene.put_blob("x", b"{}");
    let config = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let other = json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string().into_bytes();
    assert_eq!(scene.put("x", &digest(&other), OCI_MANIFEST, &other).0, 201);
    let good = index(&[entry(descriptor(OCI_MANIFEST, &other), "", ""), own.clone(), own.clone()]);
    let (status, said) = scene.put("x", "v1", OCI_INDEX, &good);
    assert_eq!(status, 201, "{said}");
    assert_eq!(scene.manifest("x", "v1"), Some((OCI_INDEX.to_owned(), good.clone())));
    let (status, _, bytes) = scene.ask(&format!("GET /v2/ann/x/blobs/{layer_digest}"), "", b"");
    assert_eq!((status, digest(&bytes).as_str()), (200, layer_digest));
    // An index as the child of another, whatever it is called.
    let nested = entry(descriptor(OCI_MANIFEST, &good), "linux", "amd64");
    refused("x", "v2", &index(&[nested, own.clone()]), "is missing");
    // What is there need not be pushed again, not even for another tag.
    let again = index(&[own.clone(), entry(descriptor(OCI_MANIFEST, &other), "", "")]);
    assert_eq!(scene.put("x", "v2", OCI_INDEX, &again).0, 201);
    scene.server.walt(ANN, &["image", "remove", "x:v1"]).ok();
    // Only what waits ends with the server.
    assert_eq!(scene.put("z", &digest(&image), OCI_MANIFEST, &image).0, 201);
    scene.server.kill();
    scene.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let (status, said) = scene.put("z", "v1", OCI_INDEX, &index(std::slice::from_ref(&own)));
    assert!(status == 400 && said.contains("MANIFEST_BLOB_UNKNOWN"), "{said}");
    assert_eq!(scene.manifest("x", "v2"), Some((OCI_INDEX.to_owned(), again)));
    assert_eq!(scene.manifest("x", &digest(&other)), Some((OCI_MANIFEST.to_owned(), other)));
    clean(&scene.server);
    scene.server.walt(ANN, &["image", "remove", "x:v2"]).ok();
    until("the blobs to be removed", SOON, || (scene.stored("blobs") == 0).then_some(()));
    until("the image to be removed", SOON, || (scene.stored("configs") == 1).then_some(()));
    clean(&scene.server);
}
