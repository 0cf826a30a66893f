//! For tests only: a real server on temporary paths, and the ways users have to it.
//!
//! ```text
//! TestServer ── starts ──▶ walt-server (the program that was built)
//!   ├─ walt(user, [..])       the real client, as root, as root for another, or as another account
//!   ├─ terminal(user, [..])   the same on a pseudo-terminal: Terminal, with bounded waits
//!   └─ api(user)              raw HTTP on walt.sock: what the client would hide
//! Machine                     what a server may leave behind: links, mounts, rules, …
//! Netns, scan                 other machines on walt-net, and what they reach
//! Newcomer                    one that the server did not start: it has no address yet
//! Registered                  one that the server knows as a node: it sends log lines, or speaks the node link
//! DockerRegistry, OwnRegistry a registry of the distribution; that of a server
//! cut, kills                  clients that go before the end; servers that die at random moments
//! images                      default images, cached by the digest of their recipes
//! help                        the examples of help pages, as they stand there
//! ```
//! A server takes a free slot: a number that makes its directory, bridge and subnets unique on this
//! machine. What a test that was killed has left in a slot is taken down by the next one that gets it.
//!
//! Every wait has a bound and says what it waited for ([`until`]). Limits: [`server::SLOTS`] servers.

pub mod cut;
pub mod help;
pub mod http;
pub mod images;
pub mod kills;
pub mod machine;
pub mod netns;
pub mod newcomer;
pub mod registered;
pub mod registry;
pub mod scan;
pub mod server;
mod slot;
pub mod terminal;

pub use http::Api;
pub use machine::Machine;
pub use netns::{Netns, Station};
pub use newcomer::Newcomer;
pub use registered::Registered;
pub use registry::{DockerRegistry, OwnRegistry};
pub use server::{Ended, Options, Ran, TestServer, User};
pub use terminal::Terminal;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
///
/// # Panics
/// After `limit`, naming what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        std::thread::sleep(POLL);
    }
}

/// Environment variable with the directory of the programs under test, such as installed ones.
pub const ENV_PROGRAMS: &str = "WALT_TEST_PROGRAMS";

/// Waits in a shell until systemd has started what an image starts: the prompt does not promise that. At most a minute.
pub const OS_STARTED: &str = "for n in $(seq 60); do \
    case $(systemctl is-system-running --wait 2>/dev/null) in running | degraded) break ;; esac; sleep 1; done";

/// The directory of the programs under test: [`ENV_PROGRAMS`], else the one above this test's own program
/// that has them.
///
/// # Panics
/// If they were not built.
pub fn programs() -> PathBuf {
    if let Some(dir) = std::env::var_os(ENV_PROGRAMS) {
        return dir.into();
    }
    let own = std::env::current_exe().expect("a program has a path");
    own.ancestors()
        .skip(1)
        .find(|dir| dir.join("walt-server").is_file() && dir.join("walt").is_file())
        .map(Path::to_owned)
        .unwrap_or_else(|| panic!("no walt-server above {}: run 'cargo build' first", own.display()))
}

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Directory for what outlives a test: caches, and what is left of failures.
pub fn target() -> PathBuf {
    // Invariant: programs() is <target>/<profile>.
    programs().parent().expect("a target directory").to_owned()
}
