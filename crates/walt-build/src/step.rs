//! One command of a build, in a process of its own: `walt-server build-step DIR`.
//!
//! Like a holder of an image shell, it has its own mount namespace, mounts the overlay there, and has the runtime
//! start the container. Unlike a holder, it ends with the server: its standard input is a pipe from the server, and
//! the end of that pipe (a cancelled build, a killed server) ends the container and the process.
//!
//! ```text
//! server ─ spec.json, secrets (stdin) ─▶ build-step ─▶ runc run        output: the build's, as it comes
//!    ◀──── result.json ─────────────────┘   └─ overlay, tmpfs, mounts  gone with the process
//! ```

mod mount_points;
mod mounts;

use mount_points::MountPoints;
use mounts::{Workspace, mounts};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use walt_container::{
    Error, Result,
    bundle::{self, Facts, runtime::Runtime},
    session::{HoldSpec, Mode, SPEC_VERSION, Users},
    setup::{self, Isolation, UPPER, WORK, path_of},
};
use walt_sys::{mount, net::container::ContainerNetwork, process, userns::Namespaces};

/// Name of the machine in every build.
const HOSTNAME: &str = "image-build";
/// Mount point of a here-document with an interpreter of its own. `/dev` is in memory, so nothing of it remains.
const SCRIPT: &str = "/dev/walt-build-script";
/// Directory, in memory, for files that must not reach the disk.
const MEMORY: &str = "memory";
/// Options of that memory.
const MEMORY_OPTIONS: &str = "mode=700,size=64m";
/// How long a killed container may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Largest message with secrets, in bytes.
const MAX_SECRETS: u64 = 4 << 20;
/// File with the [`Outcome`].
pub const RESULT: &str = "result.json";
/// File with the [`StepSpec`].
pub const SPEC: &str = "spec.json";
/// File that is locked while the process runs.
pub const LOCK: &str = "lock";

/// The specification of a step.
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
    /// The user namespace; `None`: the server's users.
    #[serde(default)]
    pub users: Option<Users>,
    /// The link to the server; `None`: only the loopback interface.
    pub network: Option<ContainerNetwork>,
    /// Most memory, in bytes.
    pub memory_max: Option<u64>,
    /// Mounts in addition to the image.
    pub mounts: Vec<StepMount>,
    /// Programs cannot gain rights, by set-user-id for example.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Largest file that can be written, in bytes.
    #[serde(default)]
    pub file_max: Option<u64>,
}

/// A mount of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMount {
    /// Mount point, an absolute path.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// What.
    pub what: MountSource,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSource {
    /// A path of another tree, given by its layers. Changes are lost.
    Tree {
        /// As [`StepSpec::lowers`].
        lowers: Vec<PathBuf>,
        /// The path, in that tree.
        source: String,
    },
    /// A directory that is kept between builds.
    Cache {
        /// The directory.
        dir: PathBuf,
        /// Exclusive: others wait.
        locked: bool,
    },
    /// Memory, with its largest size in bytes.
    Tmpfs(Option<u64>),
    /// A file or directory of this machine.
    Ours(PathBuf),
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

/// The secrets of a build, one line of JSON on standard input.
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
pub enum Outcome {
    /// The command's status, or 128 and a signal's number.
    Status(i32),
    /// It could not be run; a sentence.
    Error(String),
    /// It was cancelled.
    Cancelled,
}

/// Runs the process. Call it before other threads exist: it changes the mount namespace.
pub fn run(dir: &Path) -> i32 {
    let ended = match prepare(dir) {
        Ok(prepared) => prepared,
        Err(e) => Outcome::Error(e.to_string()),
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
    setup::is_locked(&dir.join(LOCK))
}

/// Removes what is left of the container of a killed step.
pub async fn clean(spec: &StepSpec, dir: &Path) -> Result<()> {
    setup::remove_leftovers(&runtime(spec, dir), &process::Cgroup::new(&spec.cgroup)).await
}

fn runtime(spec: &StepSpec, dir: &Path) -> Runtime {
    Runtime {
        program: spec.runtime.clone(),
        root: spec.runtime_root.clone(),
        dir: dir.to_owned(),
        id: spec.container_id.clone(),
    }
}

fn prepare(dir: &Path) -> Result<Outcome> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |e| Error::io(what, &path, e)
    };
    let dir = std::fs::canonicalize(dir).map_err(failed("find", dir))?;
    let lock = File::create(dir.join(LOCK)).map_err(failed("make the lock in", &dir))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::io("lock", &dir, e.into()))?;
    let bytes = std::fs::read(dir.join(SPEC)).map_err(failed("read the specification in", &dir))?;
    let spec: StepSpec = serde_json::from_slice(&bytes).map_err(|e| Error::io("parse", &dir, e.into()))?;
    let secrets = read_secrets().map_err(failed("read the secrets for", &dir))?;
    process::become_subreaper()?;
    mount::unshare_mounts()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("make an event loop for", &dir))?;
    let ended = runtime.block_on(in_container(&dir, &spec, &secrets));
    // Do not wait for threads that still wait for the lock of a cache.
    runtime.shutdown_background();
    ended
}

