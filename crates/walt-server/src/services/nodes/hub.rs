//! The node links at run time, changes of the life of nodes, and a signal that the state of some node changed.

use crate::{
    base::{
        db::{self, NodeRow},
        journal::NODES,
        time::now,
    },
    services::nodes::{Nodes, boot_retries, boots},
};
use anyhow::Result;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use walt_core::{
    boots::{Cause, End},
    life::{Life, Next},
    settings::{self, Effect},
};
use walt_types::Mac;

/// Commands that may wait in a node's link.
const LINK_QUEUE: usize = 8;
/// How long a node may take to acknowledge a command.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(15);

/// A command for a node, and where its acknowledgement goes: `Ok` or the reason of its refusal.
pub struct LinkCommand {
    /// Words of the command, such as `REBOOT`.
    pub words: String,
    /// Resolves when the node has answered.
    pub answer: oneshot::Sender<Result<(), String>>,
}

struct Link {
    serial: u64,
    boot_id: String,
    commands: mpsc::Sender<LinkCommand>,
    /// Whether the node says that it is rebooting by force: its end of the connection is not closed then.
    is_leaving: bool,
}

/// Live links by node, and the signal.
pub struct Hub {
    links: Mutex<HashMap<Mac, Link>>,
    serials: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { links: Mutex::default(), serials: AtomicU64::new(1), changed: watch::Sender::new(0) }
    }
}

/// A registered link: its serial number and the commands it is to send.
pub struct Registered {
    /// Distinguishes it from older and newer links of the same node.
    pub serial: u64,
    /// Commands to send to the node.
    pub commands: mpsc::Receiver<LinkCommand>,
}

impl Hub {
    /// Registers a link. An older link of the node is closed, since its command queue is dropped.
    pub fn register(&self, mac: Mac, boot_id: &str) -> Registered {
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let (tx, commands) = mpsc::channel(LINK_QUEUE);
        self.lock()
            .insert(mac, Link { serial, boot_id: boot_id.to_owned(), commands: tx, is_leaving: false });
        Registered { serial, commands }
    }

    /// Removes a link; true if it was the newest one of its node.
    pub fn unregister(&self, mac: Mac, serial: u64) -> bool {
        let mut links = self.lock();
        let newest = links.get(&mac).is_some_and(|l| l.serial == serial);
        if newest {
            links.remove(&mac);
        }
        newest
    }

    /// Whether a node has a link, and is not leaving.
    pub fn is_linked(&self, mac: Mac) -> bool {
        self.lock().get(&mac).is_some_and(|link| !link.is_leaving)
    }

    /// Records that a node is rebooting by force.
    pub fn leaves(&self, mac: Mac) {
        if let Some(link) = self.lock().get_mut(&mac) {
            link.is_leaving = true;
        }
        self.signal();
    }

