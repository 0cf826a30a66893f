//! Programs on nodes, run through ssh.

use crate::{
    actions::app::App,
    base::{
        db::NodeRow,
        failure::{Failure, Outcome, refused},
        programs::cannot_start,
    },
    services::nodes::ssh,
};
use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use walt_sys::process::KillOnDrop;

/// Bytes of a program's error output that are shown to the user.
const MAX_STDERR: u64 = 4096;
/// Exit status of ssh itself.
const SSH_FAILED: i32 = 255;

/// Quotes a word for the shell of a node.
pub(super) fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in bytes {
        if *byte == b'\'' { out.extend_from_slice(b"'\\''") } else { out.push(*byte) }
    }
    out.push(b'\'');
    out
}

fn command(app: &App, node: &NodeRow, script: &[u8]) -> Command {
    let mut command = ssh::command(app.nodes(), node.ip, None, false);
    command.arg("--").arg(OsStr::from_bytes(script));
    command
}

fn cannot_start_ssh(e: io::Error) -> Failure {
    cannot_start("ssh", &e)
}

/// The error output of a program on a node as one line, for a message.
fn error_text(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let printable = |c: char| if c.is_control() { '?' } else { c };
    lines.join("; ").chars().map(printable).collect()
}

/// Runs a short script on a node; its standard output.
pub(super) async fn output_of(app: &App, node: &NodeRow, script: &[u8]) -> Outcome<Vec<u8>> {
    let mut command = tokio::process::Command::from(command(app, node, script));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(cannot_start_ssh)?;
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(SSH_FAILED) => Err(refused("Could not reach this node. Try again later.")),
        _ => Err(refused(format!("a command failed on the node: {}", error_text(&output.stderr)))),
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
        let mut command = command(app, node, script);
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
        let program = Self { child, stderr };
        Ok((program, kill_on_drop?))
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
            _ => Err(refused(format!("{failure}: {}", error_text(&stderr)))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        for word in [&b"a b"[..], b"'", b"$x\n`y`", b"\xff", b"", b"-n", b"a'b'c"] {
            let script = [&b"printf %s "[..], &quote(word)].concat();
            let out = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
            assert_eq!(out.stdout, word);
        }
    }
}
