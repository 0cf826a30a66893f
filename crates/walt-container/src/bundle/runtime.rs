//! Runs the program of the OCI runtime.

use crate::{Error, Result};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Log of the runtime, in the session's directory.
const LOG: &str = "runtime.log";
/// The bundle's file.
pub const CONFIG: &str = "config.json";

/// The runtime, for one container.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Name or path of the program.
    pub program: PathBuf,
    /// Where it keeps its state.
    pub root: PathBuf,
    /// The session's directory: bundle and working directory.
    pub dir: PathBuf,
    /// The container's name.
    pub id: String,
}

/// Standard streams of a container's process.
#[derive(Debug)]
pub struct Streams {
    /// Its input; `None`: the null device.
    pub stdin: Option<OwnedFd>,
    /// Its output; `None`: the null device.
    pub stdout: Option<OwnedFd>,
    /// Its errors; `None`: the null device.
    pub stderr: Option<OwnedFd>,
}

fn stdio(fd: Option<OwnedFd>) -> Stdio {
    fd.map_or_else(Stdio::null, Stdio::from)
}

impl Runtime {
    /// Starts the program. Its working directory is the session's, so that names of sockets stay short.
    pub fn spawn(&self, arguments: &[&str], streams: Streams) -> Result<Child> {
        // Errors of an earlier call must not be taken for those of this one.
        let _ = std::fs::remove_file(self.dir.join(LOG));
        let mut command = self.command(arguments);
        command.stdin(stdio(streams.stdin)).stdout(stdio(streams.stdout)).stderr(stdio(streams.stderr));
        command.spawn().map_err(|source| Error::NoRuntime { program: self.program.clone(), source })
    }

    /// Like [`Runtime::spawn`], with the output and errors of this process and no input.
    pub fn spawn_inheriting(&self, arguments: &[&str]) -> Result<Child> {
        let _ = std::fs::remove_file(self.dir.join(LOG));
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        command.spawn().map_err(|source| Error::NoRuntime { program: self.program.clone(), source })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .args(["--log", LOG, "--log-format", "json"])
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The error of a failed call: the last message of level error in its log, or its status.
    pub fn failure(&self, action: &str, status: std::process::ExitStatus) -> Error {
        let message = self.logged_error();
        Error::Runtime { action: action.into(), message: message.unwrap_or_else(|| status.to_string()) }
    }

    /// The last message of level error in the log of the last call.
    pub fn logged_error(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.dir.join(LOG)).unwrap_or_default();
        log.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|entry| entry["level"] == "error")
            .filter_map(|entry| entry["msg"].as_str().map(str::to_owned))
            .next_back()
    }

    /// Runs the program to its end without input and output.
    pub async fn call(&self, action: &str, arguments: &[&str]) -> Result<()> {
        let mut child = self.spawn(arguments, Streams { stdin: None, stdout: None, stderr: None })?;
        let status = child.wait().await.map_err(|e| Error::io("wait for", &self.program, e))?;
        if status.success() { Ok(()) } else { Err(self.failure(action, status)) }
    }

    /// Whether the runtime knows the container.
    pub fn knows(&self) -> bool {
        self.root.join(&self.id).exists()
    }

    /// Removes the runtime's state of a container whose processes have all ended, as its `delete` does; only the
    /// control group is left then. This saves a start of the program, a fifth of the time of a short session.
    pub fn forget(&self) -> Result<()> {
        let state = self.root.join(&self.id);
        match std::fs::remove_dir_all(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &state, e)),
            _ => Ok(()),
        }
    }

    /// Has the runtime remove the container and kill its processes.
    pub async fn delete(&self) -> Result<()> {
        if self.knows() {
            self.call("remove the container", &["delete", "--force", &self.id]).await
        } else {
            Ok(())
        }
    }
}
