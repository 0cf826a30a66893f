//! The links between virtual nodes and their networks, in the shapes that the settings say, or for a while another one.
//!
//! ```text
//!                plain: tap on the network's bridge
//!   apply ──▶ { shaped: a process between the tap and that bridge (walt_vnode::link) ──dies──▶ watch starts another
//! ```
//! Everything is found again by names ([`walt_core::segments`]) and directories, so a server that was killed left
//! nothing that the next one would not know. All changes are made with [`Links::state`] locked: they block, for some
//! milliseconds, or for the time that a process needs to start.

use crate::{
    base::{
        config::Config,
        db::{LinkRow, NodeRow, blocking},
        state::Base,
        time::now,
    },
    services::segments,
};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use walt_api::{LinkCounters, LinkState};
use walt_core::{
    segments::{LinkNames, card_mac, link_names},
    settings,
};
use walt_sys::{
    net::{link, member, tap},
    process::Cgroup,
};
use walt_types::{Mac, NetworkName, Networks, Shape};
use walt_vnode::{
    Card,
    link::{self as shaped, Link, LinkSpec, Port, model::Counters},
};

/// How often processes and passing shapes are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Pause before the process of a link is started again after it could not be started.
const RETRY: Duration = Duration::from_secs(5);
/// File of the networks for which the running machine of a node has cards.
const CARDS: &str = "networks.json";

/// Directory of the processes of a node's shaped links, one each.
const LINKS: &str = "links";

/// A link: a node and a network.
type Key = (Mac, NetworkName);

/// The links at run time.
pub struct Links {
    base: Arc<Base>,
    state: Mutex<State>,
}

impl Links {
    /// Those of a server; no process of an earlier one is known yet.
    pub fn new(base: Arc<Base>) -> Self {
        Self { base, state: Mutex::default() }
    }
}

/// Directory of a node's run-time files.
pub fn node_dir(config: &Config, mac: Mac) -> PathBuf {
    config.state_dir.join("nodes").join(mac.dashed())
}

#[derive(Default)]
struct State {
    /// The processes of shaped links.
    processes: HashMap<Key, Arc<Link>>,
    /// When a process may be started again.
    retry: HashMap<Key, Instant>,
}

/// The networks of a node by its settings.
///
/// # Errors
/// The database fails, or has something else in this place.
pub fn configured(links: &Links, mac: Mac) -> Result<Networks> {
    let stored = links.base.db().with(|c| NodeRow::settings(c, mac))?;
    let effective = settings::effective(&stored, true);
    let text = effective.get(settings::NETWORKS).map(String::as_str).unwrap_or_default();
    text.parse().context("the setting 'networks' is damaged")
}

fn directory(links: &Links, (mac, network): &Key) -> PathBuf {
    node_dir(links.base.config(), *mac).join(LINKS).join(network.as_str())
}

fn cgroup(links: &Links, mac: Mac) -> Cgroup {
    let root = links.base.cgroup_root();
    Cgroup::new(format!("{}/links-{}", root.trim_start_matches('/'), mac.dashed()))
}

fn names(links: &Links, (mac, network): &Key) -> LinkNames {
    link_names(links.base.config().bridge(), *mac, network)
}

/// The networks for which the running machine of a node has cards.
///
/// # Errors
/// The record cannot be read.
pub fn cards_of_running(links: &Links, mac: Mac) -> Result<Vec<NetworkName>> {
    let path = node_dir(links.base.config(), mac).join(CARDS);
    let texts: Vec<String> = match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?
        }
        // Started by a server that knew of one network only.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![NetworkName::walt_net()]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    texts.iter().map(|text| text.parse().with_context(|| format!("{} is damaged", path.display()))).collect()
}

