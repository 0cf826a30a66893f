//! The holder's state, and its life from the first mount to the last unmount.

use super::console::Console;
use super::output::Output;
use super::{SOCKET, client::short, life, serve};
use crate::{
    Error, Result,
    bundle::{Facts, RUN_TMPFS, runtime::Runtime},
    emulation::Emulation,
    session::{HoldSpec, Mode, Phase, SPEC_VERSION, SessionDir, State},
    setup::{self, Isolation, Link, open_in, path_of},
};
use rustix::fs::FlockOperation;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::{UnixDatagram, UnixListener};
use tokio::sync::{Mutex, Notify, watch};
use walt_sys::process::{Cgroup, ProcessId};
use walt_sys::userns::Namespaces;
use walt_sys::{mount, process};

/// Largest `/etc/cpuinfo` that is shown, in bytes; a real one of 1024 processors has 2 MB.
const CPUINFO_MAX: u64 = 4 << 20;

/// A process of the container that is our child (we are its subreaper).
#[derive(Debug, Clone)]
pub struct Child {
    /// Which.
    pub id: ProcessId,
    /// Its status, once it has ended.
    pub ended: watch::Receiver<Option<i32>>,
}

/// State of a holder. It is used by one thread; nothing is borrowed across an await.
#[derive(Debug)]
pub struct Holder {
    pub dir: SessionDir,
    pub spec: RefCell<HoldSpec>,
    pub state: RefCell<State>,
    pub output: RefCell<Output>,
    /// Notes about the start, for the user.
    pub start_notes: RefCell<Vec<String>>,
    /// Notes about the stop, for the user.
    pub stop_notes: RefCell<Vec<String>>,
    /// Counts changes of state and output; waiting tasks check again.
    pub changed: watch::Sender<u64>,
    pub init: RefCell<Option<Child>>,
    /// The shell, while it runs.
    pub shell: RefCell<Option<Child>>,
    /// Number of the shell, and of the session of what it started; kept after its end.
    pub shell_leader: Cell<Option<i32>>,
    pub console: RefCell<Option<Console>>,
    /// Number of the attached connection; 0: none. Numbers grow.
    pub attached: Cell<u64>,
    /// Held by whatever changes the container's existence.
    pub operation: Mutex<()>,
    /// A stop was requested: a start that still waits gives up.
    pub stopping: Cell<bool>,
    pub finished: Notify,
    /// Socket on which a starting OS reports that it is up.
    pub notify_socket: RefCell<Option<UnixDatagram>>,
    pub mounted: Cell<bool>,
    netns: Option<OwnedFd>,
    /// Its user namespace, if it has one: that of [`HoldSpec::users`].
    namespaces: Option<Namespaces>,
    /// Keeps the handler that emulates the image's programs: the server may be gone.
    _emulation: Option<Emulation>,
    runtime_dir: PathBuf,
}

