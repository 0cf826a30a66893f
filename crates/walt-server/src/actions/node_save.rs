//! `walt node save`: saves what a node changed in its RAM as a layer on the image that it booted.
//!
//! ```text
//! node   upper directory of its overlay ──save.sh──▶ names that show in each changed directory, then a tar
//! server composer on the view that the node booted: the tar is put on it; names of the view that show no more are
//!        removed; what the rules leave out goes; the rest is the layer
//! ```
//! If the image has the maximum number of layers, they are squashed for the new image: a reboot to make room would
//! lose the changes.
//!
//! Deletions are found by names that are no longer listed, not by whiteouts in the upper directory: this works with
//! every kernel, and for directories that were removed and created again. The tar of busybox has neither attributes
//! nor fractions of seconds: files with unchanged content keep those of the image.

use crate::{
    actions::{
        app::App,
        image_change::{BaseImage, ImageChange},
        image_copy::join,
        node_program::NodeProgram,
        publish_ref::Target,
        reboot::{announce_and_reboot, wait_booted},
    },
    base::{
        db::{By, HistoryRow, NodeRow, RefRow, blocking},
        events::Events,
        failure::{Failure, Outcome, refused, refused_hint},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufReader, Read},
    sync::Arc,
};
use walt_api::versions::show_path;
use walt_images::{Change, Composer, Kind, SaveRules, View, diff};
use walt_tar::{Header, Type};
use walt_types::{ImageId, UserName};

/// Beginning of the message when the changes do not arrive.
const CANNOT_READ: &str = "cannot read the changes of the node";
/// What runs on the node.
const SCRIPT: &str = include_str!("node_save.sh");
/// Most bytes of names that a node may list.
const MAX_NAMES: usize = 256 << 20;
/// Bytes read from ssh at once.
const CHUNK: usize = 1 << 18;

/// A save, as its user confirmed it.
pub struct Save {
    /// The node.
    pub node: NodeRow,
    /// The reference to save to.
    pub target: Target,
    /// Only list what would be saved.
    pub dry_run: bool,
}

/// Reads names up to the empty one.
fn names(input: &mut impl Read) -> Result<Vec<Vec<u8>>, String> {
    let (mut all, mut name, mut total) = (Vec::new(), Vec::new(), 0);
    let mut byte = [0];
    loop {
        input.read_exact(&mut byte).map_err(|_| "its answer is incomplete".to_owned())?;
        total += 1;
        if total > MAX_NAMES {
            return Err(format!("its changed directories have more than {} MiB of names", MAX_NAMES >> 20));
        }
        match byte[0] {
            0 if name.is_empty() => return Ok(all),
            0 => all.push(std::mem::take(&mut name)),
            b => name.push(b),
        }
    }
}

/// The names in directories of the node, by path, for the directories that could be listed.
type Shown = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

fn shown(list: Vec<Vec<u8>>) -> Shown {
    let mut all = Shown::new();
    let clean =
        |path: &[u8]| path.strip_prefix(b"./").unwrap_or(if path == b"." { b"" } else { path }).to_vec();
    for path in list {
        // Names have no slash, so the last "/." comes from the script.
        if let Some(dir) = path.strip_suffix(b"/.") {
            all.entry(clean(dir)).or_default();
        } else if let Some(slash) = path.iter().rposition(|b| *b == b'/')
            && let Some(dir) = path[..slash].strip_suffix(b"/.")
        {
            all.entry(clean(dir)).or_default().insert(path[slash + 1..].to_vec());
        }
    }
    all
}

/// Applies what the node sends to the view.
fn receive(composer: &mut Composer, input: &mut impl Read) -> Outcome<()> {
    let unreadable = |e: String| refused(format!("{CANNOT_READ}: {e}"));
    names(input).map_err(unreadable)?;
    let shown = shown(names(input).map_err(unreadable)?);
    let (mut dirs, mut gone) = (Vec::new(), Vec::new());
    let mut marks = BTreeSet::new();
    let edit = &mut |header: &mut Header| {
        match header.kind {
            // A whiteout of overlayfs: all whiteouts may be hard links of one device.
            Type::Char if header.rdev == (0, 0) => {
                marks.insert(header.path.clone());
                gone.push(header.path.clone());
                return Ok(false);
            }
            Type::HardLink if marks.contains(&header.link) => {
                gone.push(header.path.clone());
                return Ok(false);
            }
            Type::Dir => dirs.push(header.path.clone()),
            _ => {}
        }
        Ok(true)
    };
    composer.extract(input, b"", edit, &mut |_| ()).map_err(|e| unreadable(e.to_string()))?;
    let view = composer.view().clone();
    for dir in dirs {
        let (Some(names), Some(number)) = (shown.get(&dir), view.find(&dir)) else { continue };
        for child in view.children(number) {
            let name = view.name(*child);
            if !names.contains(name) {
                gone.push(join(&dir, name));
            }
        }
    }
    for path in gone {
        // An entry of the tar exists, even if the list was made before it.
        if composer.untouched(&path).is_some() {
            composer.remove(&path)?;
        }
    }
    composer.keep_from_below()?;
    Ok(())
}

