//! Start and end of a container.
//!
//! A session with an OS is stopped in these steps: exec'd processes (hang-up, terminate, 2 s, kill); the image's
//! shutdown hook, 20 s; signal 37 to its init, 10 s; kill. A process that ignores `SIGTERM` would otherwise make
//! systemd wait for 90 s.

use super::client::short;
use super::console::{Console, ShellStreams};
use super::holder::{Child, Holder};
use super::serve::is_simple;
use crate::{
    Error, Result,
    bundle::{
        self, NOTIFY_SOCKET,
        runtime::{CONFIG, Runtime, Streams},
    },
    session::{HoldSpec, Mode, Phase, Tty},
    setup,
};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixDatagram, UnixListener};
use tokio::sync::watch;
use tokio::time::timeout;
use walt_sys::process::{self, ProcessId};

/// How long the shell and what it started may take to end after `SIGHUP` and `SIGTERM`.
const SHELL_END_LIMIT: Duration = Duration::from_secs(2);
/// How long the OS may take to end after its shutdown hook was started.
const OS_END_LIMIT: Duration = Duration::from_secs(20);
/// How long init may take to end after [`INIT_HALT`].
const INIT_END_LIMIT: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long an OS may take to come up before the shell is started anyway.
const OS_START_LIMIT: Duration = Duration::from_secs(30);
/// How many times longer the OS may take for all this on an emulated CPU.
const EMULATION_FACTOR: u32 = 6;
/// After this time, an init that is not known to be systemd is assumed never to report that it is up.
const OTHER_INIT_LIMIT: Duration = Duration::from_secs(3);
/// How long output may be held open by others after the shell has ended.
const DRAIN_LIMIT: Duration = Duration::from_millis(100);
/// `SIGRTMIN+3`: systemd halts (systemd(1)).
const INIT_HALT: i32 = 37;
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
/// Most processes that an error about open files names.
const WRITERS_SHOWN: usize = 5;
const CONSOLE_SOCKET: &str = "console.sock";
const PROCESS: &str = "process.json";
const PID: &str = "pid";

/// A limit, scaled for emulated CPUs.
fn scaled(holder: &Holder, limit: Duration) -> Duration {
    if holder.spec.borrow().emulated { limit * EMULATION_FACTOR } else { limit }
}

/// Starts the container: the shell itself, or the OS.
pub async fn start_container(holder: &Rc<Holder>) -> Result<()> {
    let spec = holder.spec.borrow().clone();
    let runtime = holder.runtime();
    if spec.mode == Mode::Os {
        holder.fresh_run()?;
        // Before the OS starts, so that the socket exists.
        holder.notify_socket.replace(Some(bind_notify(holder)?));
        if spec.users.is_some() {
            holder.cgroup().below(bundle::GROUP).delegate(holder.container_root())?;
        }
    }
    let facts = holder.facts()?;
    holder.dir.write(CONFIG, &bundle::bundle(&spec, &facts))?;
    let run = ["run", "--detach", "--pid-file", PID, &spec.container_id];
    let started = match spec.mode {
        Mode::Simple => {
            let (child, ends) = launch(holder, &runtime, &spec, &run).await?;
            *holder.init.borrow_mut() = Some(child.clone());
            adopt_shell(holder, child, ends)
        }
        Mode::Os => {
            runtime.call("start the container", &run).await?;
            *holder.init.borrow_mut() = Some(read_child(&runtime)?);
            Ok(())
        }
    };
    // Only now: with cgroup v2 the runtime enables the controllers for the groups above its own.
    started.and_then(|()| Ok(holder.cgroup().limit(spec.memory_max, bundle::PIDS_MAX)?))
}

/// With an OS: waits until it is up, then starts the shell in it.
pub async fn start_shell(holder: Rc<Holder>) {
    if is_simple(&holder) {
        return;
    }
    if let Err(e) = try_start_shell(&holder).await {
        holder.update(|s| {
            s.error = Some(e.to_string());
            s.phase = s.phase.max(Phase::Exited);
        });
    }
}

