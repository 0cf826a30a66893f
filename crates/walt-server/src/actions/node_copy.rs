//! `walt node cp`: files to and from a node, by tar through ssh.
//!
//! One ssh asks the node what is there and which tar it has; a second one runs that tar. GNU tar gets and gives
//! sparse files, attributes and times in nanoseconds; busybox' tar does without.

use crate::{
    actions::app::App,
    actions::image_copy::{Agreed, Base, Destination, agreed_target, from_root, source_of},
    base::{
        db::{By, NodeRow},
        failure::{Failure, Outcome, bad_request, not_found, refused},
        transfer::Channel,
    },
};
use crate::{
    actions::{nodes::ownership_of_one, reboot::wait_booted},
    services::nodes::ssh,
};
use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use walt_api::transfer::{ClientMessage, Found, Path, Placed, Source, SourceKind, place};
use walt_core::ownership::Demand;
use walt_images::{SaveRules, cancel};
use walt_sys::process::KillOnDrop;
use walt_types::UserName;

/// Bytes of a node's error messages that are told.
const MAX_STDERR: u64 = 4096;
/// Nodes that are booted are not waited for, and nothing is said about it.
const AT_ONCE: Duration = Duration::from_millis(20);
/// Exit status of ssh itself.
const SSH_FAILED: i32 = 255;
/// Options for GNU tar when it packs.
const GNU_PACK: &str =
    "--format=posix --sparse --xattrs --xattrs-include='*' --numeric-owner --warning=no-file-ignored";
/// Options for GNU tar when it unpacks.
const GNU_UNPACK: &str =
    "--numeric-owner --xattrs --xattrs-include='*' --keep-directory-symlink --warning=no-timestamp";

/// A word for the shell of a node.
pub(super) fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in bytes {
        if *byte == b'\'' { out.extend_from_slice(b"'\\''") } else { out.push(*byte) }
    }
    out.push(b'\'');
    out
}

/// Puts words of a script together; paths are quoted by the caller.
pub(super) fn script(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(super) fn command(app: &App, node: &NodeRow, script: &[u8]) -> Command {
    let mut command = ssh::command(app.nodes(), node.ip, None, false);
    command.arg("--").arg(OsStr::from_bytes(script));
    command
}

fn cannot_start(e: &io::Error) -> Failure {
    refused(format!("cannot start ssh: {e}; is it installed on the server?"))
}

fn unreachable() -> Failure {
    refused("Could not reach this node. Try again later.")
}

/// What a program on a node said on its standard error, for a message.
pub(super) fn complaint(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let shown = |c: char| if c.is_control() { '?' } else { c };
    lines.join("; ").chars().map(shown).collect()
}

/// Runs a short script on a node and gives its standard output.
pub(super) async fn ask(app: &App, node: &NodeRow, script: &[u8]) -> Outcome<Vec<u8>> {
    let mut command = tokio::process::Command::from(command(app, node, script));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| cannot_start(&e))?;
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(SSH_FAILED) => Err(unreachable()),
        _ => Err(refused(format!("the node failed: {}", complaint(&output.stderr)))),
    }
}

