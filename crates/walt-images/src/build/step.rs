//! One command of a build, in a process of its own: `walt-server build-step DIR`.
//!
//! As a holder of an image shell does, it has its own mount namespace, mounts the overlay there, and has the runtime
//! make the container. Unlike a holder it belongs to the server: its standard input is a pipe from it, and the end of
//! that pipe (a cancelled build, a server that died) ends the container and the process.
//!
//! ```text
//! server ─ spec.json, secrets (stdin) ─▶ build-step ─▶ runc run        output: the build's, as it comes
//!    ◀──── result.json ─────────────────┘   └─ overlay, tmpfs, mounts  gone with the process
//! ```

use crate::{
    container::{self, Facts, runtime::Runtime},
    hold::{Error, Result},
    session::{HoldSpec, Mode, SPEC_VERSION},
};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode as FileMode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};
use walt_sys::{mount, net, process};

/// Name of the machine in every build.
const HOSTNAME: &str = "image-build";
/// Where a here-document with an interpreter of its own is shown. `/dev` is memory: nothing is left of it.
const SCRIPT: &str = "/dev/walt-build-script";
/// Where the process keeps what must not reach the disk.
const MEMORY: &str = "memory";
/// Options of that memory.
const MEMORY_OPTIONS: &str = "mode=700,size=64m";
/// How long a killed container may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Most symbolic links that are followed on the way to a mount point.
const MAX_LINKS: usize = 40;
/// Largest message with secrets, in bytes.
const MAX_SECRETS: u64 = 4 << 20;
/// How the command ended.
pub const RESULT: &str = "result.json";
/// What is to be done.
pub const SPEC: &str = "spec.json";
/// Held while the process lives.
pub const LOCK: &str = "lock";

/// What the server wants of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSpec {
    /// Name of the container, unique among those of `runtime_root`.
    pub container_id: String,
    /// `fs` directories of the image's layers, the top one first; absolute paths.
    pub lowers: Vec<PathBuf>,
    /// Name or path of the OCI runtime.
    pub runtime: PathBuf,
    /// Where the runtime keeps its state.
    pub runtime_root: PathBuf,
    /// Control group, in all hierarchies.
    pub cgroup: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// A script that is run with `argv` as its arguments.
    pub script: Option<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: String,
    /// User, group, further groups.
    pub user: (u32, u32, Vec<u32>),
    /// The link to the server; none: only the loopback interface.
    pub network: Option<net::container::ContainerNetwork>,
    /// Most memory, in bytes.
    pub memory_max: Option<u64>,
    /// What is shown beside the image.
    pub mounts: Vec<StepMount>,
}

/// Something shown to one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMount {
    /// Where, an absolute path.
    pub target: String,
    /// Cannot be written.
    pub read_only: bool,
    /// What.
    pub what: What,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A path of another tree, given as its layers; what is written to it is lost.
    Tree {
        /// As [`StepSpec::lowers`].
        lowers: Vec<PathBuf>,
        /// The path, in that tree.
        source: String,
    },
    /// A directory that stays.
    Cache {
        /// The directory.
        dir: PathBuf,
        /// Only one at a time: others wait.
        locked: bool,
    },
    /// Memory, of at most so many bytes.
    Tmpfs(Option<u64>),
    /// A secret of the message on standard input.
    Secret {
        /// Its name there.
        id: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What comes first over standard input, on one line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// Files by id.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Variables: `NAME=value`.
    pub env: Vec<String>,
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The command's status, or 128 and a signal's number.
    Status(i32),
    /// It could not be run; a sentence.
    Error(String),
    /// It was cancelled.
    Cancelled,
}

/// The life of the process. Call it before other threads exist: it changes the mount namespace.
pub fn run(dir: &Path) -> i32 {
    let ended = match prepare(dir) {
        Ok(prepared) => prepared,
        Err(e) => Ended::Error(e.to_string()),
    };
    let path = dir.join(RESULT);
    match serde_json::to_vec(&ended).map_err(io::Error::from).and_then(|bytes| std::fs::write(&path, bytes)) {
        Ok(()) => 0,
        Err(e) => {
            let _ = writeln!(io::stderr(), "cannot write {}: {e}", path.display());
            1
        }
    }
}

