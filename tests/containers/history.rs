//! What an image was before, and all its layers as one.

use super::USER;
use super::mini::MINI;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use walt_testkit::TestServer;

/// Most layers of an image, as the help says.
const MAX_LAYERS: usize = 125;

fn json(server: &TestServer, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.walt(USER, &[arguments, &["--json"]].concat()).ok()).unwrap()
}

fn save(server: &TestServer, script: &str) {
    let ran = server.walt_with_input(USER, &["image", "shell", "mine", "--save"], script);
    assert!(ran.ok().contains("Image mine updated."));
}

#[test]
fn versions_are_kept_compared_gone_back_to_and_squashed() {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{MINI}"), "mine"]).ok();
    save(&server, "echo two >/root/two; rm /etc/profile; chmod 711 /root");
    save(&server, "echo three >/root/two; mkfifo '/root/a\nb'");

    let history = json(&server, &["image", "history", "mine"]);
    let versions = history["versions"].as_array().unwrap();
    let of = |key: &str| versions.iter().map(|v| v[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("version"), [3, 2, 1], "{history:#}");
    assert_eq!(of("current"), [true, false, false]);
    assert_eq!(of("layers"), [3, 2, 1]);
    assert_eq!(of("user"), ["nobody"; 3]);
    let clone = format!("walt image clone walt:waltplatform/{MINI}");
    assert_eq!(of("command"), ["walt image shell mine", "walt image shell mine", &clone]);

    let diff = server.walt(USER, &["image", "diff", "mine@1", "mine"]);
    for line in ["+ ", "  /root/two\n", "  /root/a\\x0ab\n", "  /etc/profile\n", "  /root/  (mode)\n"] {
        assert!(diff.out.contains(line), "{line:?} in {diff:?}");
    }
    assert_eq!(diff.err.trim(), "2 added, 1 changed, 1 deleted.");
    let diff = json(&server, &["image", "diff", "mine@2", "mine@3"]);
    let changed = diff["differences"].as_array().unwrap().iter().find(|d| d["path"] == "/root/two").unwrap();
    assert_eq!((&changed["change"], &changed["what"][0]), (&"changed".into(), &"content".into()), "{diff:#}");
    let same = server.walt(USER, &["image", "diff", "mine@1", &format!("waltplatform/{MINI}")]);
    assert!(same.status == Some(0) && same.out.is_empty(), "{same:?}");
    assert!(same.err.contains("contain the same files"), "{same:?}");
    server.walt(USER, &["image", "diff", "mine@7", "mine"]).fails(1, "has no version 7");

    // One layer of three: the same files, and what was is still there.
    assert!(
        server.walt(USER, &["image", "squash", "mine"]).ok().contains("Image was squashed successfully.")
    );
    let diff = server.walt(USER, &["image", "diff", "mine@3", "mine"]);
    assert!(diff.err.contains("contain the same files"), "{diff:?}");
    let versions = json(&server, &["image", "history", "mine"])["versions"].clone();
    assert_eq!((&versions[0]["layers"], &versions[1]["layers"]), (&1.into(), &3.into()), "{versions:#}");
    assert!(server.walt(USER, &["image", "squash", "mine"]).ok().contains("nothing to do"));

    // Back, and back again.
    assert!(server.walt(USER, &["image", "rollback", "mine", "1"]).ok().contains("Image mine updated."));
    let look = |script: &str| server.walt_with_input(USER, &["image", "shell", "mine"], script);
    assert_eq!(look("test -e /etc/profile && test ! -e /root/two").status, Some(0));
    server
        .walt(USER, &["image", "rollback", "mine", "1"])
        .fails(1, "already points to the same image as version 1");
    assert!(server.walt(USER, &["image", "rollback", "mine"]).ok().contains("Image mine updated."));
    assert_eq!(look("test \"$(cat /root/two)\" = three").status, Some(0));
    assert_eq!(json(&server, &["image", "history", "mine"])["versions"].as_array().unwrap().len(), 6);
    server.walt(USER, &["image", "rollback", "mine", "9"]).fails(1, "has no version 9");

    // What is pruned is gone from the disk, and the store is whole.
    let declined = server.walt_with_input(USER, &["image", "prune", "mine"], "n\n");
    assert!(declined.err.contains("5 earlier version(s) would be deleted for good"), "{declined:?}");
    assert_eq!(declined.status, Some(1));
    assert!(server.walt(USER, &["image", "prune", "-y"]).ok().contains("5 earlier version(s) removed"));
    assert_eq!(json(&server, &["image", "history", "mine"])["versions"].as_array().unwrap().len(), 1);
    let check = server.server_command(&["check-store", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!((&report["clean"], &report["images"]), (&true.into(), &2.into()), "{report:#}");
}

#[test]
fn an_image_with_all_layers_is_changed_all_the_same() {
    let server = TestServer::start_with_images(&[MINI]);
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(room.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let build = |text: &str, name: &str| {
        fs::write(room.path().join("Dockerfile"), text).unwrap();
        server.walt(USER, &["image", "build", "--from-dir", room.path().to_str().unwrap(), name]).ok()
    };
    // Besides the layer of the mini image.
    let copies: String = (1..MAX_LAYERS).map(|n| format!("COPY <<END /srv/f{n}\n{n}\nEND\n")).collect();
    build(&format!("FROM waltplatform/{MINI}\n{copies}"), "mine");
    let layers = |name: &str| json(&server, &["image", "history", name])["versions"][0]["layers"].clone();
    assert_eq!(layers("mine"), MAX_LAYERS);

    // Its changes are those of a session, which has nothing else of them.
    let change = "rm /srv/f3 && echo new >/srv/new && echo changed >/srv/f5 && ln /srv/f7 /srv/linked\n";
    let saved = server.walt_with_input(USER, &["image", "shell", "mine", "--save"], change);
    let note = "the image already had the maximum of 125 layers";
    assert!(saved.err.contains(note), "{saved:?}");
    assert!(saved.ok().contains("Image mine updated."));
    assert_eq!(layers("mine"), 2);
    let diff = server.walt(USER, &["image", "diff", "mine@1", "mine"]);
    let changed: Vec<_> = diff.out.lines().filter_map(|l| l.split("  /").nth(1)).collect();
    assert_eq!(changed, ["srv/f3", "srv/f5  (content)", "srv/linked", "srv/new"], "{diff:?}");
    let look = "cat /srv/new /srv/f5; ls /srv/f3; [ /srv/f7 -ef /srv/linked ] && cat /srv/f124\n";
    let ran = server.walt_with_input(USER, &["image", "shell", "mine"], look);
    assert_eq!(ran.out, "new\nchanged\n124\n", "{ran:?}");

    // A command of a build on top of the same.
    server.walt(USER, &["image", "rollback", "mine", "1"]).ok();
    let built = build("FROM mine\nRUN rm /srv/f3 && cat /srv/f4 >/srv/f5\n", "built");
    assert!(built.contains("(an image can have 125 layers: those so far become one)\n"), "{built}");
    assert_eq!((layers("mine"), layers("built")), (MAX_LAYERS.into(), 2.into()));
    let ran =
        server.walt_with_input(USER, &["image", "shell", "built"], "ls /srv/f3; cat /srv/f5 /srv/f124\n");
    assert_eq!(ran.out, "4\n124\n", "{ran:?}");
    super::crash::check_store(&server);
}