fn record_cards(links: &Links, mac: Mac, networks: &Networks) -> Result<()> {
    let texts: Vec<&str> = networks.iter().map(|(name, _)| name.as_str()).collect();
    let path = node_dir(links.base.config(), mac).join(CARDS);
    walt_sys::file::replace(&path, &serde_json::to_vec(&texts)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The networks to which a node has shaped links, or had when a server was killed.
fn shaped_before(links: &Links, mac: Mac) -> Result<Vec<NetworkName>> {
    let path = node_dir(links.base.config(), mac).join(LINKS);
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let entries = entries.with_context(|| format!("cannot list {}", path.display()))?;
    // Names of another form are not ours.
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The shapes that links of a node have for a while, with the time of their end.
fn passing(links: &Links, mac: Mac) -> Result<BTreeMap<NetworkName, (Shape, f64)>> {
    let rows = links.base.db().with(LinkRow::all)?;
    let of_node = rows.into_iter().filter(|row| row.mac == mac && row.until > now());
    Ok(of_node.map(|row| (row.network, (row.shape, row.until))).collect())
}

/// Opens the cards of a machine that is about to start, each one on its network.
///
/// # Errors
/// The kernel refuses, or the process of a link does not start.
pub fn cards(links: &Links, node: &NodeRow) -> Result<Vec<Card>> {
    let mut state = links.state.lock();
    // Read with the lock in hand: who changes them applies them after that.
    let networks = configured(links, node.mac)?;
    let passing = passing(links, node.mac)?;
    for network in shaped_before(links, node.mac)? {
        if networks.shape(network.as_str()).is_none() {
            state.end(links, &(node.mac, network))?;
        }
    }
    record_cards(links, node.mac, &networks)?;
    let mut cards = Vec::new();
    for (network, configured) in networks.iter() {
        let key = (node.mac, network.clone());
        let shape = passing.get(network).map_or(*configured, |(shape, _)| *shape);
        let names = names(links, &key);
        let alias = format!("tap to {network} of {}", node.facts.name);
        segments::ensure(links.base.config(), network)?;
        let bridge = if shape.is_plain() {
            state.end(links, &key)?;
            names.segment
        } else {
            state.shape(links, &key, node.facts.name.as_str(), shape)?;
            names.bridge
        };
        let tap = tap::open(&names.tap, &bridge, &alias)
            .with_context(|| format!("cannot open the tap of node {} to {network}", node.facts.name))?;
        cards.push(Card { mac: card_mac(node.mac, network), tap });
    }
    segments::sweep(links.base.config())?;
    Ok(cards)
}

/// Gives the links of a running machine the shapes that they are to have now. Networks without a card are left alone.
///
/// # Errors
/// The kernel refuses, or the process of a link does not start.
pub fn apply(links: &Links, mac: Mac) -> Result<()> {
    let Some(node) = links.base.db().with(|c| NodeRow::by_mac(c, mac))? else { return Ok(()) };
    let mut state = links.state.lock();
    let networks = configured(links, mac)?;
    let passing = passing(links, mac)?;
    for network in cards_of_running(links, mac)? {
        let key = (mac, network);
        let Some(configured) = networks.shape(key.1.as_str()) else {
            // The node has it until its next reboot; the link stays as it is.
            state.adopt(links, &key)?;
            continue;
        };
        let shape = passing.get(&key.1).map_or(*configured, |(shape, _)| *shape);
        let names = names(links, &key);
        // A machine that does not run has no tap: its next start opens one on the right bridge.
        let tap = link::get(&names.tap)?;
        let attach = |bridge: &str| -> Result<()> {
            if tap.is_some() {
                member::attach(&names.tap, bridge)
                    .with_context(|| format!("cannot connect node {} to {}", node.facts.name, key.1))?;
            }
            Ok(())
        };
        if shape.is_plain() {
            if tap.is_some() {
                segments::ensure(links.base.config(), &key.1)?;
            }
            attach(&names.segment)?;
            state.end(links, &key)?;
        } else {
            segments::ensure(links.base.config(), &key.1)?;
            state.shape(links, &key, node.facts.name.as_str(), shape)?;
            attach(&names.bridge)?;
        }
    }
    Ok(())
}

/// Ends the processes of a node's links, whose machine has ended, and removes the bridges that are not needed any more.
///
/// # Errors
/// A process stays, or the kernel refuses.
pub fn remove(links: &Links, mac: Mac) -> Result<()> {
    let mut state = links.state.lock();
    for network in shaped_before(links, mac)? {
        state.end(links, &(mac, network))?;
    }
    walt_vnode::remove_group(&cgroup(links, mac))?;
    segments::sweep(links.base.config())
}

impl State {
    /// Finds the process of a link that an earlier server started, if there is one.
    fn adopt(&mut self, links: &Links, key: &Key) -> Result<()> {
        if !self.processes.contains_key(key)
            && let Some(link) = shaped::adopt(&directory(links, key))?
        {
            self.processes.insert(key.clone(), Arc::new(link));
        }
        Ok(())
    }

    /// Lets the process of a link, which is started unless it runs, do this to frames.
    fn shape(&mut self, links: &Links, key: &Key, node: &str, shape: Shape) -> Result<()> {
        let names = names(links, key);
        segments::ensure_link(links.base.config(), &names.bridge)?;
        let directory = directory(links, key);
        let running = match self.processes.get(key) {
            Some(link) if link.is_running() => Some(link.clone()),
            _ => shaped::adopt(&directory)?.map(Arc::new),
        };
        let running = match running {
            Some(link) if link.set(shape).is_ok() => link,
            other => {
                if let Some(silent) = other {
                    silent.stop()?;
                }
                let port = |ifname: String, bridge: String, end: &str| Port {
                    ifname,
                    bridge,
                    alias: format!("link to {} of {node}, {end} end", key.1),
                };
                let spec = LinkSpec {
                    node: port(names.node_end, names.bridge, "node"),
                    network: port(names.network_end, names.segment, "network"),
                    shape,
                };
                let exe = std::env::current_exe().context("cannot find the path of this program")?;
                let group = cgroup(links, key.0);
                let link = shaped::start(&spec, &directory, &exe, Some(&group))
                    .with_context(|| format!("cannot shape the link of node {node} to {}", key.1))?;
                tracing::info!(node, network = %key.1, pid = link.pid(), %shape, "a link is shaped");
                Arc::new(link)
            }
        };
        self.processes.insert(key.clone(), running);
        self.retry.remove(key);
        Ok(())
    }

    /// Ends the process of a link, if it has one, and removes the bridge. The tap must be elsewhere.
    fn end(&mut self, links: &Links, key: &Key) -> Result<()> {
        let directory = directory(links, key);
        self.retry.remove(key);
        let running = match self.processes.remove(key) {
            Some(link) => Some(link),
            None => shaped::adopt(&directory)?.map(Arc::new),
        };
        match running {
            Some(link) => link.stop()?,
            None => shaped::forget(&directory)?,
        }
        segments::remove_link(links.base.config(), &names(links, key).bridge)
    }

    /// Nodes with a process that has ended.
    fn broken(&mut self) -> Vec<Mac> {
        let now = Instant::now();
        let is_due = |key: &Key| self.retry.get(key).is_none_or(|at| *at <= now);
        let broken: Vec<Key> = self
            .processes
            .iter()
            .filter(|(key, link)| !link.is_running() && is_due(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &broken {
            self.retry.insert(key.clone(), now + RETRY);
        }
        broken.into_iter().map(|(mac, _)| mac).collect()
    }
}

/// For ever: starts processes again that have ended, and gives links their configured shapes back when the time of
/// others is over.
pub async fn watch(links: Arc<Links>) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        if let Err(e) = blocking(|| look(&links)) {
            tracing::warn!("cannot look after the links of nodes: {e:#}");
        }
    }
}

fn look(links: &Links) -> Result<()> {
    let mut changed = links.state.lock().broken();
    for mac in &changed {
        tracing::warn!(%mac, "the process of a shaped link has ended: starting it again");
    }
    let rows = links.base.db().with(LinkRow::all)?;
    for row in rows.into_iter().filter(|row| row.until <= now()) {
        links.base.db().with(|c| LinkRow::delete(c, row.mac, row.network.as_str()))?;
        changed.push(row.mac);
    }
    for mac in changed {
        if let Err(e) = apply(links, mac) {
            tracing::warn!(%mac, "a link of a node is not as it should be: {e:#}");
        }
    }
    Ok(())
}

/// What is really applied to the links of nodes, and what has happened there.
///
/// # Errors
/// The database or the kernel fails.
pub fn states(links: &Links, rows: &[NodeRow]) -> Result<Vec<LinkState>> {
    let mut states = Vec::new();
    for node in rows.iter().filter(|node| node.facts.is_virtual) {
        let networks = configured(links, node.mac)?;
        let passing = passing(links, node.mac)?;
        let cards = cards_of_running(links, node.mac)?;
        let of_setting = networks.iter().map(|(name, _)| name.clone());
        let mut all: Vec<NetworkName> = cards.iter().cloned().chain(of_setting).collect();
        let mut seen = Vec::new();
        all.retain(|name| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        for network in all {
            let key = (node.mac, network.clone());
            let process = links.state.lock().processes.get(&key).cloned();
            let report = process.as_ref().and_then(|link| link.report().ok());
            let has_card = link::get(&names(links, &key).tap)?.is_some();
            let configured = networks.shape(network.as_str());
            let applied = match (&report, &process) {
                _ if !has_card => None,
                (Some(report), _) => Some(report.shape.to_string()),
                (None, None) => Some(String::new()),
                // It has just ended: nothing passes.
                (None, Some(_)) => None,
            };
            states.push(LinkState {
                node: node.facts.name.to_string(),
                network: network.to_string(),
                applied,
                configured: configured.map(ToString::to_string),
                seconds_left: passing.get(&network).map(|(_, until)| (until - now()).max(0.0)),
                towards_node: report.map(|report| counters(&report.down)),
                from_node: report.map(|report| counters(&report.up)),
            });
        }
    }
    Ok(states)
}

fn counters(of: &Counters) -> LinkCounters {
    let dropped = [
        ("loss", of.lost),
        ("burst", of.lost_in_bursts),
        ("queue", of.queue_full),
        ("link-down", of.cut),
        ("memory", of.no_memory),
        ("kernel", of.kernel),
    ];
    LinkCounters {
        passed: of.passed,
        bytes: of.bytes,
        dropped: dropped
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(cause, n)| (cause.to_owned(), n))
            .collect(),
        duplicated: of.duplicated,
        reordered: of.reordered,
        corrupted: of.corrupted,
        queued: of.queued,
    }
}

/// The whole life of the process of a shaped link: `walt-server link <directory>`; its exit status.
pub fn forward(directory: &std::path::Path) -> i32 {
    shaped::run(directory)
}
