//! Starting qemu, finding it again, ending it.

use crate::{
    Error, QMP_TIMEOUT, Result, START_TIMEOUT, STOP_TIMEOUT, boot_files,
    console::Log,
    disks::DiskFile,
    failed,
    qemu::{self, Acceleration, Descriptors, VmSpec},
    qmp::Qmp,
};
use command_fds::CommandFdExt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walt_sys::process::{Cgroup, ProcessId, spawn_detached};
use walt_types::Mac;

/// How long a process may take to end after it closed its socket.
const END_GRACE: Duration = Duration::from_secs(1);
/// Interval between two checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How much of qemu's own messages goes into an error, in bytes.
const QEMU_LOG_TAIL: u64 = 2000;
/// The device of KVM.
const KVM: &str = "/dev/kvm";

/// The account under which qemu runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Group. With KVM, qemu runs in the group of `/dev/kvm` instead if that group may use it.
    pub gid: u32,
}

/// What the machine boots: open for reading.
#[derive(Debug)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: File,
    /// The initrds, in order.
    pub initrds: Vec<File>,
}

/// A network card.
#[derive(Debug)]
pub struct Card {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its tap, already in a bridge.
    pub tap: OwnedFd,
}

/// A machine to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What it is.
    pub spec: &'a VmSpec,
    /// The node's directory; made if absent.
    pub directory: &'a Path,
    /// Kernel and initrds, for [`crate::BootMethod::Direct`].
    pub files: Option<BootFiles>,
    /// The network cards, in order; the machine boots from the first one.
    pub cards: Vec<Card>,
    /// The disks, in order.
    pub disks: Vec<DiskFile>,
    /// qemu's account.
    pub account: Account,
    /// The machine's own control group.
    pub cgroup: Option<Cgroup>,
    /// Where qemu is, usually [`crate::PROGRAM`].
    pub program: &'a str,
}

/// What identifies a running machine across restarts of the server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Process number.
    pub pid: i32,
    /// Start time of the process, in ticks since the boot of the host.
    pub start_time: u64,
    /// What the machine answers to `query-uuid`.
    pub uuid: String,
}

