//! Clients that go in the middle of what they asked for, by ctrl-C and by `kill -9`: nothing is left of it, no image is
//! locked, and the same can be done at once.

use super::USER;
use super::mini::MINI;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use walt_testkit::cut::{How, cleared, cut};
use walt_testkit::{DockerRegistry, Options, TestServer, until};

/// Bytes that pass in each direction of a connection before it stalls: enough for all but layers.
const PASSES: usize = 1 << 20;
/// Size of what makes a layer.
const LARGE: u64 = 8 << 20;
/// For housekeeping.
const SOON: Duration = Duration::from_secs(60);

/// A way to a registry on which nothing large arrives; its port, and how many transfers stand still.
fn stalling(behind: u16) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, stalled) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU32::new(0)));
    let count = stalled.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let registry = TcpStream::connect(("127.0.0.1", behind)).unwrap();
            for (from, to) in [(&client, &registry), (&registry, &client)] {
                let (from, to, count) = (from.try_clone().unwrap(), to.try_clone().unwrap(), count.clone());
                thread::spawn(move || pass(from, to, &count));
            }
        }
    });
    (port, stalled)
}

/// Passes on what comes, up to the limit; then it only waits for the other direction to end.
fn pass(mut from: TcpStream, mut to: TcpStream, stalled: &AtomicU32) {
    let mut bytes = [0; 16384];
    let mut passed = 0;
    loop {
        match from.read(&mut bytes) {
            Ok(n @ 1..) if to.write_all(&bytes[..n]).is_ok() => passed += n,
            // Whichever side has gone: the other one goes, too.
            _ => {
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                return;
            }
        }
        if passed > PASSES {
            stalled.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

/// A file that does not get smaller.
fn noise(path: &Path, bytes: u64) {
    let mut random = File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut random, &mut File::create(path).unwrap()).unwrap();
}

#[test]
fn nothing_is_left_of_what_a_client_has_not_waited_for() {
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(room.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let path = |name: &str| room.path().join(name).display().to_string();
    let registry =
        DockerRegistry::is_installed().then(|| DockerRegistry::start(&room.path().join("lab"), false));
    let slow = registry.as_ref().map(|registry| stalling(registry.port));
    let line = |label: &str, port: u16| {
        format!(
            "- {{label: {label}, api: docker-registry-v2, host: 127.0.0.1, port: {port}, protocol: http, auth: none}}\n"
        )
    };
    let config = match (&registry, &slow) {
        (Some(registry), Some((port, _))) => {
            format!("registries:\n{}{}", line("lab", registry.port), line("slow", *port))
        }
        _ => String::new(),
    };
    let mut server = TestServer::prepare(Options { config, ..Options::default() });
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    server.import(MINI, &walt_testkit::images::built(MINI));
    let walt = |words: &[&str]| server.walt(USER, words).ok();
    walt(&["image", "clone", &format!("walt:waltplatform/{MINI}"), "mine"]);
    let names = || {
        let mut names: Vec<_> = walt(&["image", "show", "--names-only"]).lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let state = server.state_dir();
    let count = |dir: &str| fs::read_dir(state.join(dir)).unwrap().count();
    // What may be done with an image that nothing locks.
    let usable = |image: &str| {
        walt(&["image", "rename", image, "renamed"]);
        walt(&["image", "rename", "renamed", image]);
    };

    let versions = || walt(&["image", "history", "mine", "--json"]).matches("\"version\"").count();

    // Into an image: so much that it is cut off when it has just begun.
    fs::create_dir(path("many")).unwrap();
    noise(&room.path().join("many/large"), 32 * LARGE);
    let before = versions();
    for how in How::ALL {
        cut(&server, USER, &["image", "cp", &path("many"), "mine:/root"], how, |_| count("images/tmp") > 0);
        cleared(&server);
        usable("mine");
    }
    assert_eq!(versions(), before);

    // Out of one, as much.
    walt(&["image", "duplicate", "mine", "big"]);
    walt(&["image", "cp", &path("many"), "big:/root"]);
    noise(&room.path().join("many/large"), LARGE);
    walt(&["image", "cp", &path("many"), "mine:/root"]);
    for how in How::ALL {
        let out = path(&format!("out-{how:?}"));
        let coming = || {
            let list = fs::read_dir(Path::new(&out).join("many")).into_iter().flatten().flatten();
            list.filter(|e| e.file_name().to_string_lossy().starts_with(".walt-cp-")).count()
        };
        cut(&server, USER, &["image", "cp", "big:/root", &out], how, |_| coming() > 0);
        // A client that is killed leaves the file that was coming.
        assert_eq!(coming(), usize::from(how == How::Killed));
        cleared(&server);
        usable("big");
    }

    // A build.
    fs::create_dir(path("project")).unwrap();
    let file = |run: &str| {
        fs::write(room.path().join("project/Dockerfile"), format!("FROM mine\nRUN {run}\n")).unwrap();
    };
    file("echo started; exec sleep 98765");
    let project = path("project");
    let build = ["image", "build", "--from-dir", &project, "built"];
    for how in How::ALL {
        cut(&server, USER, &build, how, |said| said.contains("\nstarted"));
        cleared(&server);
        usable("mine");
    }
    assert!(!names().contains(&"built".to_owned()));
    file("echo built >/root/built");
    walt(&build);

    let Some((_, stalled)) = &slow else { return };
    // To a registry.
    for how in How::ALL {
        let before = stalled.load(Ordering::SeqCst);
        let publish = ["image", "publish", "--registry", "slow", "mine"];
        cut(&server, USER, &publish, how, |_| stalled.load(Ordering::SeqCst) > before);
        cleared(&server);
        usable("mine");
    }
    walt(&["image", "publish", "--registry", "lab", "mine"]);

    // From a registry. A layer that is here is not fetched: the large one must have gone, not only the first of those
    // that nothing uses any more. A pass of housekeeping that began earlier removes some of them before the others.
    let large = || {
        let layers = fs::read_dir(state.join("images/layers")).unwrap().flatten();
        layers.filter(|layer| layer.path().join("fs/root/many/large").exists()).count()
    };
    assert!(large() > 0);
    for image in ["built", "big", "mine"] {
        walt(&["image", "remove", image]);
    }
    walt(&["image", "prune", "-y"]);
    until("the large layers of removed images to go", SOON, || (large() == 0).then_some(()));
    let before = names();
    for how in How::ALL {
        let waiting = stalled.load(Ordering::SeqCst);
        let clone = ["image", "clone", "slow:nobody/mine", "back"];
        cut(&server, USER, &clone, how, |_| stalled.load(Ordering::SeqCst) > waiting);
        cleared(&server);
        assert_eq!(names(), before);
    }
    walt(&["image", "clone", "lab:nobody/mine", "back"]);
    usable("back");
    super::crash::check_store(&server);
}
