//! Nodes: their records, what they may read, their links, how virtual nodes run ([`vnode`]), and what is kept of
//! forgotten ones ([`trash`]).

pub mod announce;
pub mod boards;
pub mod boot;
pub mod boot_tree;
pub mod boots;
pub mod error;
pub mod grants;
pub mod hub;
pub mod links;
pub mod queue;
pub mod secure;
pub mod ssh;
pub mod sweep;
pub mod trash;
pub mod tries;
pub mod vnode;

use crate::{
    base::{
        config::Config,
        db::{self, ClaimRow, Db, DeviceRow, LeaseRow, NodeRow, Settings, TakingRow, blocking},
        files::remove_tree,
        state::{Base, Decision},
        time::{now, rfc3339},
    },
    services::{
        images::Images,
        network,
        nodes::{
            announce::Announced,
            boards::Boards,
            boots::Boots,
            grants::GrantCache,
            hub::{Hub, update_life},
            links::Links,
            queue::Queue,
            ssh::Masters,
            vnode::Supervisors,
        },
    },
};
use anyhow::Result;
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use walt_api::{Node, NodeLease, NodeList, NodeState, NodeTaken, NodeWaiter};
use walt_core::{
    boots::Cause,
    life::{BootMode, Phase},
    node_leases, node_queue, settings,
};
use walt_types::Mac;

/// How long `walt node show` mentions that a node was taken from its owner, in seconds.
const TAKEN_SHOWN: i64 = 7 * 86400;

/// The nodes at run time: links, grants, and virtual nodes that this server supervises.
pub struct Nodes {
    base: Arc<Base>,
    images: Arc<Images>,
    hub: Hub,
    announced: Announced,
    queue: Arc<Queue>,
    boards: Boards,
    boots: Boots,
    grants: GrantCache,
    nfs: OnceLock<Arc<walt_nfsd::Server>>,
    sweeps: Sweeps,
    supervisors: Supervisors,
    links: Arc<Links>,
    masters: Masters,
}

/// The last boot of each node for which its `/persist` was swept. Locked during a sweep, so that only one runs at a
/// time.
#[derive(Default)]
pub struct Sweeps(tokio::sync::Mutex<HashMap<Mac, String>>);

impl Nodes {
    /// The nodes of a server; none is supervised yet.
    pub fn new(base: Arc<Base>, images: Arc<Images>) -> Self {
        let links = Arc::new(Links::new(base.clone()));
        Self {
            base,
            images,
            hub: Hub::default(),
            announced: Announced::default(),
            queue: Arc::default(),
            boards: Boards::default(),
            boots: Boots::default(),
            grants: GrantCache::default(),
            nfs: OnceLock::new(),
            sweeps: Sweeps::default(),
            supervisors: Supervisors::default(),
            links,
            masters: Masters::default(),
        }
    }

    /// The state below the services.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Raspberry Pis that are not nodes yet.
    pub fn boards(&self) -> &Boards {
        &self.boards
    }

    /// Database.
    pub fn db(&self) -> &Db {
        self.base.db()
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        self.base.config()
    }

    /// The images that nodes boot.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// What the log of the platform says of nodes.
    pub fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Live links of nodes, and the signal of changes.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Who waits for nodes.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The last boots of nodes, in memory.
    pub fn boots(&self) -> &Boots {
        &self.boots
    }

    /// What nodes may read, in memory.
    pub fn grants(&self) -> &GrantCache {
        &self.grants
    }

    /// The boots of nodes for which `/persist` was swept.
    pub fn sweeps(&self) -> &Sweeps {
        &self.sweeps
    }

    /// Supervisors of virtual nodes.
    pub fn supervisors(&self) -> &Supervisors {
        &self.supervisors
    }

    /// Shaped links of virtual nodes.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Connections by ssh that programs on a node share.
    pub fn masters(&self) -> &Masters {
        &self.masters
    }

    /// The NFS server, once it serves.
    pub fn nfs(&self) -> Option<&Arc<walt_nfsd::Server>> {
        self.nfs.get()
    }

    /// Sets the NFS server; called once, at the start.
    pub fn set_nfs(&self, server: Arc<walt_nfsd::Server>) {
        let _set_once = self.nfs.set(server);
    }

    /// Directory of `/persist` of a node.
    pub fn persist_root(&self, mac: Mac) -> PathBuf {
        self.config().state_dir.join("persist").join(mac.dashed())
    }

    /// Directory of a node's run-time files: console, sockets.
    pub fn node_dir(&self, mac: Mac) -> PathBuf {
        links::node_dir(self.config(), mac)
    }