impl Identity {
    fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

/// A machine that runs, or has ended since.
#[derive(Debug)]
pub struct Vm {
    identity: Identity,
    directory: PathBuf,
    cgroup: Option<Cgroup>,
    pidfd: OwnedFd,
    /// Those that it was started with, for machines that boot the same: none if it was started by an earlier server.
    _boot_files: Vec<Arc<OwnedFd>>,
}

fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

/// Starts a machine and waits until it answers by QMP. It does not end with this process.
///
/// # Errors
/// [`Error::NotStarted`] with qemu's own words when it gives up; nothing of it is left then.
pub fn launch(launch: Launch<'_>) -> Result<Vm> {
    let Launch { spec, directory, files, cards, disks, account, cgroup, program } = launch;
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed(format!("make {}", directory.display())))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .map_err(failed(format!("close {} to others", directory.display())))?;
    let (mut kernel, mut initrd) = (None, None);
    if let Some(BootFiles { kernel: file, initrds }) = files {
        kernel = Some(boot_files::shared(vec![file])?);
        if !initrds.is_empty() {
            initrd = Some(boot_files::shared(initrds)?);
        }
    }
    let boot_files: Vec<Arc<OwnedFd>> = kernel.iter().chain(&initrd).cloned().collect();
    let copy = |file: Arc<OwnedFd>| file.try_clone().map_err(failed("copy a descriptor"));
    let (kernel, initrd) = (kernel.map(copy).transpose()?, initrd.map(copy).transpose()?);
    let console: OwnedFd = listen(&path_of(directory, "console.sock"))?.into();
    let qmp: OwnedFd = listen(&path_of(directory, "qmp.sock"))?.into();
    let log: OwnedFd = Log::new(path_of(directory, "console.log")).open_for_append()?.into();
    let messages = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path_of(directory, "qemu.log"))
        .map_err(failed("open qemu.log"))?;
    let descriptors = Descriptors {
        kernel: kernel.as_ref().map(AsRawFd::as_raw_fd),
        initrd: initrd.as_ref().map(AsRawFd::as_raw_fd),
        cards: cards.iter().map(|card| (card.mac, card.tap.as_raw_fd())).collect(),
        log: log.as_raw_fd(),
        console: console.as_raw_fd(),
        qmp: qmp.as_raw_fd(),
        disks: disks.iter().map(|d| (d.name.clone(), d.file.as_raw_fd())).collect(),
    };
    let mut command = Command::new(program);
    command
        .args(qemu::command_line(spec, &descriptors))
        .env_clear()
        .current_dir("/")
        .uid(account.uid)
        .gid(group(account, spec.acceleration))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages)
        .preserved_fds(
            [kernel, initrd, Some(log), Some(console), Some(qmp)]
                .into_iter()
                .flatten()
                .chain(cards.into_iter().map(|card| card.tap))
                .chain(disks.into_iter().map(|d| d.file.into()))
                .collect(),
        );
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let process = spawn_detached(&mut command)?;
    // Closes our copies: the taps must disappear with qemu.
    drop(command);
    let identity = Identity { pid: process.pid, start_time: process.start_time, uuid: spec.uuid.clone() };
    let pidfd = process.open().map_err(|e| {
        // It ended at once: its messages are the reason.
        Error::NotStarted(qemu_log_tail(directory).unwrap_or_else(|| e.to_string()))
    })?;
    let vm = Vm { identity, directory: directory.to_owned(), cgroup, pidfd, _boot_files: boot_files };
    match vm.started() {
        Ok(()) => Ok(vm),
        Err(error) => {
            // Its socket closes a moment before the process is gone.
            let ended = vm.wait(END_GRACE);
            let words = qemu_log_tail(directory);
            // The first error is the one to report.
            let _ = vm.stop();
            Err(match words {
                Some(words) if ended => Error::NotStarted(words),
                _ => error,
            })
        }
    }
}

fn group(account: Account, acceleration: Acceleration) -> u32 {
    match std::fs::metadata(KVM) {
        Ok(kvm) if acceleration == Acceleration::Kvm && kvm.mode() & 0o060 == 0o060 => kvm.gid(),
        _ => account.gid,
    }
}

/// Whether this account, or the group of the device, may use KVM.
pub(crate) fn may_use_kvm(account: Account) -> std::result::Result<(), String> {
    let kvm = std::fs::metadata(KVM).map_err(|e| format!("{KVM}: {e}"))?;
    let allowed = account.uid == 0
        || kvm.mode() & 0o006 == 0o006
        || kvm.mode() & 0o060 == 0o060
        || (kvm.uid() == account.uid && kvm.mode() & 0o600 == 0o600);
    if allowed { Ok(()) } else { Err(format!("only root may use {KVM}; give it to the group kvm")) }
}

fn qemu_log_tail(directory: &Path) -> Option<String> {
    let tail = Log::new(path_of(directory, "qemu.log")).tail(QEMU_LOG_TAIL).ok()?;
    let text = crate::console::plain_text(&tail);
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen on {}", path.display());
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(what())(e)),
        _ => {}
    }
    UnixListener::bind(path).map_err(failed(what()))
}

/// Finds the machine that an earlier server started in this directory. `None`: it has ended, and its leftovers have
/// been removed.
///
/// A process with the right number and start time that does not answer as this machine is ended: nobody could control
/// it.
///
/// # Errors
/// When the directory cannot be read, or a process cannot be ended.
pub fn adopt(directory: &Path, cgroup: Option<Cgroup>) -> Result<Option<Vm>> {
    let path = path_of(directory, "vm.json");
    let identity: Option<Identity> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).ok(),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(failed(format!("read {}", path.display()))(e)),
    };
    let socket = path_of(directory, "qmp.sock");
    let Some(identity) = identity else {
        // If the server was killed before it recorded the number of qemu, only the socket identifies the machine.
        if let Ok(mut qmp) = Qmp::connect(&socket, QMP_TIMEOUT) {
            qmp.quit()?;
        }
        clean(directory, cgroup.as_ref())?;
        return Ok(None);
    };
    let Ok(pidfd) = identity.process().open() else {
        clean(directory, cgroup.as_ref())?;
        return Ok(None);
    };
    let uuid = Qmp::connect(&socket, QMP_TIMEOUT).and_then(|mut qmp| qmp.uuid());
    let vm = Vm { identity, directory: directory.to_owned(), cgroup, pidfd, _boot_files: Vec::new() };
    match uuid {
        Ok(uuid) if uuid == vm.identity.uuid => Ok(Some(vm)),
        _ => vm.stop().map(|()| None),
    }
}

