//! What an image must be, and how many layers it may have: whichever way it is made.

use crate::registries::{clean, id_of};
use serde_json::Value;
use std::{fs, path::Path};
use walt_testkit::{Ran, TestServer, User};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
/// Most layers of an image, as the help says.
const MAX_LAYERS: usize = 125;

/// Builds from a Dockerfile whose instructions need no container.
fn builds(server: &TestServer, dir: &Path, text: &str, name: &str) -> Ran {
    fs::write(dir.join("Dockerfile"), text).unwrap();
    server.walt(ANN, &["image", "build", "-y", "--from-dir", dir.to_str().unwrap(), name])
}

/// As [`builds`]: status, standard error.
fn build(server: &TestServer, dir: &Path, text: &str, name: &str) -> (Option<i32>, String) {
    let ran = builds(server, dir, text, name);
    (ran.status, ran.err)
}

/// How many layers an image has.
fn layers_of(server: &TestServer, full: &str) -> usize {
    let id = id_of(server, full);
    let file = server.state_dir().join(format!("images/configs/{}.json", id.trim_start_matches("sha256:")));
    let config: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let layers = config["rootfs"]["diff_ids"].as_array().unwrap().len();
    let made = config["history"].as_array().unwrap().iter().filter(|h| h["empty_layer"] != true).count();
    assert_eq!(made, layers, "the history tells of each layer: {config:#}");
    layers
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
    // A build that goes on at the limit, and past it once more when it is known.
    let said = "\n(an image can have 125 layers: those so far become one)\n";
    for squashed in [1, 2] {
        let built = builds(&server, dir.path(), &layers(MAX_LAYERS + squashed), "more").ok();
        assert_eq!(built.matches(said).count(), 1, "{built}");
        assert_eq!(layers_of(&server, "ann/more:latest"), 1 + squashed);
    }
    let again = builds(&server, dir.path(), &layers(MAX_LAYERS + 2), "more").ok();
    assert!(again.contains("Nothing changed: image more is left as it was."), "{again}");

    // The steps are known by now: this takes no time.
    let built = builds(&server, dir.path(), &layers(MAX_LAYERS), "high").ok();
    assert!(!built.contains(said), "{built}");
    assert_eq!(layers_of(&server, "ann/high:latest"), MAX_LAYERS);
    let more = server.walt(ANN, &["image", "diff", "high", "more"]).ok();
    let paths: Vec<_> = more.lines().filter_map(|l| l.split_whitespace().last()).collect();
    assert_eq!(paths, ["/f125", "/f126"], "{more}");

    let from = file.to_str().unwrap();
    let copied = server.walt(ANN, &["image", "cp", from, "high:/x"]);
    let note = "Note: the image already had the maximum of 125 layers: those below the change were \
                squashed into one.";
    assert!(copied.err.contains(note), "{copied:?}");
    assert_eq!(copied.ok(), "Image high updated.\n");
    assert_eq!(layers_of(&server, "ann/high:latest"), 2);
    let diff = server.walt(ANN, &["image", "diff", "high@1", "high"]).ok();
    assert!(diff.ends_with("  /x\n") && diff.lines().count() == 1, "{diff}");
    let again = server.walt(ANN, &["image", "cp", from, "high:/y"]);
    assert!(!again.err.contains("squashed"), "there is room again: {again:?}");

    server.walt(ANN, &["image", "rollback", "-y", "high", "1"]).ok();
    let squashed = server.walt(ANN, &["image", "squash", "high"]).ok();
    assert_eq!(squashed, "Image was squashed successfully.\n");
    assert_eq!(server.walt(ANN, &["image", "diff", "high@1", "high"]).ok(), "");
    clean(&server);
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
