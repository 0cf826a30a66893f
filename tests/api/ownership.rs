//! Who may disturb whom: checked on the server, whatever the client does.

use serde_json::{Value, json};
use walt_testkit::{TestServer, User};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");

fn done(reply: &walt_testkit::http::Reply) -> bool {
    reply.status == 200 && reply.events().last().is_some_and(|e| e["event"] == "done" && e["ok"] == true)
}

#[test]
fn a_raw_client_is_asked_too() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let bob = server.api(Some("bob"));
    let remove = json!({"action": "remove", "name": "vn1"});
    let asked = bob.node(&remove, None);
    assert_eq!(asked.status, 409, "{asked:?}");
    let warning = asked.json()["confirmation"]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("vn1") && warning.contains("seems to be used by another user"), "{warning}");
    assert_eq!(bob.node(&remove, Some("made-up")).status, 409, "a token cannot be invented");
    assert_eq!(server.walt(ANN, &["node", "show", "--names-only"]).ok(), "vn1\n", "nothing was done");
    assert!(done(&bob.node(&remove, Some(&asked.token()))));
    assert_eq!(server.walt(ANN, &["node", "show", "--names-only"]).ok(), "");
}

#[test]
fn a_token_is_refused_once_the_state_has_changed() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "two"]).ok();
    let bob = server.api(Some("bob"));
    server.walt(BOB, &["image", "show"]).ok();
    let boot = json!({"action": "boot", "nodes": "vn1", "image": "pc-x86-64"});
    let old = bob.node(&boot, None).token();
    server.walt(ANN, &["node", "boot", "vn1", "two"]).ok();
    let again = bob.node(&boot, Some(&old));
    assert_eq!(again.status, 409, "{again:?}");
    assert_ne!(again.token(), old);
    assert_eq!(image_of(&server, "vn1"), "ann/two:latest");
    assert!(done(&bob.node(&boot, Some(&again.token()))));
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
}

#[test]
fn a_token_agrees_to_one_thing_by_one_user() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let bob = server.api(Some("bob"));
    let rename = json!({"action": "rename", "name": "vn1", "new_name": "vn2"});
    let token = bob.node(&rename, None).token();
    let remove = json!({"action": "remove", "name": "vn1"});
    assert_eq!(bob.node(&remove, Some(&token)).status, 409, "bob agreed to a new name, not to a removal");
    assert_eq!(server.api(Some("eve")).node(&rename, Some(&token)).status, 409, "eve did not agree");
    assert!(done(&bob.node(&rename, Some(&token))));
}

#[test]
fn acquire_and_release() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(ANN, &["node", "acquire", "vn1"]).fails(1, "vn1");
    server.walt(BOB, &["node", "release", "vn1"]).fails(1, "walt help show node-ownership");
    let out = server.walt(ANN, &["node", "release", "vn1"]).ok();
    assert!(out.contains("will now boot its default image (other users will see it is 'free')"), "{out}");
    assert!(server.walt(BOB, &["node", "show", "--all"]).ok().contains("Free nodes:"));
    // Free nodes are taken without a question.
    server.walt(BOB, &["node", "acquire", "free-nodes"]).ok();
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
}

#[test]
fn a_refusal_changes_nothing() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    for answer in ["n\n", ""] {
        let ran = server.walt_with_input(BOB, &["node", "acquire", "vn1"], answer);
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert!(ran.err.contains("Are you sure? (y/n): ") && ran.err.contains("Aborted."), "{ran:?}");
    }
    assert_eq!(image_of(&server, "vn1"), "ann/pc-x86-64:latest");
    server.walt_with_input(BOB, &["node", "acquire", "vn1"], "maybe\ny\n").ok();
    assert_eq!(image_of(&server, "vn1"), "bob/pc-x86-64:latest");
    server.walt(ANN, &["node", "acquire", "-y", "vn1"]).ok();
    assert_eq!(image_of(&server, "vn1"), "ann/pc-x86-64:latest");
}

#[test]
fn an_image_in_use_stays() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    for command in [["image", "remove", "pc-x86-64"].as_slice(), &["image", "rename", "pc-x86-64", "other"]] {
        server.walt(ANN, command).fails(1, "Sorry, cannot proceed because the image is in use.");
    }
}

/// The image of a node.
pub fn image_of(server: &TestServer, node: &str) -> String {
    let list = server.api(None).get("/api/v1/nodes").json();
    let nodes = list["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|n| n["name"] == node);
    node.and_then(|n| n["image"].as_str()).map_or_else(|| Value::Null.to_string(), str::to_owned)
}
