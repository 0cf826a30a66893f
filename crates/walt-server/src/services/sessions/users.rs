//! User namespaces of containers: which containers have one, and their ranges of user ids.
//!
//! Every session has its own range for the users 0 to 65535, selected by its slot. The kernel limits processes,
//! pending signals and locked memory per user, so sessions do not exhaust each other's limits; and a process that
//! escapes from a container has no rights over processes of others. Ranges cost nothing, since files keep the ids of
//! the image. Higher user ids are the same in all sessions ([`userns::map`]).
//!
//! There is no user namespace if the kernel or the file system does not support it (probed once, at the start of the
//! server), if the configuration disables it, if an image has owners of [`userns::END`] or above, and for a session
//! that began without one.

use crate::{base::config, services::sessions::Sessions};
use std::path::PathBuf;
use walt_api::UserNamespaces;
use walt_container::session::{SessionDir, Users};
use walt_images::View;
use walt_sys::userns;

/// Where holders mount their trees, below the run directory, each in its own mount namespace.
const ROOT: &str = "shell";

fn root(sessions: &Sessions) -> PathBuf {
    sessions.config().run_dir.join(ROOT)
}

/// Probes whether containers can have a user namespace, and logs it if not. Called once; takes some milliseconds.
pub fn probe(sessions: &Sessions) {
    let answer = match sessions.config().containers.user_namespaces {
        false => Err("containers.user-namespaces is false".to_owned()),
        true => crate::base::files::make_dir(&root(sessions), 0o711)
            .and_then(|()| {
                let dir = sessions.store().sessions_dir();
                Ok(userns::probe(dir, &root(sessions), sessions.config().containers.first_user)?)
            })
            .map_err(|e| format!("{e:#}")),
    };
    match &answer {
        Err(why) if sessions.config().containers.user_namespaces => {
            tracing::warn!("image shells run without user namespaces: {why}");
        }
        _ => {}
    }
    let used = answer.is_ok();
    sessions.set_user_namespaces(UserNamespaces { used, why: answer.err() });
}

/// The users of the container of a session, given its directory, its slot and its tree.
pub fn of(sessions: &Sessions, dir: &SessionDir, slot: u32, tree: &View) -> Option<Users> {
    // A session continues as it began: it may have created devices, or files of users outside a range.
    if dir.spec().is_ok_and(|before| before.users.is_none()) {
        return None;
    }
    for_trees(sessions, slot, [tree])
}

/// The users of a container with this slot and these trees.
pub fn for_trees<'a>(
    sessions: &Sessions,
    slot: u32,
    trees: impl IntoIterator<Item = &'a View>,
) -> Option<Users> {
    if !sessions.user_namespaces().is_some_and(|answer| answer.used) {
        return None;
    }
    if let Some(path) = trees.into_iter().find_map(|tree| beyond(tree, userns::END)) {
        tracing::info!(
            "a container runs without user namespace: {path} belongs to a user above {}",
            userns::END - 1
        );
        return None;
    }
    let range = slot % config::USER_RANGES;
    Some(Users {
        first: sessions.config().containers.first_user + range * userns::SIZE,
        root: root(sessions),
    })
}

/// A path whose owner or group is `size` or above, if there is one.
fn beyond(tree: &View, size: u32) -> Option<String> {
    let number = (0..tree.len()).find(|n| tree.entry(*n).is_some_and(|e| e.uid.max(e.gid) >= size))?;
    Some(format!("/{}", String::from_utf8_lossy(&tree.path(number))))
}