/// Reads one line of JSON; after it, only the end of the pipe follows.
fn read_secrets() -> io::Result<Secrets> {
    let mut line = Vec::new();
    let mut stdin = io::stdin().lock().take(MAX_SECRETS);
    io::BufRead::read_until(&mut stdin, b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Resolves when the server closes our standard input.
async fn cancelled() {
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

async fn in_container(dir: &Path, spec: &StepSpec, secrets: &Secrets) -> Result<Outcome> {
    let Isolation { namespaces, netns, link } =
        Isolation::start(spec.users.as_ref(), spec.network.as_ref(), dir)?;
    if let Some(users) = &spec.users {
        for fd in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
            setup::own_stream(fd, users.first, dir)?;
        }
    }
    let netns = spec.network.as_ref().and(namespaces.as_ref().map(|n| &n.net).or(netns.as_ref()));
    let root = match &spec.users {
        // The user namespace cannot reach the session's own directory.
        Some(users) => overlay(dir, &spec.lowers, Some(&users.root), namespaces.as_ref())?,
        None => overlay(dir, &spec.lowers, None, None)?,
    };
    let memory = make_dir(&dir.join(MEMORY))?;
    mount::tmpfs(&memory, MEMORY_OPTIONS)?;
    let workspace = Workspace { dir, memory: &memory, namespaces: namespaces.as_ref() };
    let mut mount_points = MountPoints::new(&root, workspace.container_root())?;
    let locking = Locks(spec);
    let locks = tokio::select! {
        locks = locking.take() => locks?,
        () = cancelled() => return Ok(Outcome::Cancelled),
    };
    let result = match mounts(&workspace, spec, secrets, &mut mount_points) {
        Ok(mounts) => {
            link.ready().await?;
            let facts = Facts {
                root: root.clone(),
                run: None,
                cpuinfo: None,
                netns: netns.map(path_of),
                userns: namespaces.as_ref().map(|n| path_of(&n.user)),
                shell: "/bin/sh",
                has_home: false,
            };
            let bundle = bundle(spec, secrets, &facts, mounts);
            run_container(&memory, spec, &bundle).await
        }
        Err(e) => Err(e),
    };
    drop(locks);
    let ended = result?;
    mount_points.remove()?;
    drop(mount_points);
    // This proves that nobody writes any more, before the directory becomes a layer.
    mount::remount_ro(&root)?;
    mount::unmount(&root)?;
    Ok(ended)
}

/// Locks of the caches.
struct Locks<'a>(&'a StepSpec);

impl Locks<'_> {
    async fn take(&self) -> Result<Vec<File>> {
        let mut held = Vec::new();
        for mount in &self.0.mounts {
            let MountSource::Cache { dir, locked } = &mount.what else { continue };
            let path = dir.with_extension("lock");
            let lock = File::create(&path).map_err(|e| Error::io("make the lock", &path, e))?;
            // A shared lock keeps the cache from being removed as unused.
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

/// Mounts the tree of some layers, with changes in `<base>/layer/fs`, at `target` or `<base>/root`.
fn overlay(
    base: &Path,
    lowers: &[PathBuf],
    target: Option<&Path>,
    ids: Option<&Namespaces>,
) -> Result<PathBuf> {
    make_dir(base)?;
    for part in [UPPER, WORK, "root", "empty"] {
        make_dir(&base.join(part))?;
    }
    let target = target.map_or_else(|| base.join("root"), Path::to_owned);
    let mut lowers = lowers.to_vec();
    if lowers.is_empty() {
        // An image from scratch has no layer, but an overlay needs one.
        lowers.push(base.join("empty"));
    }
    setup::overlay(base, lowers, &target, ids)?;
    Ok(target)
}

/// Runs the container to its end.
async fn run_container(memory: &Path, spec: &StepSpec, bundle: &Value) -> Result<Outcome> {
    let path = memory.join(bundle::runtime::CONFIG);
    let bytes = serde_json::to_vec(bundle).map_err(|e| Error::io("encode", &path, e.into()))?;
    std::fs::write(&path, bytes).map_err(|e| Error::io("write", &path, e))?;
    let runtime = runtime(spec, memory);
    let group = process::Cgroup::new(&spec.cgroup);
    let mut child = runtime.spawn_inheriting(&["run", &spec.container_id])?;
    let status = tokio::select! {
        status = child.wait() => Some(status.map_err(|e| Error::io("wait for", &runtime.program, e))?),
        () = cancelled() => None,
    };
    let Some(status) = status else {
        let _ = runtime.call("kill the container", &["kill", &spec.container_id, "KILL"]).await;
        let _ = group.kill();
        let _ = tokio::time::timeout(KILL_LIMIT, child.wait()).await;
        runtime.delete().await?;
        group.remove()?;
        return Ok(Outcome::Cancelled);
    };
    let failure = runtime.logged_error();
    runtime.delete().await?;
    group.remove()?;
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(match failure {
        Some(message) if code != 0 => Outcome::Error(format!("the command cannot be run: {message}")),
        _ => Outcome::Status(code),
    })
}

/// The container's configuration: that of an image shell, for another command.
fn bundle(spec: &StepSpec, secrets: &Secrets, facts: &Facts, more: Vec<Value>) -> Value {
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
        users: spec.users.clone(),
        emulated: false,
    };
    let mut config = bundle::bundle(&shell, facts);
    config["hostname"] = json!(HOSTNAME);
    let process = &mut config["process"];
    let script = spec.script.is_some().then(|| SCRIPT.to_owned());
    process["args"] = json!(script.into_iter().chain(spec.argv.iter().cloned()).collect::<Vec<_>>());
    process["env"] = json!(spec.env.iter().chain(&secrets.env).collect::<Vec<_>>());
    process["cwd"] = json!(spec.workdir);
    process["user"] = json!({"uid": spec.user.0, "gid": spec.user.1, "additionalGids": spec.user.2});
    if spec.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(max) = spec.file_max {
        process["rlimits"] = json!([{"type": "RLIMIT_FSIZE", "soft": max, "hard": max}]);
    }
    if spec.user.0 != 0 {
        // Like after setuid(2): the bounding set stays, so that set-user-id programs work.
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