/// Whether the process of the step in `dir` is alive.
pub fn is_alive(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join(LOCK)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Removes what a step that was killed has left of its container. `cgroup` is the one of its specification.
pub async fn clean(spec: &StepSpec, dir: &Path) -> Result<()> {
    runtime(spec, dir).delete().await?;
    let group = process::Cgroup::new(&spec.cgroup);
    if !group.processes()?.is_empty() {
        group.kill()?;
    }
    group.remove()?;
    Ok(())
}

fn runtime(spec: &StepSpec, dir: &Path) -> Runtime {
    Runtime {
        program: spec.runtime.clone(),
        root: spec.runtime_root.clone(),
        dir: dir.to_owned(),
        id: spec.container_id.clone(),
    }
}

fn prepare(dir: &Path) -> Result<Ended> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |e| Error::io(what, &path, e)
    };
    let dir = std::fs::canonicalize(dir).map_err(failed("find", dir))?;
    let lock = File::create(dir.join(LOCK)).map_err(failed("make the lock in", &dir))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::io("lock", &dir, e.into()))?;
    let bytes = std::fs::read(dir.join(SPEC)).map_err(failed("read the specification in", &dir))?;
    let spec: StepSpec =
        serde_json::from_slice(&bytes).map_err(|e| Error::io("understand", &dir, e.into()))?;
    let secrets = read_secrets().map_err(failed("read the secrets for", &dir))?;
    process::become_subreaper()?;
    mount::unshare_mounts()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("make an event loop for", &dir))?;
    let ended = runtime.block_on(in_container(&dir, &spec, &secrets));
    // A thread that still waits for a lock of a cache is of no use any more.
    runtime.shutdown_background();
    ended
}

/// One line of JSON; byte by byte, since what follows on the pipe is its end only.
fn read_secrets() -> io::Result<Secrets> {
    let mut line = Vec::new();
    let mut stdin = io::stdin().lock().take(MAX_SECRETS);
    io::BufRead::read_until(&mut stdin, b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Resolves when the server lets go of our standard input.
async fn let_go() {
    let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return };
    if rustix::io::ioctl_fionbio(&fd, true).is_err() {
        return;
    }
    let Ok(fd) = walt_sys::async_fd(fd) else { return };
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        let mut byte = [0; 64];
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut byte)?)) {
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => return,
            Err(_would_block) => {}
        }
    }
}

async fn in_container(dir: &Path, spec: &StepSpec, secrets: &Secrets) -> Result<Ended> {
    let netns = spec.network.is_some().then(net::new_netns).transpose()?;
    let link = match (&spec.network, &netns) {
        (Some(network), Some(netns)) => {
            let netns = netns.try_clone().map_err(|e| Error::io("keep the network of", dir, e))?;
            let network = network.clone();
            Some(tokio::task::spawn_blocking(move || {
                net::container::setup_container_network(&netns, &network)
            }))
        }
        _ => None,
    };
    let root = overlay(dir, "", &spec.lowers)?;
    let memory = make_dir(&dir.join(MEMORY))?;
    mount::tmpfs(&memory, MEMORY_OPTIONS)?;
    let mut stubs = Stubs::new(&root)?;
    let locking = Locks(spec);
    let locks = tokio::select! {
        locks = locking.take() => locks?,
        () = let_go() => return Ok(Ended::Cancelled),
    };
    let result = match mounts(dir, &memory, spec, secrets, &mut stubs) {
        Ok(mounts) => {
            if let Some(link) = link {
                link.await.map_err(|e| Error::Start(e.to_string()))??;
            }
            let bundle = bundle(spec, secrets, &root, netns.as_ref(), mounts);
            contained(&memory, spec, &bundle).await
        }
        Err(e) => Err(e),
    };
    drop(locks);
    stubs.remove();
    drop(stubs);
    let ended = result?;
    // The proof that nobody writes any more: the directory becomes a layer.
    mount::remount_ro(&root)?;
    mount::unmount(&root)?;
    Ok(ended)
}

/// Exclusive use of the caches that ask for it.
struct Locks<'a>(&'a StepSpec);

