//! Fuzz targets: everything that reads bytes from nodes, images or the disk, each as a function of bytes that must
//! not panic.
//!
//! ```text
//! scripts/fuzz            libFuzzer searches; an input that crashes stays in <target>/fuzz/crashes
//! cargo test -p walt-fuzz the corpus, and what crashed once, through each target: fast, without the engine
//! fuzz/corpus/<target>/   inputs to start from; those that crashed once have names that begin with `crash-`
//! ```
//! A target also checks properties of inputs that are accepted, not only that there is no panic.

mod netboot;
mod nfs;
mod registry;
mod shaped;

use futures_util::FutureExt;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use walt_images::{NewEntry, NewKind, Store, View};
use walt_netboot::ipxe;
use walt_server::base::config::Config;
use walt_server::edge::link::{self, Lines};
use walt_types::Mac;

/// Environment variable with the name of the target that the engine runs.
pub const ENV_TARGET: &str = "WALT_FUZZ_TARGET";

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 20] = [
    ("rpc", nfs::rpc),
    ("handle", nfs::handle),
    ("node-link", node_link),
    ("tar", walt_images::fuzzing::tar_headers),
    ("decompress", walt_images::fuzzing::decompress),
    ("dockerfile", walt_build::fuzzing::dockerfile),
    ("patterns", patterns),
    ("layer", layer),
    ("compose", compose),
    ("index", walt_images::fuzzing::index),
    ("skeleton", walt_images::fuzzing::skeleton),
    ("ipxe", ipxe_script),
    ("config", config),
    ("dhcp", netboot::dhcp),
    ("tftp", netboot::tftp),
    ("dns", netboot::dns),
    ("ra", netboot::ra),
    ("boot-path", netboot::boot_path),
    ("registry", registry::documents),
    ("link", shaped::link),
];

/// Where layers are unpacked: memory, since each input makes files.
const SCRATCH: &str = "/dev/shm";
/// Most of the scripts' output (the interpreter's own limit is below).
const CONSOLE_MAX: usize = 1 << 20;

/// The lines of a connection of the node link.
/// A list as `.dockerignore`, and a path below an empty line.
fn patterns(bytes: &[u8]) {
    let cut = bytes.windows(2).position(|w| w == b"\n\n");
    let (list, path) = cut.map_or((bytes, &b"a/b/c"[..]), |at| (&bytes[..at], &bytes[at + 2..]));
    let patterns = walt_types::patterns::Patterns::parse(list);
    patterns.matches(path.trim_ascii());
}

fn node_link(bytes: &[u8]) {
    let mut lines = Lines::new(bytes);
    // Reading from memory never waits.
    while let Some(Ok(Some(line))) = lines.next().now_or_never() {
        assert!(line.len() as u64 <= 3 * link::LINE_MAX, "a line is longer than it may be");
        if let Ok(hello) = link::parse_hello(&line) {
            assert_eq!(hello.boot_id.len(), 36);
        }
        if let Ok(progress) = link::parse_progress(&line) {
            assert!(progress.boot_id.len() == 36 && progress.percent <= 100);
        }
        if let Ok(link::NodeLine::Ack(_, Err(reason))) = link::parse_line(&line) {
            assert!(line.contains(reason) || reason == "no reason given");
        }
    }
}