    /// Directory of the disks of a virtual node.
    pub fn disks_dir(&self, mac: Mac) -> PathBuf {
        self.node_dir(mac).join("disks")
    }

    /// Adds a node, virtual or physical, with its permanent neighbour. A virtual node is started; a physical one
    /// counts as booting, since it was found by its boot.
    ///
    /// # Errors
    /// The database or the kernel fails.
    pub fn add(self: &Arc<Self>, node: &NodeRow, decision: &Decision<'_>) -> Result<()> {
        trash::finish_of(self, node.mac, decision)?;
        self.db().transaction(|tx| insert(tx, node))?;
        if node.facts.is_virtual {
            network::add_tap(self.config(), node)?;
            self.start_supervisor(node.mac, Cause::user(node.facts.owner(), "creation"));
            return Ok(());
        }
        blocking(|| network::node_neighbour(self.config(), node))?;
        update_life(self, node.mac, |life| {
            life.start(now());
            true
        })?;
        Ok(())
    }

    /// Removes a virtual node: its virtual machine, its record, its neighbour, its grants, its console log, its
    /// disks and `/persist`. A physical one goes to the trash instead: [`trash::forget`].
    ///
    /// # Errors
    /// The virtual machine cannot be stopped, or the database, the kernel or the disk fails.
    pub async fn forget(&self, node: &NodeRow, _decision: &Decision<'_>) -> Result<()> {
        self.stop_supervisor(node.mac).await?;
        if node.facts.is_virtual {
            blocking(|| links::remove(self.links(), node.mac))?;
        }
        self.db().with(|c| NodeRow::delete(c, node.mac))?;
        self.close(node)?;
        self.announced.forget(node.mac);
        remove_tree(&self.persist_root(node.mac))?;
        self.hub.signal();
        self.queue.signal();
        Ok(())
    }

    /// Ends the access of a node whose record is gone, and removes its run-time files.
    fn close(&self, node: &NodeRow) -> Result<()> {
        if node.facts.is_virtual {
            network::remove_tap(self.config(), node)?;
        } else {
            network::remove_neighbour(self.config(), node)?;
        }
        self.hub.close(node.mac);
        ssh::end_others(self.base(), node.mac, None);
        self.boots.forget(node.mac);
        self.grants.forget(node.ip);
        if let Some(nfs) = self.nfs() {
            nfs.close(node.ip);
        }
        remove_tree(&self.node_dir(node.mac))
    }
}

/// Adds the record of a node. It takes over the address that it had leased as a device, and its settings, and is no
/// device any more.
fn insert(c: &Connection, node: &NodeRow) -> Result<()> {
    let settings = db::of_devices(c)?.remove(&node.mac).unwrap_or_default();
    LeaseRow::delete(c, node.mac)?;
    DeviceRow::delete(c, node.mac)?;
    DeviceRow::give_up(c, node.ip)?;
    node.insert(c)?;
    settings.iter().try_for_each(|(key, value)| NodeRow::set_setting(c, node.mac, key, value))
}

/// Seconds after which a boot counts as failed, from the setting `boot.timeout`.
pub fn boot_timeout(stored: &BTreeMap<String, String>) -> Option<f64> {
    settings::value(stored, "boot.timeout").parse().ok()
}

/// How often a failed boot is tried again, from the setting `boot.retries`.
pub fn boot_retries(stored: &BTreeMap<String, String>) -> u32 {
    settings::value(stored, settings::BOOT_RETRIES).parse().unwrap_or_default()
}

/// What a node is to look for on its disks when it boots: its setting `boot.mode`; `network` if the server knows that it
/// has no disk.
///
/// # Errors
/// The database failed.
pub fn boot_mode(nodes: &Nodes, node: &NodeRow) -> Result<String> {
    let stored = nodes.db().with(|c| NodeRow::settings(c, node.mac))?;
    let mut effective = settings::effective(&stored, node.facts.is_virtual);
    if effective.get(settings::DISKS).is_some_and(|disks| disks == "none") {
        return Ok(BootMode::Network.name().to_owned());
    }
    Ok(effective.remove(settings::BOOT_MODE).unwrap_or_default())
}