impl Holder {
    pub fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Changes the state, in memory and on disk, and wakes the tasks that wait for it.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.borrow_mut());
        if let Err(e) = self.dir.write_state(&self.state.borrow()) {
            // A full disk must not end the session; clients still get the state over the socket.
            super::log(&e);
        }
        self.notify();
    }

    pub fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    pub fn runtime(&self) -> Runtime {
        let spec = self.spec.borrow();
        Runtime {
            program: spec.runtime.clone(),
            root: spec.runtime_root.clone(),
            dir: self.runtime_dir.clone(),
            id: spec.container_id.clone(),
        }
    }

    /// Where the tree is mounted.
    pub fn root(&self) -> PathBuf {
        self.spec.borrow().users.as_ref().map_or_else(|| self.dir.root(), |users| users.root.clone())
    }

    /// The number of the container's root on the server.
    pub fn container_root(&self) -> u32 {
        self.spec.borrow().users.as_ref().map_or(0, |users| users.first)
    }

    pub fn cgroup(&self) -> Cgroup {
        Cgroup::new(&self.spec.borrow().cgroup)
    }

    /// Facts about the mounted tree for the bundle. Paths are resolved inside the tree.
    pub fn facts(&self) -> Result<Facts> {
        let root = self.root();
        let shell = if executable_in(&root, "/bin/bash") { "/bin/bash" } else { "/bin/sh" };
        let os = self.spec.borrow().mode == Mode::Os;
        Ok(Facts {
            has_home: open_in(&root, "/root").is_ok(),
            shell,
            run: os.then(|| self.dir.file("run")),
            cpuinfo: self.copy_cpuinfo(&root)?,
            netns: self.netns.as_ref().or(self.namespaces.as_ref().map(|n| &n.net)).map(path_of),
            userns: self.namespaces.as_ref().map(|n| path_of(&n.user)),
            root,
        })
    }

    /// Copies the file: a symbolic link could lead a bind mount by path out of the tree.
    fn copy_cpuinfo(&self, root: &Path) -> Result<Option<PathBuf>> {
        let Ok(found) = open_in(root, "/etc/cpuinfo") else { return Ok(None) };
        let copy = self.dir.file("cpuinfo");
        let failed = |e| Error::io("copy /etc/cpuinfo of the image to", &copy, e);
        // Opened again for reading, by its descriptor, so that no link is followed; a fifo or device is not opened.
        let meta = rustix::fs::fstat(&found).map_err(|e| failed(e.into()))?;
        if !rustix::fs::FileType::from_raw_mode(meta.st_mode).is_file() {
            return Ok(None);
        }
        let name = format!("/proc/self/fd/{}", found.as_raw_fd());
        let mut text = Vec::new();
        let file = std::fs::File::open(name).map_err(failed)?;
        file.take(CPUINFO_MAX).read_to_end(&mut text).map_err(failed)?;
        std::fs::write(&copy, text).map_err(failed)?;
        Ok(Some(copy))
    }

    /// Mounts what a container needs, unless it is mounted.
    pub fn mount(&self) -> Result<()> {
        if self.mounted.get() {
            return Ok(());
        }
        let lowers = self.spec.borrow().lowers.clone();
        setup::overlay(self.dir.path(), lowers, &self.root(), self.namespaces.as_ref())?;
        self.mounted.set(true);
        Ok(())
    }

    /// Mounts an empty `/run` with our settings for the next OS.
    pub fn fresh_run(&self) -> Result<()> {
        let run = self.dir.file("run");
        // It may not be mounted. It cannot be in use, since no container is left.
        let _ = mount::unmount(&run);
        let owner = self.container_root();
        mount::tmpfs(&run, &format!("{RUN_TMPFS},uid={owner},gid={owner}"))?;
        let put = || -> std::io::Result<()> {
            use crate::bundle::tables::{MASKED_UNITS, RUN_FILES, RUN_FILES_EMULATED};
            let emulated = self.spec.borrow().emulated;
            let more = RUN_FILES_EMULATED.into_iter().filter(|_| emulated);
            for (name, text, _) in RUN_FILES.into_iter().chain(more) {
                let path = run.join(name);
                // The names in the table have directories.
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::File::create(path)?.write_all(text.as_bytes())?;
            }
            // Not below system/: programs take the existence of that directory for a running systemd.
            let units = run.join("systemd/system.control");
            std::fs::create_dir_all(&units)?;
            std::fs::create_dir_all(run.join("host"))?;
            for (unit, _) in MASKED_UNITS {
                std::os::unix::fs::symlink("/dev/null", units.join(unit))?;
            }
            if owner == 0 { Ok(()) } else { chown_tree(&run, owner) }
        };
        put().map_err(|e| Error::io("write the settings of the session to", &run, e))
    }

    /// Unmounts the overlay, proving first that nobody can write any more.
    pub fn unmount(&self) -> Result<()> {
        if !self.mounted.get() {
            return Ok(());
        }
        let root = self.root();
        mount::remount_ro(&root).map_err(|e| match e.errno() {
            Some(errno) if errno == rustix::io::Errno::BUSY.raw_os_error() => {
                Error::Busy(life::writers(&root))
            }
            _ => e.into(),
        })?;
        mount::unmount(&root)?;
        self.mounted.set(false);
        Ok(())
    }
}

