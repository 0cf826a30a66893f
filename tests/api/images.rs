//! What an image must be, and how many layers it may have: whichever way it is made.

use std::{fs, path::Path};
use walt_testkit::{TestServer, User};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
/// Most layers of an image, as the help says.
const MAX_LAYERS: usize = 125;

/// Builds from a Dockerfile whose instructions need no container: status, standard error.
fn build(server: &TestServer, dir: &Path, text: &str, name: &str) -> (Option<i32>, String) {
    fs::write(dir.join("Dockerfile"), text).unwrap();
    let ran = server.walt(ANN, &["image", "build", "-y", "--from-dir", dir.to_str().unwrap(), name]);
    (ran.status, ran.err)
}

#[test]
fn labels_are_looked_at_when_an_image_is_built_and_when_it_is_cloned() {
    let server = TestServer::start_tiny();
    let dir = tempfile::tempdir().unwrap();
    let with = |labels: &str| format!("FROM scratch\nCOPY Dockerfile /\n{labels}\n");
    for (labels, why) in [
        ("", "no label walt.node.models"),
        ("LABEL walt.node.models=\"Not A Model,\"", "no label walt.node.models"),
        ("LABEL walt.node.models=pc-x86-64 walt.server.minversion=11", "[Need server upgrade, version>=11]"),
    ] {
        let (status, said) = build(&server, dir.path(), &with(labels), "built");
        assert!(
            status == Some(1) && said.contains("Sorry, image build FAILED.") && said.contains(why),
            "{said}"
        );
    }
    server.walt(ANN, &["image", "history", "built"]).fails(1, "No such image 'built'");
    let good = with("LABEL walt.node.models=pc-x86-64,rpi-4-b walt.server.minversion=10");
    assert_eq!(build(&server, dir.path(), &good, "built").0, Some(0));
    server.walt(BOB, &["image", "clone", "walt:ann/built"]).ok();

    // An image of a registry, or of an earlier server, that asks for more.
    let image = server.dir().join("newer");
    fs::create_dir(&image).unwrap();
    let tiny = walt_testkit::images::tiny(&image);
    let config = tiny.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let more = text.replace("\"Labels\":{", "\"Labels\":{\"walt.server.minversion\":\"11\",");
    assert_ne!(text, more);
    fs::write(&config, more).unwrap();
    server.import("pc-newer-default", &tiny);
    server
        .walt(BOB, &["image", "clone", "walt:waltplatform/pc-newer-default"])
        .fails(1, "[Need server upgrade, version>=11]");
}

#[test]
fn an_image_with_all_layers_that_it_can_have() {
    let server = TestServer::start_tiny();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Dockerfile");
    let layers = |count: usize| {
        let copies: String = (0..count).map(|n| format!("COPY <<END /f{n}\n{n}\nEND\n")).collect();
        format!("FROM scratch\nLABEL walt.node.models=pc-x86-64\n{copies}")
    };
    let (status, said) = build(&server, dir.path(), &layers(MAX_LAYERS + 1), "high");
    assert_eq!(status, Some(1), "{said}");
    for says in
        ["can have 125 layers at most, this one would have 126", "'walt image squash' makes one layer"]
    {
        assert!(said.contains(says), "{says}: {said}");
    }
    assert!(!said.contains("server's log"), "it is no fault of the server: {said}");

    // The steps are known by now: this takes no time.
    assert_eq!(build(&server, dir.path(), &layers(MAX_LAYERS), "high").0, Some(0));
    let full = "the image has 125 layers already, more are not possible.\n'walt image squash <image>' makes one layer";
    let from = file.to_str().unwrap();
    server.walt(ANN, &["image", "cp", from, "high:/x"]).fails(1, full);
    server.walt(ANN, &["image", "shell", "high"]).fails(1, full);
    let squashed = server.walt(ANN, &["image", "squash", "high"]).ok();
    assert_eq!(squashed, "Image was squashed successfully.\n");
    server.walt(ANN, &["image", "diff", "high@1", "high"]).ok();
    server.walt(ANN, &["image", "cp", from, "high:/x"]).ok();
    let diff = server.walt(ANN, &["image", "diff", "high@1", "high"]).ok();
    assert!(diff.ends_with("  /x\n") && diff.lines().count() == 1, "{diff}");
}

#[test]
fn what_is_agreed_to_when_versions_are_forgotten() {
    let server = TestServer::start_tiny();
    let dir = tempfile::tempdir().unwrap();
    let copy = |text: &str, to: &str| {
        fs::write(dir.path().join("file"), text).unwrap();
        let ran =
            server.walt_command(ANN, &["image", "cp", ".", to]).current_dir(dir.path()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    server.walt(ANN, &["image", "show"]).ok();
    copy("1", "pc-x86-64:/root");
    let history = server.walt(ANN, &["image", "history", "pc-x86-64"]).ok();
    assert!(history.contains("  walt image cp . pc-x86-64:/root "), "{history}");
    let api = server.api(Some("ann"));
    let action = serde_json::json!({"action": "prune", "name": "pc-x86-64"});
    let asked = api.post("/api/v1/actions/image", &action, None);
    assert_eq!(asked.status, 409, "{asked:?}");
    let token = asked.token();
    copy("2", "pc-x86-64:/root");
    let again = api.post("/api/v1/actions/image", &action, Some(&token));
    assert_eq!(again.status, 409, "one more version was not agreed to: {again:?}");
    server.walt(ANN, &["image", "prune", "-y", "pc-x86-64"]).ok();
    assert_eq!(server.walt(ANN, &["image", "prune"]).ok(), "There are no earlier versions: nothing to do.\n");
}