async fn try_start_shell(holder: &Rc<Holder>) -> Result<()> {
    let notes = wait_for_os(holder).await?;
    *holder.start_notes.borrow_mut() = notes;
    let spec = holder.spec.borrow().clone();
    let runtime = holder.runtime();
    holder.dir.write(PROCESS, &bundle::shell_process(&spec, &holder.facts()?))?;
    let exec = ["exec", "--detach", "--pid-file", PID, "--process", PROCESS, &spec.container_id];
    let (child, ends) = launch(holder, &runtime, &spec, &exec).await?;
    adopt_shell(holder, child, ends)
}

fn bind_notify(holder: &Holder) -> Result<UnixDatagram> {
    let (run, owner) = (holder.dir.file("run"), holder.container_root());
    let name = NOTIFY_SOCKET.trim_start_matches("/run/");
    let (_dir, address) = short(&run, name)?;
    let path = run.join(name);
    let socket = UnixDatagram::bind(address).map_err(|e| Error::io("listen at", &path, e))?;
    std::os::unix::fs::lchown(&path, Some(owner), Some(owner)).map_err(|e| Error::io("give", &path, e))?;
    Ok(socket)
}

/// Waits until the OS reports that it is up, or for a bounded time. Returns notes for the user.
async fn wait_for_os(holder: &Rc<Holder>) -> Result<Vec<String>> {
    let run = holder.dir.file("run");
    let (init, socket) = (holder.init.borrow().clone(), holder.notify_socket.take());
    let (Some(mut init), Some(socket)) = (init, socket) else {
        return Err(Error::Start("the OS has ended".into()));
    };
    let mut changed = holder.changed.subscribe();
    let up = async {
        let mut message = [0; 4096];
        loop {
            match socket.recv(&mut message).await {
                Ok(n) if message[..n].split(|b| *b == b'\n').any(|line| line == b"READY=1") => break,
                Ok(_) => {}
                Err(e) => {
                    super::log(format_args!("cannot receive notifications of the OS: {e}"));
                    break;
                }
            }
        }
    };
    let not_systemd = async {
        tokio::time::sleep(scaled(holder, OTHER_INIT_LIMIT)).await;
        if run.join("systemd/system").is_dir() {
            std::future::pending::<()>().await;
        }
    };
    let start_limit = scaled(holder, OS_START_LIMIT);
    let stopping = async { while !holder.stopping.get() && changed.changed().await.is_ok() {} };
    tokio::select! {
        () = up => Ok(Vec::new()),
        () = not_systemd => Ok(Vec::new()),
        () = stopping => Err(Error::Start("the session was stopped while its OS was starting".into())),
        status = ended(&mut init.ended) => Err(Error::Start(format!(
            "the OS of the image ended while it was starting (status {status}); check {} in the image",
            bundle::OS_START
        ))),
        () = tokio::time::sleep(start_limit) => Ok(vec![format!(
            "The OS has not finished starting after {} s: see 'systemctl list-jobs'.",
            start_limit.as_secs()
        )]),
    }
}

/// Waits for the end of a process.
async fn ended(status: &mut watch::Receiver<Option<i32>>) -> i32 {
    match status.wait_for(Option::is_some).await.map(|s| *s) {
        Ok(Some(status)) => status,
        // The task that waits for the process is gone: only when the holder ends.
        _ => -1,
    }
}

/// Has the runtime start a process with the shell's streams.
async fn launch(
    holder: &Rc<Holder>,
    runtime: &Runtime,
    spec: &HoldSpec,
    arguments: &[&str],
) -> Result<(Child, ShellStreams)> {
    let ends = match &spec.tty {
        Some(tty) => launch_on_terminal(runtime, tty, arguments).await?,
        None => launch_on_pipes(holder, runtime, spec, arguments).await?,
    };
    Ok((read_child(runtime)?, ends))
}