    /// Closes the link of a node whose record is gone.
    pub fn close(&self, mac: Mac) {
        self.lock().remove(&mac);
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<Mac, Link>> {
        // A panic cannot leave the map inconsistent.
        self.links.lock()
    }

    /// Sends a command over the link of the given boot and waits for its acknowledgement.
    ///
    /// # Errors
    /// The command failed; the text is shown by `reboot`.
    pub async fn command(&self, mac: Mac, boot_id: Option<&str>, words: &str) -> Result<(), String> {
        let commands = {
            let links = self.lock();
            let link = links.get(&mac).ok_or("its node link is down")?;
            if boot_id.is_some_and(|wanted| wanted != link.boot_id) {
                return Err("its node link belongs to another boot".into());
            }
            link.commands.clone()
        };
        let (answer, answered) = oneshot::channel();
        let work = async {
            let command = LinkCommand { words: words.to_owned(), answer };
            commands.send(command).await.map_err(|_| "broken connection".to_owned())?;
            answered.await.unwrap_or_else(|_| Err("broken connection".into()))
        };
        tokio::time::timeout(ACK_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err("timed out waiting for reply".into()))
    }

    /// Wakes all tasks that wait for a change of some node.
    pub fn signal(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// A receiver that sees every change from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Changes the life of a node in one transaction; the result of `change`. A node that was removed meanwhile is
/// ignored. A node that starts a boot has its settings in effect then. A boot that begins by this is the node's own.
pub fn update_life(nodes: &Nodes, mac: Mac, change: impl FnOnce(&mut Life) -> bool) -> Result<bool> {
    update_life_for(nodes, mac, &Cause::node(), change)
}

/// As [`update_life`]; a boot that begins by this has another cause.
pub fn update_life_for(
    nodes: &Nodes,
    mac: Mac,
    cause: &Cause,
    change: impl FnOnce(&mut Life) -> bool,
) -> Result<bool> {
    let updated = nodes.db().transaction(|tx| -> Result<_> {
        let Some(mut row) = NodeRow::by_mac(tx, mac)? else { return Ok(None) };
        let before = row.life.clone();
        let changed = change(&mut row.life);
        NodeRow::set_life(tx, mac, &row.life)?;
        if row.life.started.is_some() && row.life.started != before.started {
            db::booted(tx, mac, settings::keys_of(Effect::Boot))?;
        }
        boots::follow(nodes, &row, &before, cause);
        if row.life.started != before.started {
            // This transaction waits for the disk anyway: no record of a boot lacks its beginning.
            boots::put_now(nodes, tx, mac)?;
        }
        let is_over = before.is_under_way() && !row.life.is_under_way();
        Ok(Some((changed, is_over, row)))
    })?;
    let Some((changed, is_over, row)) = updated else { return Ok(false) };
    nodes.announced().follow(nodes.base().journal(), &row, cause);
    if is_over {
        nodes.supervisors().boot_is_over(mac);
    }
    nodes.hub().signal();
    Ok(changed)
}

/// A boot has failed by this end: what follows. The node has another try, or needs a look, from now on. None if it has
/// changed since `node` was read: the failure counts no more.
///
/// The server can cut the power of virtual nodes only: a physical one needs a look at once.
///
/// # Errors
/// The database failed.
pub fn failed(nodes: &Nodes, node: &NodeRow, end: &End) -> Result<Option<Next>> {
    let stored = nodes.db().with(|c| NodeRow::settings(c, node.mac))?;
    let power = node.facts.is_virtual;
    let mut what = boots::failure(nodes, node.mac, end);
    if !power {
        what += "; the server cannot switch this machine off and on";
    }
    let (mut next, mut reason) = (None, None);
    update_life(nodes, node.mac, |life| {
        let is_same = *life == node.life;
        next = is_same.then(|| life.failed(&what, boot_retries(&stored), power, now()));
        reason.clone_from(&life.needs_look);
        is_same
    })?;
    let name = &node.facts.name;
    let reason = reason.unwrap_or_else(|| what.clone());
    let short = match end {
        End::Timeout => "boot timeout reached",
        _ => &what,
    };
    let said = match next {
        None => return Ok(None),
        Some(Next::Retry { left: 0 }) => format!("{name}: {short}, trying hard-reboot (last try)."),
        Some(Next::Retry { left }) => format!("{name}: {short}, trying hard-reboot ({left} retries left)."),
        Some(Next::Look) => format!("{name} needs a look: {reason}"),
    };
    tracing::warn!("{said}");
    nodes.base().journal().say(NODES, &said);
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// For what is only a matter of turns.
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn commands_wait_for_room_and_end_with_the_link() {
        let mac: Mac = "02:00:00:00:00:01".parse().unwrap();
        let hub = Arc::new(Hub::default());
        let mut link = hub.register(mac, "boot");
        let commands: Vec<_> = (0..=LINK_QUEUE)
            .map(|_| {
                let hub = hub.clone();
                tokio::spawn(async move { hub.command(mac, Some("boot"), "PING").await })
            })
            .collect();
        // Every one has had its turn: one found no room.
        while link.commands.len() < LINK_QUEUE {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(link.commands.len(), LINK_QUEUE);
        for _ in 0..=LINK_QUEUE {
            let command = tokio::time::timeout(SOON, link.commands.recv()).await.unwrap().unwrap();
            command.answer.send(Ok(())).unwrap();
        }
        for command in commands {
            assert_eq!(command.await.unwrap(), Ok(()));
        }
        assert!(hub.is_linked(mac));
        // A newer link closes the queue of the older one.
        let newer = hub.register(mac, "boot");
        assert!(link.commands.recv().await.is_none());
        assert!(!hub.unregister(mac, link.serial) && hub.unregister(mac, newer.serial));
        assert_eq!(hub.command(mac, None, "PING").await, Err("its node link is down".into()));
        let mut last = hub.register(mac, "boot");
        hub.leaves(mac);
        assert!(!hub.is_linked(mac) && last.commands.try_recv().is_err());
        let mut last = hub.register(mac, "boot 2");
        assert!(hub.is_linked(mac));
        hub.close(mac);
        assert!(!hub.is_linked(mac) && last.commands.recv().await.is_none());
    }
}
