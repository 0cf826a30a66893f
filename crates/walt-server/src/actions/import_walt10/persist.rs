//! `/persist`: the existing server has it in `/var/lib/walt/nodes/<mac>/persist_dirs/<owner>`.
//!
//! A directory is copied by `cp`, which keeps owners, times, links, holes and attributes, to one place of the state
//! directory, and renamed when it is complete and on the disk.

use crate::{
    actions::{app::App, import_walt10::entries_of},
    base::{
        config::Config,
        files::{make_dir, remove_tree},
    },
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};
use walt_import::{Existing, Fate, Item, Plan, plan::Wishes};
use walt_types::{Mac, PLATFORM_USER};

/// Where items of this module are in a plan.
const TABLE: &str = "persist";
/// The directories of owners, in that of a node of the existing server.
const OWNERS: &str = "persist_dirs";
/// A copy that is not complete, in the directory of all nodes.
const PART: &str = ".import";

/// A directory of the existing server.
pub struct Directory {
    mac: Mac,
    owner: String,
    path: PathBuf,
}

/// A directory to copy.
pub struct ToCopy {
    from: PathBuf,
    mac: Mac,
    owner: String,
}

/// The directories below `dir`, which is or was `/var/lib/walt/nodes`.
///
/// # Errors
/// A directory cannot be listed, or there are none.
pub fn list(dir: &Path) -> Result<Vec<Directory>> {
    let mut found = Vec::new();
    for node in entries_of(dir)? {
        // Links lead there by address and name.
        let mac = node.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Mac>().ok());
        let Some(mac) = mac.filter(|_| !node.is_symlink()) else { continue };
        let owners = node.join(OWNERS);
        if !owners.is_dir() {
            continue;
        }
        for path in entries_of(&owners)?.into_iter().filter(|path| path.is_dir() && !path.is_symlink()) {
            let owner = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Directory { mac, owner, path });
        }
    }
    if found.is_empty() {
        bail!(
            "{} has no <mac>/{OWNERS}/<owner>: give the directory that was /var/lib/walt/nodes on the existing server",
            dir.display()
        );
    }
    Ok(found)
}

fn place(config: &Config, mac: Mac, owner: &str) -> PathBuf {
    root(config).join(mac.dashed()).join(owner)
}

fn root(config: &Config) -> PathBuf {
    config.state_dir.join("persist")
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Decides about all directories.
pub fn choose(
    plan: &mut Plan,
    directories: Vec<Directory>,
    existing: &Existing,
    wishes: &Wishes,
    config: &Config,
) -> Vec<ToCopy> {
    let nodes: BTreeSet<Mac> =
        existing.nodes.keys().copied().chain(plan.nodes.iter().map(|node| node.mac)).collect();
    let mut copies = Vec::new();
    for Directory { mac, owner, path } in directories {
        let here = match owner.as_str() {
            PLATFORM_USER => Ok(PLATFORM_USER.to_owned()),
            name => wishes.user(name).map(|user| user.to_string()),
        };
        let (fate, note) = match &here {
            _ if !nodes.contains(&mac) => (Fate::Cannot, Some(format!("{mac} is not a node here"))),
            Err(why) => (Fate::Cannot, Some(why.clone())),
            Ok(user) => {
                let to = place(config, mac, user);
                match to.exists() && !is_empty(&to) {
                    true => (Fate::Here, Some(format!("{} is left as it is", to.display()))),
                    false => (Fate::Comes, None),
                }
            }
        };
        plan.items.push(Item::new(TABLE, format!("{mac} of {owner}"), fate, note));
        if let (Fate::Comes, Ok(owner)) = (fate, here) {
            copies.push(ToCopy { from: path, mac, owner });
        }
    }
    copies
}

/// Copies a directory.
///
/// # Errors
/// `cp` or the disk fails; then nothing is in its place.
pub fn carry_out(app: &App, copy: &ToCopy) -> Result<()> {
    let root = root(app.config());
    let part = root.join(PART);
    let to = place(app.config(), copy.mac, &copy.owner);
    let home = root.join(copy.mac.dashed());
    [&root, &home].into_iter().try_for_each(|dir| make_dir(dir, 0o700))?;
    remove_tree(&part)?;
    eprintln!("Copying {}…", copy.from.display());
    let status = Command::new("cp")
        .args(["-dR", "--preserve=mode,ownership,timestamps,links,xattr", "--sparse=auto", "--"])
        .arg(&copy.from)
        .arg(&part)
        .status()
        .context("cannot start cp")?;
    if !status.success() {
        bail!(
            "cannot copy {} (the reason is printed above): make room or permit it, and start the import again",
            copy.from.display()
        );
    }
    let synced = File::open(&root).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
    synced.with_context(|| format!("cannot write {} to the disk", root.display()))?;
    std::fs::rename(&part, &to)
        .and_then(|()| File::open(&home)?.sync_all())
        .with_context(|| format!("cannot move {} to {}", part.display(), to.display()))
}