async fn launch_on_terminal(runtime: &Runtime, tty: &Tty, arguments: &[&str]) -> Result<ShellStreams> {
    let path = runtime.dir.join(CONSOLE_SOCKET);
    let _ = std::fs::remove_file(&path);
    let (_dir, address) = short(&runtime.dir, CONSOLE_SOCKET)?;
    let failed = |e| Error::io("receive the terminal at", &path, e);
    let listener = UnixListener::bind(address).map_err(failed)?;
    let (verb, rest) = arguments.split_first().map_or(("", arguments), |(v, r)| (*v, r));
    let all: Vec<&str> = [verb, "--console-socket", CONSOLE_SOCKET].iter().chain(rest).copied().collect();
    let mut child = runtime.spawn(&all, Streams { stdin: None, stdout: None, stderr: None })?;
    let master = async {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        let stream = stream.into_std().map_err(failed)?;
        // The runtime sends the terminal right after connecting; its end closes the socket.
        stream.set_nonblocking(false).map_err(failed)?;
        walt_sys::pty::receive_master(&stream).map_err(failed)
    };
    let master = tokio::select! {
        master = master => master?,
        status = child.wait() => {
            let status = status.map_err(|e| Error::io("wait for", &runtime.program, e))?;
            return Err(runtime.failure("start the shell", status));
        }
    };
    finish(runtime, child).await?;
    let _ = std::fs::remove_file(&path);
    // Not an error: the client sends the size again when it attaches.
    let _ = walt_sys::pty::set_size(&master, tty.rows, tty.cols);
    Ok(ShellStreams::Tty(master))
}

async fn launch_on_pipes(
    holder: &Rc<Holder>,
    runtime: &Runtime,
    spec: &HoldSpec,
    arguments: &[&str],
) -> Result<ShellStreams> {
    let pipe = || -> Result<(OwnedFd, OwnedFd)> {
        let (r, w) = std::io::pipe().map_err(|e| Error::io("make a pipe for", holder.dir.path(), e))?;
        Ok((r.into(), w.into()))
    };
    let (theirs, ours) = match &spec.stdin {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|e| Error::io("open the script", path, e))?;
            (OwnedFd::from(file), None)
        }
        None => pipe().map(|(r, w)| (r, Some(w)))?,
    };
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    if spec.users.is_some() {
        for fd in [&theirs, &out, &err] {
            setup::own_stream(fd, holder.container_root(), holder.dir.path())?;
        }
    }
    let streams = Streams { stdin: Some(theirs), stdout: Some(out), stderr: Some(err) };
    let child = runtime.spawn(arguments, streams)?;
    finish(runtime, child).await?;
    Ok(ShellStreams::Pipes { stdin: ours, stdout, stderr })
}

async fn finish(runtime: &Runtime, mut child: tokio::process::Child) -> Result<()> {
    let status = child.wait().await.map_err(|e| Error::io("wait for", &runtime.program, e))?;
    if status.success() { Ok(()) } else { Err(runtime.failure("start the shell", status)) }
}

/// Takes over the process whose number the runtime wrote; it became our child when the runtime ended.
fn read_child(runtime: &Runtime) -> Result<Child> {
    let path = runtime.dir.join(PID);
    let failed = |e| Error::io("find the process named in", &path, e);
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let pid: i32 = text.trim().parse().map_err(|e| failed(std::io::Error::other(e)))?;
    let id = ProcessId::of(pid).map_err(failed)?;
    let descriptor = walt_sys::async_fd(id.open().map_err(failed)?).map_err(failed)?;
    let (status, ended) = watch::channel(None);
    tokio::task::spawn_local(async move {
        let code = match descriptor.readable().await {
            // It has ended: this does not block.
            Ok(_) => process::wait_for(pid),
            Err(e) => Err(e),
        };
        status.send_replace(Some(code.unwrap_or_else(|e| {
            super::log(format_args!("cannot get the exit status of process {pid}: {e}"));
            -1
        })));
    });
    Ok(Child { id, ended })
}