impl Locks<'_> {
    async fn take(&self) -> Result<Vec<File>> {
        let mut held = Vec::new();
        for mount in &self.0.mounts {
            let What::Cache { dir, locked } = &mount.what else { continue };
            let path = dir.with_extension("lock");
            let lock = File::create(&path).map_err(|e| Error::io("make the lock", &path, e))?;
            // Shared use keeps the cache from being removed as unused.
            let how = if *locked { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
            let lock =
                tokio::task::spawn_blocking(move || rustix::fs::flock(&lock, how).map(|()| lock)).await;
            let lock = lock.map_err(|e| Error::Start(e.to_string()))?;
            held.push(lock.map_err(|e| Error::io("lock", &path, e.into()))?);
        }
        Ok(held)
    }
}

fn make_dir(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).map_err(|e| Error::io("make the directory", path, e))?;
    Ok(path.to_owned())
}

/// Mounts the tree of some layers, with what is written to it in `<base>/layer/fs`.
fn overlay(dir: &Path, name: &str, lowers: &[PathBuf]) -> Result<PathBuf> {
    let base = if name.is_empty() { dir.to_owned() } else { make_dir(&dir.join(name))? };
    for part in ["layer/fs", "work", "root", "empty"] {
        make_dir(&base.join(part))?;
    }
    let target = base.join("root");
    let mut lowers = lowers.to_vec();
    if lowers.is_empty() {
        // An image from scratch has no layer, an overlay needs one.
        lowers.push(base.join("empty"));
    }
    mount::overlay(&mount::Overlay {
        lowers,
        base,
        upper: "layer/fs".into(),
        work: "work".into(),
        target: target.clone(),
        ids: None,
    })?;
    Ok(target)
}

/// Runs the container to its end.
async fn contained(memory: &Path, spec: &StepSpec, bundle: &Value) -> Result<Ended> {
    let path = memory.join(container::runtime::CONFIG);
    let bytes = serde_json::to_vec(bundle).map_err(|e| Error::io("express", &path, e.into()))?;
    std::fs::write(&path, bytes).map_err(|e| Error::io("write", &path, e))?;
    let runtime = runtime(spec, memory);
    let group = process::Cgroup::new(&spec.cgroup);
    let mut child = runtime.spawn_inheriting(&["run", &spec.container_id])?;
    let status = tokio::select! {
        status = child.wait() => Some(status.map_err(|e| Error::io("wait for", &runtime.program, e))?),
        () = let_go() => None,
    };
    let Some(status) = status else {
        let _ = runtime.call("kill the container", &["kill", &spec.container_id, "KILL"]).await;
        let _ = group.kill();
        let _ = tokio::time::timeout(KILL_LIMIT, child.wait()).await;
        runtime.delete().await?;
        group.remove()?;
        return Ok(Ended::Cancelled);
    };
    let failure = runtime.logged_error();
    runtime.delete().await?;
    group.remove()?;
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(match failure {
        Some(message) if code != 0 => Ended::Error(format!("the command cannot be run: {message}")),
        _ => Ended::Status(code),
    })
}

/// The container's configuration: that of an image shell, for another command.
fn bundle(
    spec: &StepSpec,
    secrets: &Secrets,
    root: &Path,
    netns: Option<&OwnedFd>,
    more: Vec<Value>,
) -> Value {
    let shell = HoldSpec {
        version: SPEC_VERSION,
        container_id: spec.container_id.clone(),
        lowers: Vec::new(),
        runtime: spec.runtime.clone(),
        runtime_root: spec.runtime_root.clone(),
        cgroup: spec.cgroup.clone(),
        mode: Mode::Simple,
        tty: None,
        command: Some(spec.argv.clone()),
        stdin: None,
        env: Vec::new(),
        network: spec.network.clone(),
        memory_max: spec.memory_max,
        users: None,
        emulated: false,
    };
    let facts = Facts {
        root: root.to_owned(),
        run: None,
        cpuinfo: None,
        netns: netns.map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()),
        userns: None,
        shell: "/bin/sh",
        has_home: false,
    };
    let mut config = container::bundle(&shell, &facts);
    config["hostname"] = json!(HOSTNAME);
    let process = &mut config["process"];
    let script = spec.script.is_some().then(|| SCRIPT.to_owned());
    process["args"] = json!(script.into_iter().chain(spec.argv.iter().cloned()).collect::<Vec<_>>());
    process["env"] = json!(spec.env.iter().chain(&secrets.env).collect::<Vec<_>>());
    process["cwd"] = json!(spec.workdir);
    process["user"] = json!({"uid": spec.user.0, "gid": spec.user.1, "additionalGids": spec.user.2});
    if spec.user.0 != 0 {
        // As after setuid(2): the bounding set stays, so that set-user-id programs work.
        process["capabilities"]["effective"] = json!([]);
        process["capabilities"]["permitted"] = json!([]);
    }
    if let Value::Array(mounts) = &mut config["mounts"] {
        // A build sees the image's own /run, as other builders have it.
        mounts.retain(|m| m["destination"] != "/run");
        mounts.extend(more);
    }
    config
}

