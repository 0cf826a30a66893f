//! The default image of a model that is not here comes from a registry.

use crate::registries::{line, server_with};
use serde_json::Value;
use std::fs;
use std::time::Duration;
use walt_testkit::{DockerRegistry, Options, TestServer, User, images, until};

const ANN: User = User::RootFor("ann");
/// How long a search may take.
const SOON: Duration = Duration::from_secs(60);
/// How long the server may rest after one that found nothing.
const REST: Duration = Duration::from_secs(120);
const MAC: &str = "52:54:00:18:d5:5d";

/// Type, and model as it is claimed, of the device of [`MAC`].
fn device(server: &TestServer) -> Option<(String, String)> {
    let list: Value = serde_json::from_str(&server.walt(ANN, &["device", "show", "--json"]).ok()).unwrap();
    let found = list["devices"].as_array().unwrap().iter().find(|d| d["mac"] == MAC)?.clone();
    Some((found["type"].as_str()?.into(), found["claimed_model"].as_str().unwrap_or_default().into()))
}

/// A machine of the model `box-1` gets an address.
fn machine_asks(server: &TestServer) {
    let [a, b, c, _] = server.address().octets();
    let ip = format!("{a}.{b}.{c}.9");
    let words = ["dhcp-event", "commit", "walt.node.box-1", "", &ip, MAC, "", "0", "unknown"];
    let ran = server.server_command(&words).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

#[test]
fn the_image_of_a_new_model_comes_from_a_registry() {
    if !DockerRegistry::is_installed() {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = DockerRegistry::start(&room.path().join("registry"), false);
    let other = server_with(&line("lab", registry.port, "none"), &[]);
    // The registries are asked in their order: one wants credentials, one is not there, one has all images below 'ann'.
    let config = format!(
        "registries:\n{}{}- {{label: frog, api: jfrog-artifactory, host: 127.0.0.1, port: {}, protocol: http, auth: none, \
         repository: ann}}\n",
        line("closed", registry.port, "basic"),
        line("gone", 1, "none"),
        registry.port
    );
    let options = Options { config, ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    machine_asks(&server);
    assert_eq!(device(&server), Some(("unknown".into(), "box-1".into())));
    let log = until("the first search to end", SOON, || {
        Some(server.log()).filter(|log| log.contains("unknown-18d55d is not a node yet"))
    });
    for part in [
        "Device unknown-18d55d is a walt node of type 'box-1'.",
        "closed wants credentials; gone: ",
        "frog does not have it",
        "An image for the model is needed, as waltplatform/box-1-default in a registry",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }

    let dir = images::tiny(other.dir());
    let text = fs::read_to_string(dir.join("config.json")).unwrap().replace("pc-x86-64\"", "box-1\"");
    fs::write(dir.join("config.json"), text).unwrap();
    other.import("box-1-default", &dir);
    other.walt(ANN, &["image", "clone", "walt:waltplatform/box-1-default"]).ok();
    other.walt(ANN, &["image", "publish", "--registry", "lab", "box-1-default"]).ok();

    // It is not asked for with each request of the machine.
    machine_asks(&server);
    machine_asks(&server);
    let searches = || server.log().matches("Trying to download a default image for 'box-1'").count();
    assert_eq!(searches(), 1);
    until("the image", REST, || {
        machine_asks(&server);
        server.log().contains("the default image of 'box-1' came from frog").then_some(())
    });
    assert_eq!(searches(), 2);
    machine_asks(&server);
    assert_eq!(device(&server), Some(("node".into(), String::new())));
    let log = server.log();
    for part in [
        "device unknown-18d55d was renamed to node-18d55d for clarity",
        "new node (device type previously unknown) name=node-18d55d model=box-1",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let nodes = server.walt(ANN, &["node", "show", "--all", "--json"]).ok();
    assert!(nodes.contains("waltplatform/box-1-default:latest"), "{nodes}");
}