/// The shell runs: move its data, and wait for its end.
fn adopt_shell(holder: &Rc<Holder>, child: Child, ends: ShellStreams) -> Result<()> {
    let mut console = Console::new(holder, ends)?;
    let readers = std::mem::take(&mut console.readers);
    *holder.console.borrow_mut() = Some(console);
    holder.shell_leader.set(Some(child.id.pid));
    *holder.shell.borrow_mut() = Some(child.clone());
    holder.update(|s| s.phase = Phase::Running);
    let holder = Rc::clone(holder);
    tokio::task::spawn_local(async move {
        let status = ended(&mut child.ended.clone()).await;
        // The input goes first, then what was written last is read.
        if let Some(console) = holder.console.borrow_mut().as_mut() {
            (console.input, _) = tokio::sync::mpsc::channel(1);
        }
        drain(&holder, readers).await;
        *holder.shell.borrow_mut() = None;
        *holder.console.borrow_mut() = None;
        holder.update(|s| {
            s.shell_status = Some(status);
            s.phase = s.phase.max(Phase::Exited);
        });
        if is_simple(&holder)
            && let Err(e) = stop(&holder).await
        {
            // The next request tries again and reports the error.
            super::log(&e);
        }
    });
    Ok(())
}

/// Waits until all output is read. If another process holds it open (a daemon started by a script), it waits while
/// output arrives at least every [`DRAIN_LIMIT`], or while the client lags behind.
async fn drain(holder: &Rc<Holder>, readers: Vec<tokio::task::JoinHandle<()>>) {
    let mut changed = holder.changed.subscribe();
    for mut reader in readers {
        loop {
            changed.borrow_and_update();
            tokio::select! {
                _ = &mut reader => break,
                step = timeout(DRAIN_LIMIT, changed.changed()) => {
                    if step.is_err() && holder.output.borrow_mut().room() > 0 {
                        reader.abort();
                        break;
                    }
                }
            }
        }
    }
}

