//! `walt node cp`: files to and from a node, by tar through ssh.
//!
//! A first ssh finds out what exists at the paths and which tar the node has; a second one runs that tar. GNU tar
//! keeps sparse files, attributes and times in nanoseconds; the tar of busybox does not.

use crate::{
    actions::{
        app::App,
        image_change::{BaseImage, GivenConsent, ImageChange, confirmed_target},
        image_copy::{Destination, check_name, check_overwrite, from_root, source_of},
        node_program::{NodeProgram, output_of},
        ownership::owned_node,
        reboot::{WaitingClient, wait_booted_or_skip},
    },
    base::{
        db::{By, NodeRow, blocking},
        failure::{Outcome, not_found, refused},
        transfer::{Channel, GONE},
    },
};
use std::{
    io::{self, Write},
    sync::Arc,
};
use walt_api::transfer::{ClientMessage, Found, Path, Placed, Source, SourceKind, place};
use walt_core::ownership::Demand;
use walt_images::SaveRules;
use walt_types::{UserName, shell::quote};

/// Beginning of the message when the tar of a node fails to pack.
const CANNOT_READ: &str = "cannot read the files on the node";
/// Options for GNU tar when it packs.
const GNU_PACK: &str =
    "--format=posix --sparse --xattrs --xattrs-include='*' --numeric-owner --warning=no-file-ignored";
/// Options for GNU tar when it unpacks.
const GNU_UNPACK: &str =
    "--numeric-owner --xattrs --xattrs-include='*' --keep-directory-symlink --warning=no-timestamp";

/// The node, once the caller may use it and it is booted, or the client does not want to wait.
async fn ready_node(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    consent: &GivenConsent,
    channel: &mut Channel,
) -> Outcome<NodeRow> {
    let row = owned_node(app, caller, node, Demand::OwnedOrFree, "cp", consent.confirm.as_deref())?;
    struct Transfer<'a>(&'a mut Channel);
    impl WaitingClient for Transfer<'_> {
        async fn busy(&mut self, label: &str) {
            self.0.events().busy(label).await;
        }
        async fn proceeds(&mut self) -> Option<bool> {
            let message = self.0.message().await?;
            Some(matches!(message, ClientMessage::Proceed))
        }
    }
    match wait_booted_or_skip(app, row.mac, &mut Transfer(channel)).await? {
        true => Ok(row),
        false => Err(refused(GONE)),
    }
}

/// An absolute path on the node.
fn absolute(path: &Path) -> Vec<u8> {
    [&b"/"[..], &from_root(path)].concat()
}

/// The parent directory and the last name of a path; trailing slashes are ignored.
fn split(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
    let path = &path[..end];
    match path.iter().rposition(|b| *b == b'/') {
        Some(0) => (b"/".to_vec(), path[1..].to_vec()),
        Some(at) => (path[..at].to_vec(), path[at + 1..].to_vec()),
        None => (b"/".to_vec(), b".".to_vec()),
    }
}

/// What exists at paths of a node, and whether its tar is GNU tar.
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
    let answer = output_of(app, node, &words.concat()).await?;
    let text = String::from_utf8_lossy(&answer);
    let mut lines: Vec<&str> = text.lines().collect();
    let tar = lines.pop();
    if lines.len() != paths.len() {
        return Err(refused("cannot understand the node's answer; does it have a POSIX shell?"));
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
    consent: &GivenConsent,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = ready_node(app, caller, node, consent, channel).await?;
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
        // The contents of `.` go into a new directory like those of any directory.
        Placed::Itself => (parent, last),
        Placed::Inside => {
            let name = &source.name.0;
            check_name(name)?;
            let existing = (found[2] != Found::Absent).then_some(found[2] == Found::Directory);
            check_overwrite(existing, source.kind != SourceKind::File, &Path(inside).show())?;
            (at, name.clone())
        }
    };
    let options = if gnu { GNU_UNPACK } else { "" };
    let script = [b"cd ", &*quote(&dir), b" && exec tar ", options.as_bytes(), b" -x -f -"].concat();
    let (mut program, _kill_on_drop) = NodeProgram::start(app, &row, &script)?;
    channel
        .receive(&top, !gnu, move |tar| {
            let mut stdin = program.stdin();
            // If the tar ends early, its error output says why. A failure to read from the client is not the end of
            // the files.
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
            program.finish("cannot write the files on the node")
        })
        .await?;
    Ok(true)
}