/// All nodes, for `GET /api/v1/nodes`.
pub fn list(nodes: &Nodes) -> Result<NodeList> {
    let (rows, settings, claims, takings, booted_with) = nodes.db().with(|c| {
        let takings = TakingRow::since(c, now() as i64 - TAKEN_SHOWN)?;
        let (settings, booted_with) = (NodeRow::all_settings(c)?, db::booted_with(c)?);
        Ok((NodeRow::all(c)?, settings, ClaimRow::all(c)?, takings, booted_with))
    })?;
    let (none, waits) = (BTreeMap::new(), nodes.queue().waits());
    let one = |row: &NodeRow| {
        let claimed_model = claims.get(&row.mac).map(ToString::to_string);
        let waiting = node_queue::waiting_for(&waits, row.mac)
            .map(|wait| NodeWaiter { user: wait.user.to_string(), since: rfc3339(wait.since) })
            .collect();
        let taken = takings.get(&row.mac).map(|taking| NodeTaken {
            from: taking.owner.clone(),
            by: taking.user.clone(),
            at: rfc3339(taking.at),
        });
        let of = |all: &BTreeMap<Mac, Settings>| all.get(&row.mac).cloned().unwrap_or_default();
        let reboot_needed = waiting_for_boot(row, &of(&settings), &of(&booted_with));
        let reboot_needed = reboot_needed.into_iter().map(str::to_owned).collect();
        let node = describe(nodes, row, settings.get(&row.mac).unwrap_or(&none));
        Node { claimed_model, waiting, taken, reboot_needed, ..node }
    };
    let nodes: Vec<Node> = rows.iter().map(one).collect();
    Ok(NodeList { num_nodes: nodes.len(), nodes })
}

/// Settings of a node that take effect only when it boots, and have not: one that is off has none.
pub fn waiting_for_boot(row: &NodeRow, stored: &Settings, booted_with: &Settings) -> Vec<&'static str> {
    match row.life.started {
        // Nothing was changed since it has booted.
        Some(_) if booted_with.is_empty() => Vec::new(),
        Some(_) => {
            settings::waiting_for_boot(booted_with, &settings::effective(stored, row.facts.is_virtual))
        }
        None => Vec::new(),
    }
}

/// The words of the command that reboots a node: by its setting `kexec.allow`.
///
/// # Errors
/// The database failed.
pub fn reboot_command(nodes: &Nodes, mac: Mac) -> Result<&'static str> {
    let stored = nodes.db().with(|c| NodeRow::settings(c, mac))?;
    let is_forbidden = stored.get(settings::KEXEC_ALLOW).is_some_and(|value| value == "false");
    Ok(if is_forbidden { "REBOOT firmware" } else { "REBOOT" })
}

fn describe(nodes: &Nodes, row: &NodeRow, stored: &BTreeMap<String, String>) -> Node {
    let phase = row.life.phase(now(), boot_timeout(stored));
    let (state, boot_seconds) = match phase {
        Phase::Off => (NodeState::Off, None),
        Phase::Booting(_) => (NodeState::Booting, None),
        Phase::Booted(seconds) => (NodeState::Booted, Some(seconds)),
        Phase::Down => (NodeState::Down, None),
    };
    let failed = matches!(state, NodeState::Down | NodeState::Off) && row.facts.is_virtual;
    Node {
        name: row.facts.name.to_string(),
        model: row.facts.model.to_string(),
        is_virtual: row.facts.is_virtual,
        image: row.facts.image.full(),
        booted: state == NodeState::Booted,
        ip: row.ip.to_string(),
        mac: row.mac,
        config: settings::effective(stored, row.facts.is_virtual)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), typed(&value)))
            .collect(),
        reboot_needed: Vec::new(),
        owner: row.facts.owner().to_owned(),
        state,
        booted_text: phase.text(),
        boot_mode: row.life.mode.map(|mode| mode.name().to_owned()),
        copied_percent: row.life.copied.filter(|_| matches!(phase, Phase::Booting(_))),
        boot_started: row.life.started,
        boot_seconds,
        needs_look: row.life.needs_look.clone(),
        claimed_model: None,
        lease: row.lease.as_ref().map(lease_of),
        waiting: Vec::new(),
        taken: None,
        last_console_line: failed.then(|| vnode::last_console_line(nodes, row)).flatten(),
    }
}

/// A lease as clients see it. A hold that is kept up has no end.
fn lease_of(lease: &node_leases::NodeLease) -> NodeLease {
    let now = now();
    let expired = lease.is_over(now);
    let ends = if expired { lease.end() } else { lease.ends };
    NodeLease {
        ends: ends.map(|end| rfc3339(end as i64)),
        ends_at: ends.map(|end| end as i64),
        seconds_left: ends.map(|end| (end - now).max(0.0) as u64),
        expired,
        held: lease.hold.is_some() && !expired,
    }
}

/// The value of a setting as JSON: a number, a boolean, null or a string.
pub fn typed(value: &str) -> serde_json::Value {
    match value {
        "none" => serde_json::Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        other => other.parse::<u64>().map_or_else(|_| other.into(), Into::into),
    }
}
