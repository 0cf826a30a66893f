//! `walt node save`: what a node changed in its RAM becomes a layer on the image that it booted.
//!
//! ```text
//! node   upper directory of its overlay ──save.sh──▶ names that show in each changed directory, then a tar
//! server composer on the view that the node booted: the tar is put on it; names of the view that show no more are
//!        removed; what the rules leave out goes; the rest is the layer
//! ```
//! On an image that has all the layers that it can have, the new image has those squashed: a reboot for that would lose
//! what is to be saved.
//!
//! Deletions come from names that do not show any more, not from marks in the upper directory: that works with every
//! kernel, and for directories that were removed and made again. Busybox' tar has neither attributes nor parts of
//! seconds: files whose content is that of the image keep the image's.

use crate::{
    actions::{
        app::App,
        image_change::{BaseImage, ImageChange},
        image_copy::join,
        node_program::NodeProgram,
        publish_ref::Target,
        reboot::{tell_and_reboot, wait_booted},
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

/// A save, as its user has agreed to it.
pub struct Save {
    /// The node.
    pub node: NodeRow,
    /// What the image's name means now.
    pub target: Target,
    /// Only list what would be saved.
    pub dry_run: bool,
}

/// Reads names up to the empty one.
fn names(input: &mut impl Read) -> Result<Vec<Vec<u8>>, String> {
    let (mut all, mut name, mut total) = (Vec::new(), Vec::new(), 0);
    let mut byte = [0];
    loop {
        input.read_exact(&mut byte).map_err(|_| "its answer breaks off".to_owned())?;
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

/// What shows in directories of the node, by path: only those that could be listed.
type Shown = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

fn shown(list: Vec<Vec<u8>>) -> Shown {
    let mut all = Shown::new();
    let clean =
        |path: &[u8]| path.strip_prefix(b"./").unwrap_or(if path == b"." { b"" } else { path }).to_vec();
    for path in list {
        // Names have no slash: the last "/." is ours.
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

/// Puts what the node sends on top of the view.
fn receive(composer: &mut Composer, input: &mut impl Read) -> Outcome<()> {
    let unreadable = |e: String| refused(format!("{CANNOT_READ}: {e}"));
    names(input).map_err(unreadable)?;
    let shown = shown(names(input).map_err(unreadable)?);
    let (mut dirs, mut gone) = (Vec::new(), Vec::new());
    let mut marks = BTreeSet::new();
    let edit = &mut |header: &mut Header| {
        match header.kind {
            // A deletion, as overlayfs marks it: all marks may be names of one device.
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
        // What the tar has is there, whatever was seen before.
        if composer.untouched(&path).is_some() {
            composer.remove(&path)?;
        }
    }
    composer.keep_from_below()?;
    Ok(())
}

/// The image whose tree the node booted.
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
        "the image that this node booted is not kept any more.",
        format!(
            "'walt node reboot {}' lets it boot the present one; changes in its RAM are lost then",
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
        return Err(refused(format!(
            "it is not known which image {} booted: reboot it first",
            node.facts.name
        )));
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
    let new = work.await.map_err(|e| Failure::of_task("the save")(e))??;
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
    tell_and_reboot(app, users, "OK", events).await
}

/// Lists what an image has more or less than the one before.
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