/// The script that packs a file or directory of a node, its name in the tar, and its kind.
async fn packing(app: &App, row: &NodeRow, path: &Path) -> Outcome<(Vec<u8>, Vec<u8>, Source)> {
    let at = absolute(path);
    let (found, gnu) = look(app, row, std::slice::from_ref(&at)).await?;
    let options = if gnu { GNU_PACK } else { "" };
    let source = source_of(&path.0, found[0] == Found::Directory);
    let (dir, what, top) = match found[0] {
        Found::Directory => (at, b".".to_vec(), Vec::new()),
        Found::File => {
            let (dir, name) = split(&at);
            // Links are followed: the file is copied, not a link to it.
            (dir, [&b"-h "[..], &quote(&[&b"./"[..], &name].concat())].concat(), name)
        }
        _ => return Err(not_found(format!("No such file or directory: {}", path.show()))),
    };
    let script = [b"cd ", &*quote(&dir), b" && exec tar ", options.as_bytes(), b" -c -f - ", &*what].concat();
    Ok((script, top, source))
}

/// Copies files of a node to the client.
pub async fn from_node(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    path: &Path,
    consent: &GivenConsent,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = ready_node(app, caller, node, consent, channel).await?;
    let (script, top, source) = packing(app, &row, path).await?;
    channel.source(source, &top).await;
    let (mut program, _kill_on_drop) = NodeProgram::start(app, &row, &script)?;
    channel
        .send(move |out| {
            let mut stdout = program.stdout()?;
            drop(program.stdin());
            io::copy(&mut stdout, out)?;
            program.finish(CANNOT_READ)
        })
        .await?;
    Ok(true)
}

/// Copies files of a node to the same path of the image that the node boots.
pub async fn to_booted_image(
    app: &Arc<App>,
    caller: &UserName,
    node: &str,
    path: Path,
    consent: &GivenConsent,
    channel: &mut Channel,
) -> Outcome<bool> {
    let row = owned_node(app, caller, node, Demand::Nothing, "cp", None)?;
    let image = row.facts.image.clone();
    if image.user() != caller.as_str() {
        return Err(refused("Cannot proceed because the booted image does not belong to you."));
    }
    let name = image.image().to_string();
    let operation = format!("copy {node} {} to {name}", path.show());
    let (target, image_id) = confirmed_target(app, caller, &name, &operation, consent).await?;
    let row = ready_node(app, caller, node, consent, channel).await?;
    let (script, top, source) = packing(app, &row, &path).await?;
    let base = BaseImage::of(app, image_id)?;
    let is_dir = source.kind != SourceKind::File;
    let destination = blocking(|| -> Outcome<_> {
        Destination::same_place(&app.store().compose(&base.view)?, &path, is_dir, &top)
    })?;
    let by = By::new(caller, format!("walt node cp {node}:{} booted-image", path.show()));
    let events = channel.events();
    events.busy("Transfering").await;
    let _housekeeping = app.images().housekeeping_on_drop();
    let change = ImageChange::new(app, base, SaveRules::exact(), by);
    let (program, _kill_on_drop) = NodeProgram::start(app, &row, &script)?;
    let gone = channel.gone();
    let work = change.compose_from(
        program,
        CANNOT_READ,
        move || gone.is_set(),
        move |composer, output| destination.extract(composer, output, None).map_err(refused),
    );
    let new = channel.unless_gone(work).await?;
    change.publish(&target, new, &events).await
}

#[cfg(test)]
mod tests {
    use super::*;

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
