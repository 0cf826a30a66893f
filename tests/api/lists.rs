//! What is shown, and a new user's first images.

use serde_json::Value;
use walt_testkit::{TestServer, User};

const ANN: User = User::RootFor("ann");
const NOBODY: User = User::Account("nobody");

#[test]
fn a_new_user_gets_a_tag_of_the_default_image() {
    let server = TestServer::start_tiny();
    let first = server.walt(NOBODY, &["image", "show"]);
    assert!(first.err.contains("Cloned pc-x86-64, a default image for pc-x86-64."), "{first:?}");
    assert!(first.ok().contains("pc-x86-64 "));
    let second = server.walt(NOBODY, &["image", "show"]);
    assert!(!second.err.contains("Cloned"), "{second:?}");

    let all: Value =
        serde_json::from_str(&server.walt(NOBODY, &["image", "show", "--all", "--json"]).ok()).unwrap();
    let images = all["images"].as_array().unwrap();
    let id = |fullname: &str| {
        let image = images.iter().find(|i| i["fullname"] == fullname).unwrap_or_else(|| panic!("{all:#}"));
        assert_eq!(image["compatibility"], serde_json::json!(["pc-x86-64"]));
        image["id"].clone()
    };
    assert_eq!(
        id("nobody/pc-x86-64:latest"),
        id("waltplatform/pc-x86-64-default:latest"),
        "a tag is no copy"
    );
}

#[test]
fn references_are_renamed_duplicated_removed_and_cloned() {
    let server = TestServer::start_tiny();
    let names = |user| server.walt(user, &["image", "show", "--names-only"]).ok();
    server.walt(ANN, &["image", "show"]).ok();
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "two"]).ok();
    server.walt(ANN, &["image", "rename", "two", "three:v1"]).ok();
    assert_eq!(names(ANN), "pc-x86-64\nthree:v1\n");
    server.walt(ANN, &["image", "rename", "three:v1", "pc-x86-64"]).fails(1, "already exists");
    let bob = User::RootFor("bob");
    server.walt(bob, &["image", "clone", "walt:ann/three:v1"]).ok();
    assert!(names(bob).contains("three:v1\n"));
    server.walt(ANN, &["image", "remove", "three:v1"]).ok();
    assert_eq!(names(ANN), "pc-x86-64\n");
    assert!(names(bob).contains("three:v1\n"), "what bob has is bob's");
}

#[test]
fn lists_are_json_and_names() {
    let server = TestServer::start_tiny();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let list: Value = serde_json::from_str(&server.walt(ANN, &["node", "show", "--json"]).ok()).unwrap();
    assert_eq!(list["num_nodes"], 1);
    let node = &list["nodes"][0];
    assert_eq!((&node["name"], &node["image"]), (&"vn1".into(), &"ann/pc-x86-64:latest".into()));
    assert!(node["mac"].as_str().unwrap().starts_with("52:54:00:"), "{node}");
    assert_eq!(server.walt(ANN, &["node", "show", "--names-only"]).ok(), "vn1\n");
    let table = server.walt(ANN, &["node", "show"]).ok();
    assert!(table.contains("vn1 ") && !table.contains('\x1b'), "colours are for terminals: {table:?}");
    assert_eq!(server.walt(User::RootFor("bob"), &["node", "show", "--names-only"]).ok(), "");
    server.walt(ANN, &["node", "remove", "vn1"]).ok();
    assert_eq!(server.walt(ANN, &["node", "show", "--all", "--names-only"]).ok(), "");
}

#[test]
fn the_images_of_an_account_that_is_gone_are_taken_over() {
    let server = TestServer::start_tiny();
    let bob = User::RootFor("bob");
    let fix = ["advanced", "fix-image-owner", "--yes-i-know-do-it-please", "ann"];
    server.walt(bob, &fix).fails(1, "no user 'ann' has images");
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "work:v1"]).ok();
    server.walt(bob, &["image", "show"]).ok();
    // Both have pc-x86-64.
    server.walt(bob, &fix).fails(1, "you also have an image 'pc-x86-64'.");
    server.walt(bob, &["image", "rename", "pc-x86-64", "mine"]).ok();
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    server.walt(bob, &fix).fails(1, "in use.\nNode vn1: associated with 'pc-x86-64'.");
    server.walt(ANN, &["node", "remove", "vn1"]).ok();
    let said = server.walt(bob, &["advanced", "fix-image-owner", "ann"]);
    assert!(said.err.contains("walt advanced fix-image-owner --yes-i-know-do-it-please ann"), "{said:?}");
    let names = || server.walt(bob, &["image", "show", "--names-only"]).ok();
    assert_eq!(names(), "mine\n", "nothing is done without the long switch");
    assert!(server.walt(bob, &fix).ok().contains("work:v1: now yours."));
    assert_eq!(names(), "mine\npc-x86-64\nwork:v1\n");
    let history = server.walt(bob, &["image", "history", "work:v1"]).ok();
    assert!(history.contains("walt image duplicate pc-x86-64 work:v1"), "{history}");
}
