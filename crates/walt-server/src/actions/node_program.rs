//! Programs on nodes, run through ssh.

use crate::{
    actions::app::App,
    base::{
        db::NodeRow,
        failure::{Failure, Outcome, refused},
        programs::{SSH_FAILED, cannot_start},
    },
    services::nodes::ssh::{self, Session, one_line},
};
use std::{
    io::{self, Read},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};
use walt_sys::process::KillOnDrop;

/// Bytes of a program's error output that are shown to the user.
const MAX_STDERR: u64 = 4096;

fn cannot_start_ssh(e: io::Error) -> Failure {
    cannot_start("ssh", &e)
}

/// Runs a short script on a node; its standard output.
pub(super) async fn output_of(app: &App, node: &NodeRow, script: &[u8]) -> Outcome<Vec<u8>> {
    let Session { command, lease: _lease } =
        ssh::open(app.base(), app.nodes().masters(), node.mac, Some(script), false).await?;
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(cannot_start_ssh)?;
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(SSH_FAILED) => Err(refused("Could not reach this node. Try again later.")),
        _ => Err(refused(format!("a command failed on the node: {}", one_line(&output.stderr)))),
    }
}

/// A running program on a node. Dropping it kills it.
pub struct NodeProgram {
    child: Child,
    stderr: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl NodeProgram {
    /// Starts a script on a node, with pipes. Use the program in a thread that may block. Dropping the second value kills
    /// it too.
    pub fn start(app: &App, node: &NodeRow, script: &[u8]) -> Outcome<(Self, KillOnDrop)> {
        let mut command = ssh::open_alone(app.base(), node.mac, script)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(cannot_start_ssh)?;
        let kill_on_drop = KillOnDrop::of(&child);
        let stderr = child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = (&mut pipe).take(MAX_STDERR).read_to_end(&mut bytes);
                // Drained, so that a full pipe does not block the program.
                let _ = io::copy(&mut pipe, &mut io::sink());
                bytes
            })
        });
        Ok((Self { child, stderr }, kill_on_drop?))
    }

    /// Its standard input; none the second time.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output.
    ///
    /// # Errors
    /// It was taken before.
    pub fn stdout(&mut self) -> Outcome<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| Failure::Internal(anyhow::anyhow!("ssh has no output")))
    }

    /// Reads the output with `read` and waits for the end of the program. If both fail, the result is the failure of the
    /// program, since it explains why the output was cut.
    pub fn read_output<T>(
        mut self,
        failure: &str,
        read: impl FnOnce(&mut ChildStdout) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut stdout = self.stdout()?;
        drop(self.stdin());
        let result = read(&mut stdout);
        drop(stdout);
        self.finish(failure)?;
        result
    }

    /// Waits for its end. If it failed, the message is `failure` and its error output.
    pub fn finish(mut self, failure: &str) -> Outcome<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        match status.code() {
            Some(0) => Ok(()),
            Some(SSH_FAILED) => Err(refused(format!("{failure}: lost the connection to the node"))),
            _ => Err(refused(format!("{failure}: {}", one_line(&stderr)))),
        }
    }
}

impl Drop for NodeProgram {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
