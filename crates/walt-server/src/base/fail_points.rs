//! Points at which crash tests kill the server, as `kill -9` would.

use std::sync::OnceLock;

/// Environment variable of crash tests: the name of the point at which the process is killed.
const VARIABLE: &str = "WALT_FAIL_STORE";

/// All points, in the order in which operations reach them.
pub const POINTS: &[&str] = &[
    // Import of a default image: the layer is in the store; its configuration too.
    "import-layer",
    "import-config",
    // The platform layer of an image: the layer is in the store; its view too.
    "platform-layer",
    "platform-view",
    // An image shell: the session is on record; its directory is made.
    "shell-recorded",
    "shell-prepared",
    // A save: the overlay is unmounted; the layer is written; its configuration too; the commit is on record;
    // the layer is in the store; the reference is moved.
    "save-sealed",
    "save-prepared",
    "save-config",
    "save-recorded",
    "save-adopted",
    "save-referenced",
    // A download: a layer is in the store; the image's configuration too.
    "pull-layer",
    "pull-config",
    // A build: its image is in the store.
    "build-config",
    // The end of a session without a save: its record is gone.
    "discard-deleted",
    // A physical node is forgotten: it is on record in the trash; its data is there too.
    "trash-recorded",
    "trash-moved",
    // It is restored: that is on record; its data is where nodes have it.
    "restore-begun",
    "restore-moved",
    // It has expired: its record in the trash is gone.
    "trash-expired",
    // Somebody in the queue for nodes has got them, and was not told.
    "node-granted",
];

/// Marks a point, one of [`POINTS`].
pub fn point(name: &'static str) {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(POINTS.contains(&name), "{name} is not listed");
    if WANTED.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name) {
        // No destructor, no core dump: the same state as after a kill.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
