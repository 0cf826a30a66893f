//! Setting up a container: the steps that a holder ([`crate::hold`]) and a build step (`walt-build`) have in common.
//!
//! ```text
//! lock ─▶ Isolation::start ─▶ overlay ─▶ Link::ready ─▶ the runtime starts the container
//!         namespaces, link      tree
//! ```
//! Both are processes with a mount namespace of their own.

use crate::{Error, Result, bundle::runtime::Runtime, session::Users};
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};
use tokio::task::JoinHandle;
use walt_sys::{
    mount,
    net::{self, NetError, container::ContainerNetwork},
    process::Cgroup,
    userns::Namespaces,
};

/// Upper directory of a container's overlay, below its own directory.
pub const UPPER: &str = "layer/fs";
/// Work directory of a container's overlay, below its own directory.
pub const WORK: &str = "work";

/// The namespaces of a container that exist before the runtime starts it.
pub struct Isolation {
    /// The user namespace with its network namespace, if the container has one.
    pub namespaces: Option<Namespaces>,
    /// The network namespace of a container that is connected and has no user namespace.
    pub netns: Option<OwnedFd>,
    /// The link to the server.
    pub link: Link,
}

/// The link of a container to the server, while it is set up on another thread.
pub struct Link(Option<JoinHandle<std::result::Result<(), NetError>>>);

impl Isolation {
    /// Makes the namespaces and starts to connect the container. `dir` is its directory, for messages. Needs a running
    /// tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses a namespace.
    pub fn start(users: Option<&Users>, network: Option<&ContainerNetwork>, dir: &Path) -> Result<Self> {
        let namespaces = users.map(|users| Namespaces::new(users.first)).transpose()?;
        let netns = (namespaces.is_none() && network.is_some()).then(net::new_netns).transpose()?;
        let link = match (network, namespaces.as_ref().map(|n| &n.net).or(netns.as_ref())) {
            (Some(network), Some(netns)) => {
                let netns = netns.try_clone().map_err(|e| Error::io("keep the network of", dir, e))?;
                let network = network.clone();
                Some(tokio::task::spawn_blocking(move || {
                    net::container::setup_container_network(&netns, &network)
                }))
            }
            // Without a link, the runtime makes a namespace with a loopback interface.
            _ => None,
        };
        Ok(Self { namespaces, netns, link: Link(link) })
    }
}

impl Link {
    /// Waits until the link is up.
    ///
    /// # Errors
    /// It could not be set up.
    pub async fn ready(self) -> Result<()> {
        match self.0 {
            Some(task) => Ok(task.await.map_err(|e| Error::Start(e.to_string()))??),
            None => Ok(()),
        }
    }
}

/// Mounts the tree of some layers, the top one first, at `target`. Changes go to [`UPPER`] below `base`; that and
/// [`WORK`] must exist. With `ids`, the tree shows the numbers of a user namespace.
///
/// # Errors
/// The kernel refuses.
pub fn overlay(base: &Path, lowers: Vec<PathBuf>, target: &Path, ids: Option<&Namespaces>) -> Result<()> {
    mount::overlay(&mount::Overlay {
        lowers,
        base: base.to_owned(),
        upper: UPPER.into(),
        work: WORK.into(),
        target: target.to_owned(),
        ids,
    })?;
    Ok(())
}

/// Opens a path of a container's tree for reference only (`O_PATH`). Symbolic links are followed inside the tree; an
/// empty path is its root.
///
/// # Errors
/// The kernel's.
pub fn open_in(root: &Path, path: &str) -> rustix::io::Result<OwnedFd> {
    let dir = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}

/// A path by which the runtime opens what one of our descriptors refers to.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
}

/// Makes the container's root the owner of its standard streams: a program that opens `/dev/stdout` opens the pipe
/// again, which needs permission.
///
/// # Errors
/// The kernel's; `dir` is the container's directory, for the message.
pub fn own_stream(stream: impl AsFd, root: u32, dir: &Path) -> Result<()> {
    std::os::unix::fs::fchown(stream, Some(root), Some(root))
        .map_err(|e| Error::io("change the owner of the standard streams for", dir, e))
}

/// Whether a process holds the exclusive lock on a file. It does not wait.
pub fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Removes what is left of a container whose holder or build step was killed, with its processes.
///
/// # Errors
/// The runtime or the kernel refuses.
pub async fn remove_leftovers(runtime: &Runtime, group: &Cgroup) -> Result<()> {
    runtime.delete().await?;
    if !group.processes()?.is_empty() {
        group.kill()?;
    }
    group.remove()?;
    Ok(())
}