fn bind(source: &Path, target: &str, read_only: bool) -> Value {
    let mut options = vec!["rbind", "nosuid", "nodev", "rprivate"];
    options.push(if read_only { "ro" } else { "rw" });
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

/// Prepares what is shown to the command, and the places where it is shown.
fn mounts(
    dir: &Path,
    memory: &Path,
    spec: &StepSpec,
    secrets: &Secrets,
    stubs: &mut Stubs,
) -> Result<Vec<Value>> {
    let mut list = Vec::new();
    for point in container::MOUNT_POINTS.iter().filter(|p| **p != "run") {
        stubs.make(&format!("/{point}"), true)?;
    }
    let own = |name: &str, text: &str, mode: u32| -> Result<PathBuf> {
        let path = memory.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io("write", &path, e))?;
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode).map_err(|e| Error::io("set the mode of", &path, e))?;
        Ok(path)
    };
    if let Some(network) = &spec.network {
        let text = format!("nameserver {}\n", network.gateway);
        list.push(bind(&own("resolv.conf", &text, 0o644)?, "/etc/resolv.conf", false));
        stubs.make("/etc/resolv.conf", false)?;
    }
    let hosts = format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    list.push(bind(&own("hosts", &hosts, 0o644)?, "/etc/hosts", false));
    stubs.make("/etc/hosts", false)?;
    if let Some(script) = &spec.script {
        list.push(bind(&own("script", script, 0o755)?, SCRIPT, true));
    }
    for (number, mount) in spec.mounts.iter().enumerate() {
        let target = mount.target.as_str();
        match &mount.what {
            What::Tmpfs(size) => {
                stubs.make(target, true)?;
                let mut options = vec!["nosuid".to_owned(), "nodev".into(), "mode=1777".into()];
                options.extend(size.map(|bytes| format!("size={bytes}")));
                list.push(
                    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}),
                );
            }
            What::Cache { dir, .. } => {
                stubs.make(target, true)?;
                list.push(bind(dir, target, mount.read_only));
            }
            What::Secret { id, mode, uid, gid } => {
                let Some(bytes) = secrets.files.get(id) else { continue };
                let path = memory.join(format!("secret-{number}"));
                let put = || -> io::Result<()> {
                    std::fs::write(&path, bytes)?;
                    rustix::fs::chown(&path, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))
                };
                put().map_err(|e| Error::io("write", &path, e))?;
                stubs.make(target, false)?;
                list.push(bind(&path, target, true));
            }
            What::Tree { lowers, source } => {
                let root = overlay(dir, &format!("tree-{number}"), lowers)?;
                let found = open_in(&root, source)
                    .map_err(|e| Error::io("find the source of a mount,", Path::new(source), e.into()))?;
                let meta = rustix::fs::fstat(&found)
                    .map_err(|e| Error::io("look at", Path::new(source), e.into()))?;
                let is_dir = FileType::from_raw_mode(meta.st_mode).is_dir();
                // Bound to a name of our own: the path could lead elsewhere when the runtime follows it.
                let at = dir.join(format!("tree-{number}/at"));
                match is_dir {
                    true => drop(make_dir(&at)?),
                    false => drop(File::create(&at).map_err(|e| Error::io("make", &at, e))?),
                }
                mount::bind(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())), &at)?;
                stubs.make(target, is_dir)?;
                list.push(bind(&at, target, mount.read_only));
            }
        }
    }
    Ok(list)
}

/// Opens a path of a tree without access to it, following symbolic links inside the tree only.
fn open_in(root: &Path, path: &str) -> rustix::io::Result<OwnedFd> {
    let dir = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&dir, path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty(), how)
}

