//! `walt node save` on an image that has all layers that it can have: there is no way out that would not reboot the node, so
//! it finds its own.

use crate::{BOOT_ID, MINI, USER, on, wait};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use walt_testkit::TestServer;

/// Most layers of an image, as the help says.
const MAX_LAYERS: u64 = 125;
/// What is compared of the node: names, owners, modes, times, contents, and which files are one.
const LOOK: &str = "cd /srv && find . | sort | while read -r f; do stat -c '%n|%F|%a|%u|%g' \"$f\"; \
                    [ -d \"$f\" ] || stat -c '%s %Y' \"$f\"; [ ! -f \"$f\" ] || md5sum \"$f\"; done; \
                    ls -R /etc /root /home /usr /bin /sbin; [ a/one -ef b/two ] && echo linked";

/// How many layers an image of the user's has.
fn layers_of(server: &TestServer, name: &str) -> u64 {
    let history = server.walt(USER, &["image", "history", name, "--json"]).ok();
    let history: Value = serde_json::from_str(&history).unwrap();
    history["versions"][0]["layers"].as_u64().unwrap()
}

#[test]
fn a_node_of_an_image_with_all_layers_is_saved() {
    let server = TestServer::start_with_images(&[MINI]);
    let walt = |words: &[&str]| server.walt(USER, words);
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(room.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // Besides the layer of the mini image, and that of the links.
    let copies: String = (2..MAX_LAYERS).map(|n| format!("COPY <<END /srv/d/f{n}\n{n}\nEND\n")).collect();
    let links = "RUN mkdir -p /srv/a /srv/b && echo l >/srv/a/one && ln /srv/a/one /srv/b/two\n";
    fs::write(room.path().join("Dockerfile"), format!("FROM waltplatform/{MINI}\n{links}{copies}")).unwrap();
    walt(&["image", "build", "--from-dir", room.path().to_str().unwrap(), "high"]).ok();
    assert_eq!(layers_of(&server, "high"), MAX_LAYERS);

    walt(&["node", "create", "vn1", "--image", "high"]).ok();
    wait(&server, "vn1");
    on(
        &server,
        "vn1",
        "cd /srv/d && rm f50 && echo changed >f60 && mv f70 moved && echo new >new && \
         rm -r /etc/profile && mkdir /root/dir && chown 7:8 f61",
    );
    let (boot, before) = (on(&server, "vn1", BOOT_ID), on(&server, "vn1", LOOK));
    assert!(before.ends_with("linked\n"), "{before}");
    let note = "the image already had the maximum of 125 layers";
    let dry = walt(&["node", "save", "vn1", "saved", "--dry-run"]);
    assert!(dry.out.contains("  /srv/d/moved\n") && !dry.err.contains(note), "{dry:?}");
    let saved = walt(&["node", "save", "vn1", "saved"]);
    assert!(saved.err.contains(note), "{saved:?}");
    assert!(saved.ok().ends_with("\nOK\n"));
    // Neither the node's image nor the node was touched.
    assert_eq!(layers_of(&server, "high"), MAX_LAYERS);
    assert_eq!(layers_of(&server, "saved"), 2);
    assert_eq!(on(&server, "vn1", BOOT_ID), boot);
    let diff = walt(&["image", "diff", "high", "saved"]).ok();
    let paths: Vec<_> = diff.lines().map(|l| l.split("  /").nth(1).unwrap()).collect();
    let expected = [
        "etc/profile",
        "root/dir/",
        "srv/d/f50",
        "srv/d/f60  (content)",
        "srv/d/f61  (owner)",
        "srv/d/f70",
        "srv/d/moved",
        "srv/d/new",
    ];
    assert_eq!(paths, expected, "{diff}");

    walt(&["node", "boot", "vn1", "saved"]).ok();
    wait(&server, "vn1");
    assert_eq!(on(&server, "vn1", LOOK), before, "the node that boots what was saved has the same tree");
    // From here on there is room again.
    on(&server, "vn1", "echo more >/srv/more");
    let more = walt(&["node", "save", "-y", "vn1", "saved"]);
    assert!(!more.err.contains(note) && more.status == Some(0), "{more:?}");
    assert_eq!(layers_of(&server, "saved"), 3);
    wait(&server, "vn1");
    assert_eq!(on(&server, "vn1", "cat /srv/more"), "more\n");
}