/// A layer is unpacked beneath its directory and nowhere else.
fn layer(bytes: &[u8]) {
    thread_local! {
        static ROOM: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    ROOM.with_borrow_mut(|room| {
        let room = room.get_or_insert_with(|| tempfile::tempdir_in(SCRATCH).expect("memory can be written"));
        let layer = room.path().join("layer");
        let secret = room.path().join("secret");
        std::fs::write(&secret, "outside").expect("memory can be written");
        std::fs::create_dir(&layer).expect("it was removed");
        walt_images::fuzzing::unpack(bytes, &layer);
        assert_eq!(std::fs::read(&secret).expect("it is there"), b"outside", "the layer wrote outside");
        let outside: Vec<_> = names(room.path());
        assert_eq!(outside, ["layer", "secret"], "the layer wrote outside");
        std::fs::remove_dir_all(&layer).expect("memory can be written");
    });
}

/// A tar on top of an image becomes a layer, or an error, and nothing is written outside of the store.
fn compose(bytes: &[u8]) {
    struct Scratch {
        dir: tempfile::TempDir,
        store: Store,
        base: Arc<View>,
    }
    thread_local! {
        static ROOM: RefCell<Option<Scratch>> = const { RefCell::new(None) };
    }
    let make = || {
        let dir = tempfile::tempdir_in(SCRATCH).expect("memory can be written");
        let store = Store::open(&dir.path().join("state")).expect("memory holds a store");
        std::fs::write(dir.path().join("secret"), "outside").expect("memory can be written");
        let entry = |path: &str, kind| NewEntry { path: path.into(), mode: 0o755, uid: 0, gid: 0, kind };
        let secret = dir.path().join("secret").into_os_string().into_encoded_bytes();
        let entries = vec![
            entry("d/f", NewKind::File(b"x".to_vec())),
            entry("d/out", NewKind::Symlink(secret)),
            entry("d/up", NewKind::Symlink(b"../../..".to_vec())),
            entry("d/loop", NewKind::Symlink(b"loop".to_vec())),
        ];
        let layer = store.build_layer(entries, None).expect("a layer");
        let base = store.view(&[layer.diff_id], None).expect("a view");
        Scratch { dir, store, base }
    };
    ROOM.with_borrow_mut(|room| {
        let room = room.get_or_insert_with(make);
        walt_images::fuzzing::compose(bytes, &room.store, &room.base);
        let secret = std::fs::read(room.dir.path().join("secret")).expect("it is there");
        assert_eq!(secret, b"outside", "the archive wrote outside");
        assert_eq!(names(room.dir.path()), ["secret", "state"], "the archive wrote outside");
        assert!(names(&room.dir.path().join("state/images/tmp")).is_empty(), "something is left behind");
    });
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("it is there").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// The files of an image, of which the input is one: it can chain to itself.
struct OneFile<'a>(&'a [u8]);

impl ipxe::Files for OneFile<'_> {
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        if path.ends_with("missing") {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.0[..self.0.len().min(usize::try_from(limit).unwrap_or(usize::MAX))].to_vec())
    }
    fn exists(&self, path: &str) -> bool {
        !path.ends_with("missing")
    }
}

/// The scripts of an image end, whatever they say, and what they start is on this server.
fn ipxe_script(bytes: &[u8]) {
    let machine = ipxe::Machine {
        mac: Mac([0x52, 0x54, 0, 1, 2, 3]),
        ip: Ipv4Addr::new(192, 168, 183, 2),
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: None,
        hostname: "vn1".into(),
        next_server: Ipv4Addr::new(192, 168, 183, 1),
        manufacturer: "QEMU".into(),
        product: "x".into(),
        model: "pc-x86-64".into(),
    };
    let report = ipxe::run(&machine, "start.ipxe", &OneFile(bytes));
    assert!(report.console.len() < CONSOLE_MAX, "the scripts print without end");
}

/// A configuration that is accepted has what the server relies on.
fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = Config::parse(text) {
        assert!(config.state_dir.is_absolute() && config.run_dir.is_absolute());
        assert!(!config.bridge().is_empty());
        let _ = (config.container_gateway(), config.server_ip(), config.socket());
        let few = config.network.walt_net.ip.stations().take(3).count();
        assert!(few <= 3);
    }
}

/// The corpus of each target: inputs by name.
///
/// # Panics
/// If a directory of the corpus cannot be read.
pub fn corpus() -> BTreeMap<&'static str, Vec<(String, Vec<u8>)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let read = |target: &'static str| {
        let dir = root.join(target);
        let inputs = names(&dir)
            .into_iter()
            .map(|name| (name.clone(), std::fs::read(dir.join(name)).expect("a file of the repository")));
        (target, inputs.collect())
    };
    TARGETS.iter().map(|(name, _)| read(name)).collect()
}
