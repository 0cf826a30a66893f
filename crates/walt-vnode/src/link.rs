//! Shaped links: a process for each forwards its frames between two taps, delays and drops them.
//!
//! ```text
//!   qemu ── tap ── bridge of the network                                                    unshaped
//!
//!   qemu ── tap ── bridge of the link ── tap ══ [Direction down] ══ tap ── bridge of the network   shaped
//!                  (these two ports only)    ══ [Direction up]   ══
//! ```
//! The bridge of a link is how its frames leave the kernel one by one: before a port without offloads, the kernel splits
//! large segments and completes checksums. qemu never notices on which bridge its tap is. The rules of the packet filter
//! that hold for the tap of qemu hold for that of the process as well, by its name.
//!
//! The process (`walt-server link <dir>`) outlives the server like qemu does. Its directory, 0700:
//!
//! | file | what |
//! |---|---|
//! | `link.json` | what it is to do ([`LinkSpec`]) |
//! | `process.json` | its identity, written by itself |
//! | `control.sock` | questions and changes ([`Request`]) |
//! | `link.log` | its messages |
//!
//! [`model`] is pure and decides; [`forward`] reads and writes frames. If the process ends, its taps go with it, and the
//! node is cut off from this network until somebody starts it again.
//!
//! It is scheduled before ordinary processes: a frame that leaves late was delayed wrongly.
//!
//! Limits: [`model::BYTES_MAX`] in each direction, [`TAP_QUEUE`] frames between kernel and process, one question at a
//! time.

mod control;
mod forward;
pub mod model;
mod random;

pub use control::{Report, Request};
pub use forward::run;

use crate::{Error, Result, failed};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use walt_sys::process::{Cgroup, ProcessId, spawn_detached};
use walt_types::Shape;

/// Frames that may wait between the kernel and the process, in each direction.
pub const TAP_QUEUE: u32 = 4096;
/// How long the process may take until it forwards.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one question may take.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the process may take to end after `SIGKILL`.
pub const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest message of a process that did not start, in bytes.
const START_ERROR_MAX: u64 = 4096;
/// What the process says once it forwards.
const READY: &str = "ready\n";
/// Files of the directory.
const SPEC: &str = "link.json";
const PROCESS: &str = "process.json";
const SOCKET: &str = "control.sock";
const LOG: &str = "link.log";

/// One of the two taps of the process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Port {
    /// Name of the tap.
    pub ifname: String,
    /// The bridge that it is attached to; it must exist.
    pub bridge: String,
    /// Text that is attached to the tap.
    pub alias: String,
}

/// What the process is to do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinkSpec {
    /// Towards qemu: on the bridge of the link.
    pub node: Port,
    /// Towards the network: on its bridge.
    pub network: Port,
    /// What happens to the frames at first.
    pub shape: Shape,
}

/// A process that forwards.
#[derive(Debug)]
pub struct Link {
    directory: PathBuf,
    process: ProcessId,
    pidfd: OwnedFd,
}

/// Starts the process, and returns once it forwards. It does not end with this one.
///
/// `exe link <directory>` must call [`run`].
///
/// # Errors
/// [`Error::NotStarted`] with the words of the process; nothing of it is left then.
pub fn start(spec: &LinkSpec, directory: &Path, exe: &Path, cgroup: Option<&Cgroup>) -> Result<Link> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(failed(format!("make {}", directory.display())))?;
    write(directory, SPEC, spec)?;
    let log =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(directory.join(LOG));
    let log = log.map_err(failed(format!("open {LOG} in {}", directory.display())))?;
    let (report, theirs) = std::io::pipe().map_err(failed("make a pipe"))?;
    let mut command = Command::new(exe);
    command.arg("link").arg(directory).current_dir("/").stdin(Stdio::null()).stdout(theirs).stderr(log);
    let process = spawn_detached(&mut command)?;
    // Closes our copy of the pipe: its end is the end of the process.
    drop(command);
    let gone = |words: &str| Error::NotStarted(format!("the link in {}: {words}", directory.display()));
    let said = report_of(report.into(), directory);
    let link = process.open().map(|pidfd| Link { directory: directory.to_owned(), process, pidfd });
    match (said, link) {
        (Ok(said), Ok(link)) if said == READY => {
            if let Some(cgroup) = cgroup {
                cgroup.join(process.pid).inspect_err(|_| drop(link.kill()))?;
            }
            Ok(link)
        }
        (said, link) => {
            // The first error is the one to report.
            let _ = link.map(|link| link.stop());
            Err(said.map_or_else(|e| e, |said| gone(said.trim())))
        }
    }
}