/// Makes a user the owner of a tree that nobody else changes.
fn chown_tree(path: &Path, user: u32) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(user))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            chown_tree(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// Whether a path of the tree is a file that root could execute.
fn executable_in(root: &Path, path: &str) -> bool {
    open_in(root, path).and_then(rustix::fs::fstat).is_ok_and(|meta| {
        rustix::fs::FileType::from_raw_mode(meta.st_mode).is_file() && meta.st_mode & 0o111 != 0
    })
}

/// How long to wait for the lock: [`is_held`] takes it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// One holder per session: the lock goes with the process.
fn lock(dir: &SessionDir) -> Result<std::fs::File> {
    let path = dir.file("lock");
    let file = std::fs::File::create(&path).map_err(|e| Error::io("make", &path, e))?;
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Held(dir.path().to_owned())),
            Err(e) => return Err(Error::io("lock", &path, e.into())),
        }
    }
}

/// Whether a holder of the session in `dir` is running, including one that is starting and does not answer yet.
pub fn is_held(dir: &Path) -> bool {
    setup::is_locked(&dir.join("lock"))
}

/// The holder's life; `ready` is called once the container runs.
pub async fn run(dir: &Path, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let failed = |e| Error::io("find", dir, e);
    let dir = SessionDir(std::fs::canonicalize(dir).map_err(failed)?);
    let _lock = lock(&dir)?;
    let spec = dir.spec()?;
    dir.prepare()?;
    process::become_subreaper()?;
    let own_group = leave_the_servers_group(&spec)?;
    mount::unshare_mounts()?;
    let Isolation { namespaces, netns, link } =
        Isolation::start(spec.users.as_ref(), spec.network.as_ref(), dir.path())?;
    let emulation = spec.emulated.then(Emulation::keep).transpose()?;
    let state = State {
        version: SPEC_VERSION,
        holder: ProcessId::of_self().map_err(|e| Error::io("read", Path::new("/proc/self/stat"), e))?,
        phase: Phase::Starting,
        shell_status: None,
        error: None,
    };
    let holder = Rc::new(Holder {
        runtime_dir: dir.path().to_owned(),
        dir,
        spec: RefCell::new(spec),
        state: RefCell::new(state),
        output: RefCell::default(),
        start_notes: RefCell::default(),
        stop_notes: RefCell::default(),
        changed: watch::Sender::new(0),
        init: RefCell::default(),
        shell: RefCell::default(),
        shell_leader: Cell::default(),
        console: RefCell::default(),
        attached: Cell::new(0),
        operation: Mutex::new(()),
        stopping: Cell::new(false),
        finished: Notify::new(),
        notify_socket: RefCell::default(),
        mounted: Cell::new(false),
        netns,
        namespaces,
        _emulation: emulation,
    });
    let served = begin(&holder, link).await;
    let result = match served {
        Ok(listener) => {
            ready()?;
            tokio::task::spawn_local(life::start_shell(Rc::clone(&holder)));
            tokio::select! {
                () = holder.finished.notified() => {}
                () = serve::accept(&holder, &listener) => {}
            }
            let _ = std::fs::remove_file(holder.dir.file(SOCKET));
            Ok(())
        }
        Err(e) => {
            // Report the first error.
            let _ = life::kill(&holder).await;
            holder.update(|s| s.phase = Phase::Stopped);
            Err(e)
        }
    };
    if let Some(group) = own_group {
        let _ = Cgroup::new("").join(std::process::id() as i32).and_then(|()| group.remove());
    }
    result
}

/// Mounts, connects and starts the container, then opens the socket.
async fn begin(holder: &Rc<Holder>, link: Link) -> Result<UnixListener> {
    // Leftovers of a holder that was killed.
    setup::remove_leftovers(&holder.runtime(), &holder.cgroup()).await?;
    holder.mount()?;
    link.ready().await?;
    life::start_container(holder).await?;
    let path = holder.dir.file(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &path, e)),
        _ => {}
    }
    let (_dir, address) = short(holder.dir.path(), SOCKET)?;
    let listener = UnixListener::bind(address).map_err(|e| Error::io("listen at", &path, e))?;
    holder.update(|_| {});
    Ok(listener)
}

/// Leaves the server's control group if systemd is init: it kills all processes of a service's group.
fn leave_the_servers_group(spec: &HoldSpec) -> Result<Option<Cgroup>> {
    if !process::systemd_is_init() {
        return Ok(None);
    }
    let group = Cgroup::new(format!("{}-holder", spec.cgroup));
    group.join(std::process::id() as i32)?;
    Ok(Some(group))
}