/// Mount points that the image lacks: made before the command, and removed after it unless it has used them.
struct Stubs {
    root: OwnedFd,
    /// Path, whether it is a directory.
    made: Vec<(String, bool)>,
    /// Directories that something was made in: their times before, and after.
    touched: BTreeMap<String, (Timespec, Timespec)>,
}

impl Stubs {
    fn new(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, FileMode::empty())
            .map_err(|e| Error::io("open", root, e.into()))?;
        Ok(Self { root: fd, made: Vec::new(), touched: BTreeMap::new() })
    }

    fn at(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let path = if path.is_empty() { "." } else { path };
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, FileMode::empty(), how)
    }

    fn stat(&self, path: &str) -> rustix::io::Result<rustix::fs::Stat> {
        rustix::fs::fstat(self.at(path, OFlags::PATH)?)
    }

    /// Where a path leads with symbolic links followed inside the tree; names that do not exist stay.
    fn real(&self, path: &str) -> rustix::io::Result<String> {
        let names = |path: &str| {
            path.split('/')
                .rev()
                .filter(|n| !n.is_empty() && *n != ".")
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (mut left, mut at, mut links) = (names(path), String::new(), 0);
        while let Some(name) = left.pop() {
            if name == ".." {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let next = if at.is_empty() { name } else { format!("{at}/{name}") };
            let link = self
                .at(&next, OFlags::PATH | OFlags::NOFOLLOW)
                .and_then(|fd| rustix::fs::readlinkat(fd, "", Vec::new()));
            match link {
                Ok(target) => {
                    links += 1;
                    let Ok(target) = target.into_string() else { return Err(rustix::io::Errno::ILSEQ) };
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP);
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    left.extend(names(&target));
                }
                Err(_) => at = next,
            }
        }
        Ok(at)
    }

    /// Makes a mount point, and the directories above it, where the tree has none.
    fn make(&mut self, target: &str, dir: bool) -> Result<()> {
        let failed = |e: rustix::io::Errno| Error::io("make the mount point", Path::new(target), e.into());
        let real = self.real(target).map_err(failed)?;
        let mut at = String::new();
        let names: Vec<&str> = real.split('/').filter(|n| !n.is_empty()).collect();
        for (i, name) in names.iter().enumerate() {
            let next = if at.is_empty() { (*name).to_owned() } else { format!("{at}/{name}") };
            match self.at(&next, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(_) => {}
                Err(rustix::io::Errno::NOENT) => {
                    let is_dir = dir || i + 1 < names.len();
                    let parent = self.at(&at, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
                    let before = self.stat(&at).map(time).map_err(failed)?;
                    if is_dir {
                        rustix::fs::mkdirat(&parent, *name, FileMode::from_raw_mode(0o755))
                            .map_err(failed)?;
                    } else {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        rustix::fs::openat(&parent, *name, flags, FileMode::from_raw_mode(0o644))
                            .map_err(failed)?;
                    }
                    let after = self.stat(&at).map(time).map_err(failed)?;
                    self.touched.entry(at.clone()).and_modify(|t| t.1 = after).or_insert((before, after));
                    self.made.push((next.clone(), is_dir));
                }
                Err(e) => return Err(failed(e)),
            }
            at = next;
        }
        Ok(())
    }

    /// Removes what is still as it was made. What the command has put something into, or replaced, is its own.
    fn remove(&mut self) {
        while let Some((path, is_dir)) = self.made.pop() {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let Ok(parent) = self.at(dir, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let as_made = if is_dir { kind.is_dir() } else { kind.is_file() && stat.st_size == 0 };
            let Ok(now) = self.stat(dir).map(time) else { continue };
            let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            if !as_made || rustix::fs::unlinkat(&parent, name, flags).is_err() {
                continue;
            }
            // The command has not changed the directory: it gets the time it had. Else the one it had now.
            let last = match self.touched.get(dir) {
                Some((before, after)) if *after == now => *before,
                _ => now,
            };
            let times = Timestamps { last_access: last, last_modification: last };
            let _ = rustix::fs::utimensat(&parent, ".", &times, AtFlags::empty());
            if let Some(touched) = self.touched.get_mut(dir) {
                // The next one that goes from here finds the time that is right already.
                *touched = (last, last);
            }
        }
    }
}

fn time(stat: rustix::fs::Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ }
}
