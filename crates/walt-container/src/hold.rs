//! The holder: one process per open session, which survives a restart of the server.
//!
//! A holder has its own mount namespace, mounts the overlay of the session there, runs the container, owns the
//! shell's terminal or pipes, keeps the last output and the exit status, and serves a socket. The end of the server
//! does not end it. The end of the holder leaves a stopped session with intact files: a new holder removes what is
//! left of the container and starts another one with these files.
//!
//! ```text
//! start ─▶ Starting ─▶ Running ─▶ Exited ─▶ Stopped ─┬─ Seal ────▶ Sealed      (holder ends)
//!             │           │ Stop     │ Stop    ▲   │ └─ Discard ─▶ Discarded   (holder ends)
//!             └───────────┴──────────┴─────────┘   └─ Restart ──▶ Starting
//! ```
//! A shell without an OS goes from `Running` to `Stopped` by itself. `Seal` and `Discard` are allowed at any time and
//! stop the container first; `Discard` kills it.
//!
//! Protocol ([`protocol`], version [`protocol::VERSION`]): frames of at most 64 KiB over `hold.sock`. The holder
//! sends a greeting first. Many clients may send requests; one of them is attached, and the newest wins.
//!
//! Limits: 256 KiB of output are kept for the next client. Output waits for an attached client, and for the first
//! one. Later, while no client is attached, the oldest output is dropped. Times are the constants of the module
//! `life`.

pub mod client;
mod console;
mod holder;
mod life;
mod output;
pub mod protocol;
mod serve;

pub use client::Client;
pub use holder::is_held;

use crate::{
    Error, Result,
    session::{HoldSpec, SessionDir},
};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long a holder may take until its container runs: mounts, network and runtime take 0.1 s on an idle
/// machine; removing what a dead holder left takes up to 10 s.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// Name of the socket in the session's directory.
pub(crate) const SOCKET: &str = "hold.sock";
/// Longest message of a holder that could not start, in bytes.
const START_ERROR_MAX: u64 = 4096;
/// Message of a holder once its container runs.
const READY: &str = "ready\n";

/// Starts a detached holder, and returns once its container runs (its OS may still be starting).
///
/// `exe hold <dir>` must call [`run`]. The session's directory must exist; `layer/fs` may hold the changes of an
/// earlier holder. If this fails, only the directory is left.
pub async fn start(spec: &HoldSpec, dir: &Path, exe: &Path) -> Result<()> {
    let files = SessionDir(dir.to_owned());
    files.prepare()?;
    files.write_spec(spec)?;
    let log_path = dir.join("hold.log");
    let log = std::fs::File::create(&log_path).map_err(|e| Error::io("make", &log_path, e))?;
    let (report, theirs) = std::io::pipe().map_err(|e| Error::io("make a pipe for", dir, e))?;
    let mut command = Command::new(exe);
    command.arg("hold").arg(dir).stdin(Stdio::null()).stdout(theirs).stderr(log);
    // Forking a large process takes a while: do not block the other tasks of the server.
    tokio::task::spawn_blocking(move || walt_sys::process::spawn_detached(&mut command))
        .await
        .map_err(|e| Error::Start(e.to_string()))??;
    let said = tokio::time::timeout(START_LIMIT, report_of(report.into(), dir)).await;
    match said
        .map_err(|_| Error::TooLong { what: "the start of the session".into(), limit: START_LIMIT })??
    {
        said if said == READY => Ok(()),
        said if said.trim().is_empty() => {
            Err(Error::Start(format!("its holder ended without a message; see {}", log_path.display())))
        }
        said => Err(Error::Start(said.trim().into())),
    }
}

async fn report_of(pipe: std::os::fd::OwnedFd, dir: &Path) -> Result<String> {
    let failed = |e| Error::io("read from the holder of", dir, e);
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe).map_err(failed)?;
    let mut said = String::new();
    pipe.take(START_ERROR_MAX).read_to_string(&mut said).await.map_err(failed)?;
    Ok(said)
}

/// The holder's whole life: `walt-server hold <dir>`. Returns the exit status of the process.
///
/// Call it first in `main`, before other threads exist: it changes the mount namespace. It reports on standard output
/// whether the container runs, and closes it.
pub fn run(dir: &Path) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return report_failure(&format!("cannot make an event loop: {e}")),
    };
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, holder::run(dir, report_ready));
    // Do not wait for tasks that still wait for clients.
    runtime.shutdown_background();
    match result {
        Ok(()) => 0,
        Err(e) => report_failure(&e.to_string()),
    }
}

/// Writes a line to the holder's log. A full disk must not end a holder, as `eprintln!` would.
pub(crate) fn log(message: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

fn report_failure(message: &str) -> i32 {
    // The reader may be gone; the message is in the log in any case.
    let _ = writeln!(std::io::stdout(), "{message}");
    log(message);
    1
}

/// Reports that the container runs, and closes standard output: the server waits for its end.
fn report_ready() -> Result<()> {
    let path = Path::new("/dev/null");
    let _ = std::io::stdout().write_all(READY.as_bytes()).and_then(|()| std::io::stdout().flush());
    let null = std::fs::File::options().write(true).open(path).map_err(|e| Error::io("open", path, e))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| Error::io("use", path, e.into()))
}
