//! `walt advanced health`.

use super::boots::{BROKEN, import_broken};
use serde_json::Value;
use walt_testkit::{TestServer, User};

const ANN: User = User::RootFor("ann");

fn health(server: &TestServer, user: User) -> (Option<i32>, Value) {
    let ran = server.walt(user, &["advanced", "health", "--json"]);
    let json = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    (ran.status, json)
}

#[test]
fn each_user_sees_what_is_theirs() {
    let server = TestServer::start_tiny();
    import_broken(&server);
    server.walt(ANN, &["node", "create", "vn1", "--image", BROKEN]).ok();
    server.walt(ANN, &["node", "config", "vn1", "boot.retries=0"]).ok();
    server.walt(ANN, &["node", "wait", "vn1"]).fails(1, "node vn1 needs a look: ");
    let (_, of_bob) = health(&server, User::Account("nobody"));
    assert_eq!((&of_bob["user"], &of_bob["nodes"]["total"]), (&"nobody".into(), &0.into()), "{of_bob}");
    assert_eq!((&of_bob["all_nodes"], &of_bob["images"]["total"]), (&1.into(), &0.into()), "{of_bob}");
    let own = |findings: &Value| findings.to_string().contains("vn1");
    assert!(!own(&of_bob["findings"]), "a node of ann is not bob's business: {of_bob}");

    let (status, of_ann) = health(&server, ANN);
    assert_eq!((status, &of_ann["healthy"]), (Some(1), &false.into()), "{of_ann}");
    assert_eq!(of_ann["nodes"]["total"], 1, "{of_ann}");
    let finding = of_ann["findings"].as_array().unwrap().iter().find(|f| own(f)).unwrap();
    assert_eq!(finding["level"], "error", "{finding}");
    assert!(finding["advice"].as_str().unwrap().contains("'walt node reboot vn1'"), "{finding}");
    let ran = server.walt(ANN, &["advanced", "health"]);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    for part in ["Something does not work: walt-server ", "Your nodes:  1 of 1: ", "Disk: ", "\nError: "] {
        assert!(ran.out.contains(part), "{part:?} is missing: {}", ran.out);
    }
    // The paths of the state directory are root's.
    assert!(!of_ann["findings"].to_string().contains(server.state_dir().to_str().unwrap()), "{of_ann}");
    assert_eq!(server.walt(User::Account("nobody"), &["advanced", "health"]).status, Some(0));
}
