//! An image's whole way, as a new user goes it: built from a Dockerfile, booted, changed on the node, saved, published,
//! removed, found, cloned, and booted by another node. And an image that no program of ours has made.

use super::{BOOT_ID, MINI, USER, on, wait};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use walt_testkit::{DockerRegistry, Options, OwnRegistry, Ran, TestServer, User, images};

/// Seconds a foreign program may take.
const LIMIT: &str = "300";
/// What is compared of a node: all but what differs from boot to boot. Not the numbers of links, which the kernel does not
/// keep up to date in a union.
const LOOK: &str = "cd / && find bin etc home lib root sbin srv usr -xdev ! -name 'walt-*' | sort | while read -r f; do \
                    stat -c '%n|%F|%a|%u|%g|%t|%T' \"$f\"; readlink \"$f\"; \
                    case $f in srv* | root* | home*) [ ! -f \"$f\" ] || stat -c '%s %Y' \"$f\"; \
                    [ ! -f \"$f\" ] || md5sum \"$f\" ;; esac; done";

fn walt(server: &TestServer, words: &[&str]) -> Ran {
    server.walt(USER, words)
}

/// Runs a foreign program that must succeed.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new("timeout")
        .arg(LIMIT)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn an_image_goes_all_the_way() {
    if !DockerRegistry::is_installed() {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(room.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let registry = DockerRegistry::start(&room.path().join("lab"), false);
    let config = format!(
        "registries:\n- {{label: lab, api: docker-registry-v2, host: 127.0.0.1, port: {}, protocol: http, auth: none}}\n",
        registry.port
    );
    let mut server = TestServer::prepare(Options { config, ..Options::default() });
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let mini = images::built(MINI);
    server.import(MINI, &mini);

    let project = room.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("tool"), "#!/bin/sh\necho tool\n").unwrap();
    fs::write(
        project.join("Dockerfile"),
        format!(
            "FROM waltplatform/{MINI}\n\
             RUN mkdir -p /srv/data/sub && cd /srv/data && echo a >a && echo b >b && echo c >sub/c && ln a linked\n\
             COPY --chmod=755 tool /usr/local/bin/\n"
        ),
    )
    .unwrap();
    let dir = project.display().to_string();
    let built = walt(&server, &["image", "build", "--from-dir", &dir, "project"]).ok();
    assert!(built.contains("\nOK\nNew image project saved.\n"), "{built}");
    walt(&server, &["node", "create", "vn1", "--image", "project"]).ok();
    wait(&server, "vn1");
    assert_eq!(on(&server, "vn1", "/usr/local/bin/tool; cat /srv/data/linked"), "tool\na\n");

    // Built once more, it is what it was: the node goes on.
    let boot = on(&server, "vn1", BOOT_ID);
    let again = walt(&server, &["image", "build", "-y", "--from-dir", &dir, "project"]).ok();
    assert!(
        again.contains("Nothing changed: image project is left as it was.") && !again.contains("reboot"),
        "{again}"
    );
    assert_eq!(on(&server, "vn1", BOOT_ID), boot, "the node was rebooted for nothing");
    // Another tool is another image.
    fs::write(project.join("tool"), "#!/bin/sh\necho better tool\n").unwrap();
    let changed = walt(&server, &["image", "build", "-y", "--from-dir", &dir, "project"]).ok();
    assert!(changed.contains("Image project updated.\nTrying to reboot Node vn1"), "{changed}");
    wait(&server, "vn1");
    assert_ne!(on(&server, "vn1", BOOT_ID), boot);
    assert_eq!(on(&server, "vn1", "/usr/local/bin/tool"), "better tool\n");
    on(
        &server,
        "vn1",
        "cd /srv/data && rm b && rm -r sub && mkdir sub && echo new >sub/new && mv a moved && chown 7:8 moved",
    );
    let before = on(&server, "vn1", LOOK);
    assert!(!before.contains("srv/data/b|") && before.contains("srv/data/sub/new|"), "{before}");
    walt(&server, &["node", "save", "vn1", "result"]).ok();
    let published = walt(&server, &["image", "publish", "result"]).ok();
    assert!(published.contains("OK, image was published at:\nlab:nobody/result"), "{published}");
    walt(&server, &["node", "remove", "-y", "vn1"]).ok();
    for image in ["result", "project"] {
        walt(&server, &["image", "remove", image]).ok();
    }
    let found = walt(&server, &["image", "search", "result"]).ok();
    assert!(found.contains("lab:nobody/result"), "{found}");
    walt(&server, &["image", "clone", "lab:nobody/result", "again"]).ok();
    walt(&server, &["node", "create", "vn2", "--image", "again"]).ok();
    wait(&server, "vn2");
    let after = on(&server, "vn2", LOOK);
    let only = |a: &str, b: &str| {
        let there: BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    // Not the whole trees: what differs is to be seen.
    let differing = (only(&before, &after), only(&after, &before));
    assert_eq!(differing, (Vec::new(), Vec::new()), "another node that boots the clone has the same tree");
    assert_eq!(after, before);
    walt(&server, &["node", "remove", "-y", "vn2"]).ok();
    made_elsewhere(&server, room.path(), &mini);
}

/// buildah makes an image of nothing but the labels and a tree, and pushes it to the server itself.
fn made_elsewhere(server: &TestServer, room: &Path, mini: &Path) {
    let ann = User::RootFor("ann");
    let registry = OwnRegistry::serve(server, ann);
    let auth = room.join("auth.json");
    registry.login(server, ann, &auth);
    let auth = auth.display().to_string();

    let context = room.join("scratch");
    fs::create_dir(&context).unwrap();
    fs::hard_link(mini.join("rootfs.tar"), context.join("rootfs.tar"))
        .or_else(|_| fs::copy(mini.join("rootfs.tar"), context.join("rootfs.tar")).map(drop))
        .unwrap();
    let file = "FROM scratch\nADD rootfs.tar /\nLABEL walt.node.models=pc-x86-64\n";
    fs::write(context.join("Dockerfile"), file).unwrap();
    let storage = ["buildah", "buildah-run"].map(|name| room.join(name).display().to_string());
    let store = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver", "vfs"];
    let build = ["bud", "-q", "--isolation", "chroot", "-t", "scratch", context.to_str().unwrap()];
    run("buildah", &[&store[..], &build].concat());
    let to = format!("docker://127.0.0.1:{}/ann/elsewhere", registry.port);
    let push = ["push", "-q", "--authfile", &auth, "--tls-verify=false", "scratch", &to];
    run("buildah", &[&store[..], &push].concat());

    server.walt(ann, &["node", "create", "vn3", "--image", "elsewhere"]).ok();
    server.walt(ann, &["node", "wait", "--timeout", LIMIT, "vn3"]).ok();
    let ran = server.walt(ann, &["node", "run", "vn3", "cat /etc/os-release"]);
    assert!(ran.ok().contains("WalT mini"));
    server.walt(ann, &["node", "remove", "-y", "vn3"]).ok();
}