/// Removes what a machine that has ended leaves, but not its logs.
fn clean(directory: &Path, cgroup: Option<&Cgroup>) -> Result<()> {
    for name in ["vm.json", "qmp.sock", "console.sock"] {
        // Files that cannot be removed are replaced by the next start.
        let _ = std::fs::remove_file(path_of(directory, name));
    }
    cgroup.map_or(Ok(()), remove_group)
}

/// Removes a control group whose processes have ended; its absence is success.
///
/// # Errors
/// It has processes for longer than [`STOP_TIMEOUT`], or the kernel refuses.
pub fn remove_group(cgroup: &Cgroup) -> Result<()> {
    // A process that has ended leaves its group when its parent has taken note, which may be a moment later.
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        match cgroup.remove() {
            Err(e)
                if e.errno() == Some(rustix::io::Errno::BUSY.raw_os_error()) && Instant::now() < deadline =>
            {
                std::thread::sleep(POLL_INTERVAL);
            }
            result => return Ok(result?),
        }
    }
}

impl Vm {
    fn started(&self) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.join(self.identity.pid)?;
        }
        let bytes = serde_json::to_vec(&self.identity).map_err(|e| failed("write vm.json")(e.into()))?;
        let path = path_of(&self.directory, "vm.json");
        walt_sys::file::replace(&path, &bytes).map_err(failed(format!("write {}", path.display())))?;
        // The socket listens since before qemu: a connection waits until qemu accepts it, or is refused once qemu has
        // ended.
        let uuid = Qmp::connect(&path_of(&self.directory, "qmp.sock"), START_TIMEOUT)?.uuid()?;
        if uuid == self.identity.uuid {
            Ok(())
        } else {
            Err(Error::Protocol(
                self.directory.display().to_string(),
                format!("another machine answers: {uuid}"),
            ))
        }
    }

    /// What identifies it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Waits until it has ended. Returns whether it has.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = rustix::time::Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut ended = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
            match rustix::event::poll(&mut ended, Some(&limit)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                // It cannot fail otherwise: the descriptor is valid.
                Err(_) => return !self.identity.process().exists(),
            }
        }
    }

    /// Connects to its control socket. Keep the connection short: there is one at a time.
    ///
    /// # Errors
    /// When it has ended, or somebody else is connected.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&path_of(&self.directory, "qmp.sock"), QMP_TIMEOUT)
    }

    /// The log of its console.
    pub fn console(&self) -> Log {
        Log::new(path_of(&self.directory, "console.log"))
    }

    /// Where to type.
    pub fn console_socket(&self) -> PathBuf {
        path_of(&self.directory, "console.sock")
    }

    /// Ends it at once, as by pulling the plug, and removes its files except the logs.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the process stays, which is the kernel's doing.
    pub fn stop(&self) -> Result<()> {
        if self.is_running() {
            let asked = self.qmp().and_then(|mut qmp| qmp.quit());
            if asked.is_err() || !self.wait(STOP_TIMEOUT) {
                match self.identity.process().signal(rustix::process::Signal::KILL.as_raw()) {
                    Err(e) if self.is_running() => return Err(failed("kill qemu")(e)),
                    _ => {}
                }
                if !self.wait(STOP_TIMEOUT) {
                    return Err(Error::Timeout("end after SIGKILL"));
                }
            }
        }
        clean(&self.directory, self.cgroup.as_ref())
    }
}