/// The processes started by the shell: those of its session, and those that were exec'd next to the OS. Only
/// processes of the container count, since numbers may have been reused.
fn shell_processes(holder: &Holder, leader: i32) -> Vec<ProcessId> {
    let group = holder.cgroup();
    let mut found = group.processes().unwrap_or_default();
    found.retain(|pid| session_of(*pid) == Some(leader));
    // systemd keeps its own processes in groups below: what is in the container's own was exec'd.
    let exec_d = group.below(bundle::GROUP).direct_processes().unwrap_or_default();
    let init = holder.init.borrow().as_ref().map(|c| c.id.pid);
    if init.is_some_and(|init| init != leader && !exec_d.contains(&init)) {
        found.extend(exec_d);
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter().filter_map(|pid| ProcessId::of(pid).ok()).collect()
}

/// The session of a process: field 6 of `/proc/<pid>/stat` (proc(5)), as we see numbers.
fn session_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

fn signal_all(targets: &[ProcessId], signals: &[i32]) {
    for (id, signal) in targets.iter().flat_map(|id| signals.iter().map(move |s| (id, *s))) {
        // A process that has ended already is fine.
        let _ = id.signal(signal);
    }
}

/// Waits until all of these have ended, for a bounded time. Whether they have.
async fn all_ended(targets: &[ProcessId], limit: Duration) -> bool {
    let wait = async {
        for fd in targets.iter().filter_map(|id| id.open().ok()) {
            if let Ok(fd) = walt_sys::async_fd(fd) {
                let _ = fd.readable().await;
            }
        }
    };
    timeout(limit, wait).await.is_ok()
}

/// ShellStreams the shell, or what it left running. Returns a note if the shell had to be killed.
async fn end_shell(holder: &Rc<Holder>) -> Option<String> {
    let leader = holder.shell_leader.get()?;
    let running = holder.shell.borrow().is_some();
    let targets = shell_processes(holder, leader);
    signal_all(&targets, &[SIGHUP, SIGTERM, SIGCONT]);
    if let Some(console) = holder.console.take() {
        console.hang_up();
    }
    let limit = scaled(holder, SHELL_END_LIMIT);
    let gone = all_ended(&targets, limit).await;
    // Those that ignored the signals or were started meanwhile.
    let rest = shell_processes(holder, leader);
    signal_all(&rest, &[SIGKILL]);
    all_ended(&rest, KILL_LIMIT).await;
    (running && !gone).then(|| format!("The shell did not end in {} s and was killed.", limit.as_secs()))
}

/// ShellStreams the OS. Returns a note if it had to be killed.
async fn end_os(holder: &Rc<Holder>) -> Option<String> {
    let init = holder.init.borrow().clone()?;
    let mut status = init.ended.clone();
    if status.borrow().is_some() {
        return None;
    }
    let (os_limit, init_limit) = (scaled(holder, OS_END_LIMIT), scaled(holder, INIT_END_LIMIT));
    if holder.spec.borrow().mode == Mode::Os {
        let hook = async {
            if let Err(e) = run_shutdown(holder).await {
                super::log(&e);
            }
            // The hook only requests it; the end of init is what counts.
            std::future::pending::<()>().await
        };
        tokio::select! {
            _ = timeout(os_limit, ended(&mut status)) => {}
            () = hook => {}
        }
        if status.borrow().is_some() {
            return None;
        }
        let _ = init.id.signal(INIT_HALT);
        if timeout(init_limit, ended(&mut status)).await.is_ok() {
            return None;
        }
    }
    let _ = init.id.signal(SIGKILL);
    let _ = timeout(KILL_LIMIT, ended(&mut status)).await;
    let total = (os_limit + init_limit).as_secs();
    (!is_simple(holder)).then(|| {
        format!("The OS did not end in {total} s and was killed: files being written may be incomplete.")
    })
}

async fn run_shutdown(holder: &Rc<Holder>) -> Result<()> {
    let spec = holder.spec.borrow().clone();
    let name = "shutdown.json";
    holder.dir.write(name, &bundle::shutdown_process(&spec, &holder.facts()?))?;
    let exec = ["exec", "--process", name, &spec.container_id];
    holder.runtime().call("run the shutdown hook", &exec).await
}

/// ShellStreams everything in the container and the container itself. Returns notes for the user.
pub async fn stop(holder: &Rc<Holder>) -> Result<Vec<String>> {
    holder.stopping.set(true);
    holder.notify();
    let _guard = holder.operation.lock().await;
    if holder.phase() >= Phase::Stopped {
        return Ok(holder.stop_notes.borrow().clone());
    }
    let over = holder.init.borrow().as_ref().is_none_or(|init| init.ended.borrow().is_some());
    let mut notes = Vec::new();
    if !over {
        notes.extend(end_shell(holder).await);
    }
    notes.extend(end_os(holder).await);
    remove_container(holder).await?;
    wait_for_status(holder).await;
    *holder.stop_notes.borrow_mut() = notes.clone();
    Ok(notes)
}

/// Waits until the shell's last output and its status are kept, unless a client does not read.
async fn wait_for_status(holder: &Rc<Holder>) {
    let mut changed = holder.changed.subscribe();
    let kept = async { while holder.shell.borrow().is_some() && changed.changed().await.is_ok() {} };
    let _ = timeout(SHELL_END_LIMIT, kept).await;
}

async fn remove_container(holder: &Rc<Holder>) -> Result<()> {
    let ended = holder.init.borrow().as_ref().is_some_and(|init| init.ended.borrow().is_some());
    if ended && is_simple(holder) {
        // Process 1 has ended, and the kernel has ended the others before.
        holder.runtime().forget()?;
        holder.cgroup().remove()?;
    } else {
        setup::remove_leftovers(&holder.runtime(), &holder.cgroup()).await?;
    }
    *holder.init.borrow_mut() = None;
    holder.update(|s| s.phase = Phase::Stopped);
    Ok(())
}

/// Kills everything in the container and removes it.
pub async fn kill(holder: &Rc<Holder>) -> Result<()> {
    holder.stopping.set(true);
    holder.notify();
    let init = holder.init.borrow().clone();
    if let Some(init) = init {
        let _ = init.id.signal(SIGKILL);
        let _ = timeout(KILL_LIMIT, ended(&mut init.ended.clone())).await;
    }
    let _guard = holder.operation.lock().await;
    if holder.phase() < Phase::Stopped { remove_container(holder).await } else { Ok(()) }
}

/// Stops the container and unmounts the overlay: the upper directory has the changes.
pub async fn seal(holder: &Rc<Holder>) -> Result<Vec<String>> {
    let notes = stop(holder).await?;
    let _guard = holder.operation.lock().await;
    holder.unmount()?;
    holder.update(|s| s.phase = Phase::Sealed);
    Ok(notes)
}

/// Kills and unmounts.
pub async fn discard(holder: &Rc<Holder>) -> Result<()> {
    kill(holder).await?;
    let _guard = holder.operation.lock().await;
    holder.unmount()?;
    holder.update(|s| s.phase = Phase::Discarded);
    Ok(())
}

/// Starts a new container with the changes of a stopped one. Returns notes for the user.
pub async fn restart(holder: &Rc<Holder>) -> Result<Vec<String>> {
    {
        let _guard = holder.operation.lock().await;
        if holder.phase() != Phase::Stopped {
            return Err(Error::Refused(
                "the session is not stopped: stop it before starting it again".into(),
            ));
        }
        let mut spec = holder.dir.spec()?;
        // Its namespace exists, and the tree is mounted with its numbers.
        spec.users.clone_from(&holder.spec.borrow().users);
        if spec.lowers != holder.spec.borrow().lowers || spec.network != holder.spec.borrow().network {
            let why = "layers and network of a session cannot change while its holder lives: seal the session and start a new holder";
            return Err(Error::Refused(why.into()));
        }
        *holder.spec.borrow_mut() = spec;
        holder.stopping.set(false);
        holder.shell_leader.set(None);
        holder.output.borrow_mut().clear();
        holder.start_notes.borrow_mut().clear();
        holder.update(|s| {
            s.phase = Phase::Starting;
            s.shell_status = None;
            s.error = None;
        });
        holder.mount()?;
        if let Err(e) = start_container(holder).await {
            let _ = remove_container(holder).await;
            return Err(e);
        }
    }
    start_shell(Rc::clone(holder)).await;
    let error = holder.state.borrow().error.clone();
    error.map_or_else(|| Ok(holder.start_notes.borrow().clone()), |e| Err(Error::Refused(e)))
}

/// Names of processes with open files of the mounted tree, for an error message.
pub fn writers(root: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let unknown = "an unknown process".to_owned();
    let Ok(device) = std::fs::metadata(root).map(|m| m.dev()) else { return unknown };
    let Ok(processes) = std::fs::read_dir("/proc") else { return unknown };
    let holds = |dir: &Path| {
        let files = std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|f| std::fs::metadata(f.path()).is_ok_and(|m| m.dev() == device))
    };
    let names: Vec<String> = processes
        .flatten()
        .filter(|p| p.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) && holds(&p.path()))
        .map(|p| {
            let name = std::fs::read_to_string(p.path().join("comm")).unwrap_or_default();
            format!("{} (pid {})", name.trim(), p.file_name().to_string_lossy())
        })
        .take(WRITERS_SHOWN)
        .collect();
    if names.is_empty() { unknown } else { names.join(", ") }
}
