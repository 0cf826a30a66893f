//! Which containers have a user namespace, and with which numbers.
//!
//! Every session has a range of its own for the users 0 to 65535, by its slot: the kernel counts processes, pending
//! signals and memory that is locked by user, so sessions do not take them from each other; and who got out of a
//! container would be nobody to the processes of another. Ranges cost nothing, since files keep the image's numbers.
//! The users above, of which there are two thousand millions, have the same numbers in all sessions
//! ([`userns::map`]).
//!
//! Without: when the kernel or the file system cannot (asked once, at the start of the server), by configuration, for
//! an image with owners of [`userns::END`] or above, and for a session that began without.

use crate::{base::config, services::sessions::Sessions};
use std::path::PathBuf;
use walt_api::UserNamespaces;
use walt_container::session::{SessionDir, Users};
use walt_images::View;
use walt_sys::userns;

/// Where holders mount their trees, below the run directory: every holder its own, in its own mount namespace.
const ROOT: &str = "shell";

fn root(sessions: &Sessions) -> PathBuf {
    sessions.config().run_dir.join(ROOT)
}

/// Finds out, once, whether containers can have a user namespace, and says in the log if not. Takes some ms.
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

/// The users of the container in the session directory `dir`, whose session has this slot, over this tree.
pub fn of(sessions: &Sessions, dir: &SessionDir, slot: u32, tree: &View) -> Option<Users> {
    // A session goes on as it began: it can have made files of users that a range does not have, or devices.
    if dir.spec().is_ok_and(|before| before.users.is_none()) {
        return None;
    }
    for_trees(sessions, slot, [tree])
}

/// The users of a container with this number that sees these trees.
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

/// A path with an owner or group of this number or above, if there is one.
fn beyond(tree: &View, size: u32) -> Option<String> {
    let number = (0..tree.len()).find(|n| tree.entry(*n).is_some_and(|e| e.uid.max(e.gid) >= size))?;
    Some(format!("/{}", String::from_utf8_lossy(&tree.path(number))))
}