/// A running program on a node. Dropping it ends it.
pub(super) struct Remote {
    child: Child,
    stderr: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Remote {
    /// Starts a script on a node, with pipes. The program is to be used in a thread that may block; it ends with the
    /// second value, too.
    pub fn start(app: &App, node: &NodeRow, script: &[u8]) -> Outcome<(Self, KillOnDrop)> {
        let mut command = command(app, node, script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| cannot_start(&e))?;
        let ends = KillOnDrop::of(&child);
        let stderr = child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = (&mut pipe).take(MAX_STDERR).read_to_end(&mut bytes);
                // Nobody must wait for a pipe that is full.
                let _ = io::copy(&mut pipe, &mut io::sink());
                bytes
            })
        });
        let remote = Self { child, stderr };
        Ok((remote, ends?))
    }

    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    pub fn stdout(&mut self) -> Outcome<std::process::ChildStdout> {
        self.child.stdout.take().ok_or_else(|| Failure::Internal(anyhow::anyhow!("ssh has no output")))
    }

    /// Waits for its end; a failure is told with what it said.
    pub fn finish(mut self, what: &str) -> Outcome<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        let said = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        match status.code() {
            Some(0) => Ok(()),
            Some(SSH_FAILED) => Err(refused(format!("{what}: the node cannot be reached any more"))),
            _ => Err(refused(format!("{what}: {}", complaint(&said)))),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The node, once it is the caller's to use, and booted unless the client does not want to wait.
async fn ready_node(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    agreed: &Agreed,
    channel: &mut Channel,
) -> Outcome<NodeRow> {
    let row = ownership_of_one(app, caller, node, Demand::OwnedOrFree, "cp", agreed.confirm.as_deref())?;
    let macs = [row.mac];
    let mut waiting = std::pin::pin!(wait_booted(app, &macs, None));
    if let Ok(done) = tokio::time::timeout(AT_ONCE, &mut waiting).await {
        return done.map(|_| row);
    }
    channel.events().busy("Node bootup notification pending").await;
    loop {
        tokio::select! {
            done = &mut waiting => return done.map(|_| row),
            message = channel.message() => match message {
                None => return Err(refused("the client went away")),
                Some(ClientMessage::Proceed) => return Ok(row),
                Some(ClientMessage::End) => {}
            },
        }
    }
}

/// An absolute path on the node.
fn absolute(path: &Path) -> Vec<u8> {
    [&b"/"[..], &from_root(path)].concat()
}

/// The directory above a path, and its last name; trailing slashes mean nothing.
fn split(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
    let path = &path[..end];
    match path.iter().rposition(|b| *b == b'/') {
        Some(0) => (b"/".to_vec(), path[1..].to_vec()),
        Some(at) => (path[..at].to_vec(), path[at + 1..].to_vec()),
        None => (b"/".to_vec(), b".".to_vec()),
    }
}

/// What is at paths of a node: `dir`, `file` or `none` each; and whether its tar is GNU's.
async fn look(app: &App, node: &NodeRow, paths: &[Vec<u8>]) -> Outcome<(Vec<Found>, bool)> {
    let mut words: Vec<Vec<u8>> = vec![b"for p in".to_vec()];
    for path in paths {
        words.push([&b" "[..], &quote(path)].concat());
    }
    words.push(
        b"; do if [ -d \"$p\" ]; then echo dir; elif [ -e \"$p\" ] || [ -L \"$p\" ]; then echo file; else echo none; fi; done; \
          case $(tar --version 2>/dev/null) in *GNU*) echo gnu ;; *) echo busybox ;; esac"
            .to_vec(),
    );
    let answer = ask(app, node, &words.concat()).await?;
    let text = String::from_utf8_lossy(&answer);
    let mut lines: Vec<&str> = text.lines().collect();
    let tar = lines.pop();
    if lines.len() != paths.len() {
        return Err(refused("the node's answer is not understood; is its shell a POSIX shell?"));
    }
    let found = lines.into_iter().map(|line| match line {
        "dir" => Found::Directory,
        "file" => Found::File,
        _ => Found::Absent,
    });
    Ok((found.collect(), tar == Some("gnu")))
}

/// Copies files of the client to a node.
pub async fn to_node(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    path: &Path,
    source: &Source,
    agreed: &Agreed,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = ready_node(app, caller, node, agreed, channel).await?;
    let at = absolute(path);
    let (parent, last) = split(&at);
    let inside = [&at, &b"/"[..], &source.name.0].concat();
    let (found, gnu) = look(app, &row, &[at.clone(), parent.clone(), inside.clone()]).await?;
    let state = match (found[0], found[1]) {
        (Found::Absent, Found::Directory) => Found::Absent,
        (Found::Absent, _) => Found::NoParent,
        (other, _) => other,
    };
    let (dir, top) = match place(source.kind, state, &path.show()).map_err(refused)? {
        Placed::Merged => (at, Vec::new()),
        // A new directory gets the contents of `.` like those of any other.
        Placed::Itself => (parent, last),
        Placed::Inside => {
            let name = &source.name.0;
            if matches!(name.as_slice(), b"" | b"." | b"..") || name.contains(&b'/') {
                return Err(bad_request("the source has no name that it could have in the destination"));
            }
            let shown = Path(inside).show();
            match (source.kind, found[2]) {
                (SourceKind::File, Found::Directory) => {
                    return Err(refused(format!(
                        "Overwriting directory {shown} with a file is not allowed."
                    )));
                }
                (SourceKind::Directory, Found::File) => {
                    return Err(refused(format!(
                        "Overwriting regular file {shown} with a directory is not allowed."
                    )));
                }
                _ => (at, name.clone()),
            }
        }
    };
    let options = if gnu { GNU_UNPACK } else { "" };
    let script = script(&[b"cd ", &quote(&dir), b" && exec tar ", options.as_bytes(), b" -x -f -"]);
    let (mut remote, _ends) = Remote::start(app, &row, &script)?;
    channel
        .receive(&top, !gnu, move |tar| {
            let mut stdin = remote.stdin();
            // A tar that has ended early says why itself; what cannot be read from the client is no end of the files.
            if let Some(stdin) = &mut stdin {
                let mut buffer = vec![0; walt_api::transfer::MAX_FRAME];
                loop {
                    let n = tar.read(&mut buffer).map_err(refused)?;
                    if n == 0 || stdin.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            }
            drop(stdin);
            remote.finish("the files could not be written on the node")
        })
        .await?;
    Ok(true)
}

/// The script that packs a file or directory of a node, what it is called in the tar, and what it is.
async fn packing(app: &App, row: &NodeRow, path: &Path) -> Outcome<(Vec<u8>, Vec<u8>, Source)> {
    let at = absolute(path);
    let (found, gnu) = look(app, row, std::slice::from_ref(&at)).await?;
    let options = if gnu { GNU_PACK } else { "" };
    let source = source_of(&path.0, found[0] == Found::Directory);
    let (dir, what, top) = match found[0] {
        Found::Directory => (at, b".".to_vec(), Vec::new()),
        Found::File => {
            let (dir, name) = split(&at);
            // Followed: the file is meant, not a link to it.
            (dir, [&b"-h "[..], &quote(&[&b"./"[..], &name].concat())].concat(), name)
        }
        _ => return Err(not_found(format!("No such file or directory: {}", path.show()))),
    };
    let script = script(&[b"cd ", &quote(&dir), b" && exec tar ", options.as_bytes(), b" -c -f - ", &what]);
    Ok((script, top, source))
}

/// Copies files of a node to the client.
pub async fn from_node(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    path: &Path,
    agreed: &Agreed,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = ready_node(app, caller, node, agreed, channel).await?;
    let (script, top, source) = packing(app, &row, path).await?;
    channel.source(source, &top).await;
    let (mut remote, _ends) = Remote::start(app, &row, &script)?;
    channel
        .send(move |out| {
            let mut stdout = remote.stdout()?;
            drop(remote.stdin());
            io::copy(&mut stdout, out)?;
            remote.finish("the files could not be read on the node")
        })
        .await?;
    Ok(true)
}

/// Copies files of a node to the same place of the image that it is associated with.
pub async fn to_booted_image(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    path: Path,
    agreed: &Agreed,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = ownership_of_one(app, caller, node, Demand::Nothing, "cp", None)?;
    let image = row.facts.image.clone();
    if image.user() != caller.as_str() {
        return Err(refused("Cannot proceed because the booted image does not belong to you."));
    }
    let name = image.image().to_string();
    let operation = format!("copy {node} {} to {name}", path.show());
    let (target, image_id) = agreed_target(app, caller, &name, &operation, agreed).await?;
    let row = ready_node(app, caller, node, agreed, channel).await?;
    let (script, top, source) = packing(app, &row, &path).await?;
    let base = Base::of(app, image_id)?;
    let by = By::new(caller, format!("walt node cp {node}:{} booted-image", path.show()));
    let created = crate::base::time::now() as i64;
    let events = channel.events();
    events.busy("Transfering").await;
    let _tidy = app.images().tidy_when_done();
    let (server, author) = (app.clone(), by.clone());
    let (mut remote, _ends) = Remote::start(app, &row, &script)?;
    let gone = channel.gone();
    let work = tokio::task::spawn_blocking(move || {
        cancel::when(
            move || gone.is_set(),
            || -> Outcome<_> {
                let app = &*server;
                // For the operation may be over before this is.
                let _tidy = app.images().tidy_when_done();
                let mut composer = app.store().compose(&base.view)?;
                let is_dir = source.kind != SourceKind::File;
                let destination = Destination::same_place(&composer, &path, is_dir, &top)?;
                let mut stdout = remote.stdout()?;
                drop(remote.stdin());
                let extracted = destination.extract(&mut composer, &mut stdout, None);
                drop(stdout);
                match extracted {
                    // What the node says of it comes first: a tar that breaks off has a reason.
                    Err(e) => {
                        remote.finish("the files could not be read on the node")?;
                        return Err(refused(e));
                    }
                    Ok(()) => remote.finish("the files could not be read on the node")?,
                }
                base.finish(app, composer, &SaveRules::exact(), &author, created)
            },
        )
    });
    let made = channel.unless_gone(work).await?;
    let Some(made) = made else {
        events.out(target.unchanged()).await;
        return Ok(true);
    };
    made.tell(&events).await;
    target.publish_and_reboot(app, made.image, created, &by, &events).await
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

    #[test]
    fn paths_are_split_without_their_last_slashes() {
        for (path, dir, name) in [
            ("/a/b", "/a", "b"),
            ("/a/b//", "/a", "b"),
            ("/a", "/", "a"),
            ("/", "/", "."),
            ("/root/x/.", "/root/x", "."),
        ] {
            assert_eq!(split(path.as_bytes()), (dir.into(), name.into()), "{path}");
        }
    }
}