/// What the process says on its standard output, up to its end or [`START_TIMEOUT`].
fn report_of(pipe: OwnedFd, directory: &Path) -> Result<String> {
    let what = || format!("read from the link in {}", directory.display());
    let deadline = std::time::Instant::now() + START_TIMEOUT;
    let mut said = Vec::new();
    let mut pipe = File::from(pipe);
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if !is_readable(&pipe, left).map_err(failed(what()))? {
            return Err(Error::NotStarted(format!(
                "the link in {} did not forward within {} s",
                directory.display(),
                START_TIMEOUT.as_secs()
            )));
        }
        let mut buffer = [0; 512];
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&said).into_owned()),
            Ok(count) if said.len() as u64 <= START_ERROR_MAX => said.extend_from_slice(&buffer[..count]),
            Ok(_) => return Ok(String::from_utf8_lossy(&said).into_owned()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(what())(e)),
        }
    }
}

/// Waits until a descriptor is readable; whether it is.
fn is_readable(fd: &impl AsFd, timeout: Duration) -> std::io::Result<bool> {
    let limit = timespec(timeout);
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut fds, Some(&limit)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn write(directory: &Path, name: &str, value: &impl serde::Serialize) -> Result<()> {
    let path = directory.join(name);
    let what = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(value).map_err(|e| failed(what())(e.into()))?;
    walt_sys::file::replace(&path, &bytes).map_err(failed(what()))
}

fn read<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>> {
    let path = directory.join(name);
    match std::fs::read(&path) {
        // What cannot be understood was written by another version, or half: as good as absent.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(format!("read {}", path.display()))(e)),
    }
}

/// Finds the process that an earlier server started in this directory; `None` if it has ended.
///
/// A process that does not answer is ended: nobody could control it.
///
/// # Errors
/// The directory cannot be read, or the process cannot be ended.
pub fn adopt(directory: &Path) -> Result<Option<Link>> {
    let Some(process) = read::<ProcessId>(directory, PROCESS)? else { return Ok(None) };
    let Ok(pidfd) = process.open() else { return Ok(None) };
    let link = Link { directory: directory.to_owned(), process, pidfd };
    if link.report().is_ok() {
        return Ok(Some(link));
    }
    link.stop()?;
    Ok(None)
}

/// What the process in this directory was started for.
///
/// # Errors
/// The directory cannot be read.
pub fn spec_of(directory: &Path) -> Result<Option<LinkSpec>> {
    read(directory, SPEC)
}

impl Link {
    /// Whether the process is there.
    pub fn is_running(&self) -> bool {
        // It cannot fail otherwise: the descriptor is valid.
        !is_readable(&self.pidfd, Duration::ZERO).unwrap_or(true)
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Number of the process.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Changes what happens to the frames that come from now on.
    ///
    /// # Errors
    /// The process does not answer.
    pub fn set(&self, shape: Shape) -> Result<()> {
        control::ask(&self.directory, &Request::Set { shape }).map(drop)
    }

    /// What happens to frames now, and what has happened so far.
    ///
    /// # Errors
    /// The process does not answer.
    pub fn report(&self) -> Result<Report> {
        control::ask(&self.directory, &Request::Report)
    }

    fn kill(&self) -> Result<()> {
        match self.process.signal(rustix::process::Signal::KILL.as_raw()) {
            Err(e) if self.is_running() => return Err(failed("end a link")(e)),
            _ => {}
        }
        match is_readable(&self.pidfd, END_TIMEOUT).map_err(failed("wait for a link"))? {
            true => Ok(()),
            false => Err(Error::Timeout("end a link after SIGKILL")),
        }
    }

    /// Ends the process, whose frames under way are lost, and removes its directory.
    ///
    /// # Errors
    /// It stays, which is the kernel's doing.
    pub fn stop(&self) -> Result<()> {
        self.kill()?;
        forget(&self.directory)
    }
}

/// Removes the directory of a process that has ended.
///
/// # Errors
/// It cannot be removed.
pub fn forget(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(failed(format!("remove {}", directory.display()))(e))
        }
        _ => Ok(()),
    }
}
