//! Copies from and to a node, and saves of it, that end before they are done: their client goes.

use super::{USER, on};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;
use walt_testkit::cut::{How, cleared, cut};
use walt_testkit::{TestServer, until};

/// For a node to be served again, and to be asked something, while the server dies now and then.
const SERVED_AGAIN: Duration = Duration::from_secs(300);
/// Bytes that take minutes to come from a node, or to go to it.
const ENDLESS: u64 = 4 << 30;

/// Nothing of what was cut off runs on the node or is mounted there.
#[track_caller]
fn node_is_clear(server: &TestServer) {
    until("what was cut off to end on the node", SERVED_AGAIN, || {
        let ran = server.walt(
            USER,
            &["node", "run", "vn1", "grep -c walt-save /proc/mounts; ps | grep -c '[t]ar .*-[cx] -f'"],
        );
        (ran.out == "0\n0\n").then_some(())
    });
}

/// Clients go by ctrl-C and by `kill -9`; the image `saved` is that of the node.
pub fn clients_go(server: &TestServer, dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    let names = || server.walt(USER, &["image", "show", "--names-only"]).ok();
    let versions = || server.walt(USER, &["image", "history", "saved", "--json"]).ok();
    on(server, "vn1", &format!("truncate -s {ENDLESS} /root/endless"));
    File::create(dir.join("endless")).unwrap().set_len(ENDLESS).unwrap();
    let packs =
        |words: &str| server.children().iter().any(|line| line.contains("ssh ") && line.contains(words));
    let writes = || fs::read_dir(server.state_dir().join("images/tmp")).unwrap().next().is_some();
    let (names_before, versions_before) = (names(), versions());
    for how in How::ALL {
        cut(server, USER, &["node", "save", "vn1", "half"], how, |_| packs("walt-save") && writes());
        cleared(server);
        node_is_clear(server);
    }
    let booted = ["node", "cp", "-y", "vn1:/root/endless", "booted-image"];
    cut(server, USER, &booted, How::Interrupted, |_| packs("tar") && writes());
    cleared(server);
    // What comes is under a name of its own until all is there: a client that is killed leaves that.
    let coming = || {
        let list = fs::read_dir(dir).unwrap().flatten();
        list.filter(|e| e.file_name().to_string_lossy().starts_with(".walt-cp-")).count()
    };
    for (number, how) in How::ALL.into_iter().enumerate() {
        let back = path("endless-back");
        cut(server, USER, &["node", "cp", "vn1:/root/endless", &back], how, |_| packs("tar") && coming() > 0);
        assert_eq!(coming(), number);
        assert!(!Path::new(&back).exists());
        cleared(server);
    }
    let to = ["node", "cp", &path("endless"), "vn1:/root/to"];
    cut(server, USER, &to, How::Interrupted, |_| packs("tar"));
    cleared(server);
    node_is_clear(server);
    assert_eq!((names(), versions()), (names_before, versions_before), "no image was made or changed");
    on(server, "vn1", "rm -f /root/endless /root/to");
}