/// The image that the node booted.
fn booted_image(app: &App, node: &NodeRow, view: &View) -> Outcome<ImageId> {
    let (current, refs, before) = app
        .db()
        .with(|c| Ok((RefRow::get(c, &node.facts.image)?, RefRow::all(c)?, HistoryRow::images(c)?)))?;
    let known =
        current.into_iter().map(|r| r.image_id).chain(refs.into_iter().map(|r| r.image_id)).chain(before);
    let mut seen = BTreeSet::new();
    for image in known {
        if seen.insert(image)
            && app.store().config(&image).and_then(|c| c.layers()).is_ok_and(|layers| layers == view.layers())
        {
            return Ok(image);
        }
    }
    Err(refused_hint(
        "the image that this node booted has been removed.",
        format!(
            "'walt node reboot {}' boots the current one, and drops the changes in the node's RAM",
            node.facts.name
        ),
    ))
}

/// Saves the changes of a node; false if a node could not be rebooted.
pub async fn save(app: &Arc<App>, caller: &UserName, save: Save, events: &Events) -> Outcome<bool> {
    let Save { node, target, dry_run } = save;
    wait_booted(app, &[node.mac], Some(events)).await?;
    events.out("** Analysing changes made on this node").await;
    let grants = app.db().with(|c| NodeRow::grants(c, node.mac))?;
    let [granted] = grants.as_slice() else {
        return Err(refused(format!("cannot tell which image {} booted; reboot it first", node.facts.name)));
    };
    let mut pinned = app.images().pins().begin();
    let base = {
        let _writing = app.images().writing().await;
        let view = blocking(|| app.store().view_by_id(granted))?;
        let image = booted_image(app, &node, &view)?;
        pinned.image(image);
        view.platform().into_iter().for_each(|layer| pinned.layer(*layer));
        BaseImage { image, view }
    };
    let by = By::new(caller, format!("walt node save {} {}", node.facts.name, target.reference.image()));
    let _housekeeping = app.images().housekeeping_on_drop();
    events.out("** Building the image").await;
    let (program, _kill_on_drop) = NodeProgram::start(app, &node, SCRIPT.as_bytes())?;
    let base_image = base.image;
    let change = ImageChange::new(app, base, SaveRules::standard(), by);
    let client = events.clone();
    let work = change.compose_from(
        program,
        CANNOT_READ,
        move || client.is_gone(),
        |composer, output| receive(composer, &mut BufReader::with_capacity(CHUNK, output)),
    );
    let new = work.await.map_err(Failure::of_task("the save"))??;
    let Some(new) = new else {
        events.out("Nothing changed on this node: no image was made.").await;
        return Ok(true);
    };
    if dry_run {
        return list(app, base_image, new.image, events).await;
    }
    new.report(events).await;
    events.out("** Verifying the image").await;
    target.check_models(app, &new.image)?;
    let users = target.publish_ref(app, new.image, change.created(), change.by()).await?;
    announce_and_reboot(app, users, "OK", events).await
}

/// Lists the differences between the new image and the old one.
async fn list(app: &Arc<App>, old: ImageId, new: ImageId, events: &Events) -> Outcome<bool> {
    let (mut lines, mut counts, mut bytes) = (Vec::new(), [0u64; 3], 0);
    blocking(|| -> anyhow::Result<()> {
        let (old, new) = (app.images().own_view(&old)?, app.images().own_view(&new)?);
        diff(&old, &new, &mut |d| {
            let (word, index) = match d.change {
                Change::Added => ("added", 0),
                Change::Changed(_) => ("changed", 1),
                Change::Deleted => ("deleted", 2),
            };
            counts[index] += 1;
            bytes += if index == 2 { 0 } else { d.size };
            let slash = if d.kind == Kind::Dir && !d.path.is_empty() { "/" } else { "" };
            lines.push(format!("{word:<8}{:>12}  {}{slash}", d.size, show_path(&d.path)));
            true
        })?;
        Ok(())
    })?;
    for line in lines {
        events.out(line).await;
    }
    let [added, changed, deleted] = counts;
    events
        .note(format!(
            "{added} added, {changed} changed, {deleted} deleted; {bytes} bytes. Nothing was saved."
        ))
        .await;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_node_are_read() {
        let mut bytes: &[u8] = b"./.\0././b\nc\0./a/.\0./a/./x\0./a/./.\xff\0./lost/y\0\0rest";
        let shown = shown(names(&mut bytes).unwrap());
        assert_eq!(bytes, b"rest");
        let set = |names: &[&[u8]]| names.iter().map(|n| n.to_vec()).collect::<BTreeSet<_>>();
        assert_eq!(shown[b"".as_slice()], set(&[b"b\nc"]));
        assert_eq!(shown[b"a".as_slice()], set(&[b"x", b".\xff"]));
        assert_eq!(shown.len(), 2, "a directory that was not listed itself says nothing");
        assert!(names(&mut &b"./a"[..]).is_err());
    }

    /// The script, run here on a tree that looks like a node's.
    #[test]
    fn the_script_is_a_posix_script() {
        let out = std::process::Command::new("sh").args(["-n", "-c", SCRIPT]).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    }
}
