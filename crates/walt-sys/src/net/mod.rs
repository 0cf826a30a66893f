//! The network of one server on one machine: bridge, taps, container links, neighbours, sysctls and nft.
//!
//! ```text
//!   qemu ── tap ──┐
//!   qemu ── tap ──┤ bridge (our alias, fixed address, no IPv6)      uplink (default route)
//!   cable ────────┘     own address, permanent neighbours               ▲
//!                                                                       │ masquerade (nft table `walt-<bridge>`)
//!   container netns: eth0 <ip>/32 ── veth, gateway/32, route <ip>/32 ───┘
//! ```
//!
//! Every function is blocking: netlink is spoken on a short-lived thread of its own, which inherits the network
//! namespace of the thread that calls. So a test that sits in a private namespace sees only that namespace, and a
//! caller in an async task wraps the call in `spawn_blocking`.
//!
//! All changes are idempotent: doing them twice is doing them once, and removing what is absent succeeds. That is what
//! a server needs that may be killed between any two of them.
//!
//! Limits: a netlink exchange may take [`NETLINK_TIMEOUT`], a run of `nft` [`nft::NFT_TIMEOUT`].

pub mod bridge;
pub mod container;
pub mod link;
pub mod member;
pub mod monitor;
pub mod neighbour;
pub mod nft;
pub mod packet;
pub mod sysctl;
pub mod tap;
pub mod uplink;

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long one exchange with the kernel over netlink may take.
pub const NETLINK_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest name of a network interface, in bytes (`IFNAMSIZ` without its final NUL).
pub const IFNAME_MAX: usize = 15;

/// What can go wrong with the network of the machine.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel refused a netlink request.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was to be done, and on what.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file, an ioctl, a thread or a program could not be used.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was to be done, and on what.
        what: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error("cannot {what}: no answer from the kernel within {} s", NETLINK_TIMEOUT.as_secs())]
    Timeout {
        /// What was to be done, and on what.
        what: String,
    },
    /// The name cannot be that of a network interface.
    #[error(
        "'{0}' cannot name a network interface: 1 to 15 letters, digits, '-', '_' or '.', not starting with '.' or '-'"
    )]
    Name(String),
    /// An interface has the name of our bridge without being our bridge.
    #[error(
        "the interface '{name}' exists and is not ours ({found}); remove it, or set another name with 'bridge:' in the configuration"
    )]
    NotOurs {
        /// Name of the interface.
        name: String,
        /// What was found instead.
        found: String,
    },
    /// There is no such interface.
    #[error("there is no network interface '{0}'")]
    NoLink(String),
    /// `nft` refused a ruleset.
    #[error("nft refused to {what}: {message}")]
    Nft {
        /// What was to be done.
        what: String,
        /// The first lines that nft printed.
        message: String,
    },
}

/// Result of the functions of this module.
pub type Result<T> = std::result::Result<T, NetError>;

/// Checks that a name may be given to an interface and written into a ruleset as it is.
///
/// # Errors
/// [`NetError::Name`] if it is empty, too long, or has a character outside letters, digits, `-`, `_` and `.`.
pub fn check_ifname(name: &str) -> Result<()> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && first && name.len() <= IFNAME_MAX { Ok(()) } else { Err(NetError::Name(name.to_owned())) }
}

/// Runs `f` on a fresh thread, in the network namespace `netns` when one is given, and returns what it returns.
///
/// # Errors
/// When the thread cannot be started, the namespace cannot be entered, or `f` fails.
pub fn on_thread<T: Send>(netns: Option<BorrowedFd<'_>>, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("net".into())
            .spawn_scoped(scope, move || {
                if let Some(fd) = netns {
                    rustix::thread::move_into_link_name_space(
                        fd,
                        Some(rustix::thread::LinkNameSpaceType::Network),
                    )
                    .map_err(|e| io_error("enter the network namespace", e.into()))?;
                }
                f()
            })
            .map_err(|e| io_error("start a thread for the network", e))?;
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Speaks netlink: runs the future that `f` makes from a connection, on a thread of its own.
fn netlink<T, F, Fut>(what: &str, f: F) -> Result<T>
where
    T: Send,
    F: FnOnce(rtnetlink::Handle) -> Fut + Send,
    Fut: Future<Output = Result<T>>,
{
    on_thread(None, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| io_error("start a runtime for netlink", e))?;
        runtime.block_on(async move {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(|e| io_error("open a netlink socket", e))?;
            let driver = tokio::spawn(connection);
            let result = tokio::time::timeout(NETLINK_TIMEOUT, f(handle)).await;
            driver.abort();
            result.unwrap_or_else(|_| Err(NetError::Timeout { what: what.to_owned() }))
        })
    })
}

/// The errno of an answer of rtnetlink, as an `io::Error`.
fn kernel_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Attaches what was to be done to an answer of rtnetlink.
fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.into();
    move |error| NetError::Netlink { what, source: kernel_error(error) }
}

/// Takes an error with this errno for success: the object to be made exists already, or the one to be removed is
/// gone.
fn except(
    errno: i32,
    result: std::result::Result<(), rtnetlink::Error>,
    what: impl Into<String>,
) -> Result<()> {
    match result {
        Err(rtnetlink::Error::NetlinkError(m)) if m.raw_code() == -errno => Ok(()),
        other => other.map_err(refused(what)),
    }
}

fn io_error(what: impl Into<String>, source: io::Error) -> NetError {
    NetError::Io { what: what.into(), source }
}

/// Makes an empty network namespace and returns a descriptor that keeps it alive.
///
/// The namespace ends when its last descriptor, process and bind mount are gone. A runtime that needs a path uses
/// `/proc/<pid of the holder of the descriptor>/fd/<n>`.
///
/// # Errors
/// When the kernel refuses (root is needed).
pub fn new_netns() -> Result<std::os::fd::OwnedFd> {
    on_thread(None, || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|e| io_error("make a network namespace", e.into()))?;
        open_current_netns()
    })
}

/// A descriptor of the network namespace of the calling thread.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn open_current_netns() -> Result<std::os::fd::OwnedFd> {
    let file = std::fs::File::open("/proc/thread-self/ns/net")
        .map_err(|e| io_error("open /proc/thread-self/ns/net", e))?;
    Ok(file.into())
}

/// Runs `f` inside the network namespace `netns`, on a thread of its own.
///
/// # Errors
/// When the namespace cannot be entered, or `f` fails.
pub fn in_netns<T: Send>(netns: &impl AsFd, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_thread(Some(netns.as_fd()), f)
}

/// An address for the station that `seed` names: the same seed gives the same address on every start.
///
/// Locally administered (`02:…`), so that it never meets a manufacturer's address.
pub fn mac_from_seed(seed: &str) -> [u8; 6] {
    let digest = blake3::hash(seed.as_bytes());
    let [a, b, c, d, e, ..] = *digest.as_bytes();
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names() {
        for good in ["walt-net", "a", "_x", "tap.1", "123456789012345"] {
            assert!(check_ifname(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-x", "a b", "a/b", "a\"b", "1234567890123456", "é"] {
            assert!(check_ifname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_gives_one_local_unicast_address() {
        let mac = mac_from_seed("walt-net /var/lib/walt");
        assert_eq!(mac, mac_from_seed("walt-net /var/lib/walt"));
        assert_ne!(mac, mac_from_seed("walt-net /srv/walt"));
        assert_eq!(mac[0] & 0b11, 0b10);
    }
}
