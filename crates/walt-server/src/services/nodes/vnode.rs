//! Virtual nodes: a task for each of them keeps its qemu running, as the database says.
//!
//! ```text
//!   adopt or start ──▶ running ──qemu ends (the guest rebooted, panicked)──▶ start again, with back-off
//!                         │ order: restart ──▶ ask the system, or kill ──▶ start again
//!                         └ order: stop    ──▶ kill ──▶ the task ends
//! ```
//! The tasks end with the server, qemu does not: the next server adopts it. With the setting `boot.road=pxe`, a
//! reboot or panic of the guest stays within its qemu, as on a physical machine; orders stop qemu all the same, since
//! settings and image are read when it starts.

use crate::{
    base::{
        config::Acceleration,
        db::{NodeRow, blocking},
        time,
    },
    services::nodes::{
        Nodes, boot,
        error::{self, Error},
        hub::update_life,
        links,
    },
};
use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use std::{collections::HashMap, fs::File, os::fd::AsFd, sync::Arc, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot},
    time::Instant,
};
use walt_core::{life::BootMode, settings};
use walt_sys::process::Cgroup;
use walt_types::{Disks, Mac};
use walt_vnode::{Account, BootFiles, BootMethod, Launch, Vm, VmSpec, console};

/// Account under which qemu runs.
pub const ACCOUNT: &str = "walt-qemu";
/// Orders that may wait for a node's task.
const ORDERS: usize = 8;
/// First and longest pause before qemu is started again after it ended early.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A qemu that ran for less ended early.
const EARLY: Duration = Duration::from_secs(20);
/// How long the running system may take to end after it has acknowledged a reboot.
const REBOOT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a system on a disk, which stops in its own way and writes its data: the bounds in
/// `node/walt-node-link`, and a little more.
const REBOOT_TIMEOUT_HYBRID: Duration = Duration::from_secs(75);
/// How often the size of the console log is checked.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

enum Order {
    Restart { hard: bool, done: oneshot::Sender<Result<()>> },
    Stop { done: oneshot::Sender<Result<()>> },
}

/// The tasks by node, and why the last start of a node failed.
#[derive(Default)]
pub struct Supervisors {
    orders: Mutex<HashMap<Mac, mpsc::Sender<Order>>>,
    failures: Mutex<HashMap<Mac, String>>,
}

impl Supervisors {
    fn orders(&self) -> parking_lot::MutexGuard<'_, HashMap<Mac, mpsc::Sender<Order>>> {
        // A panic cannot leave the map inconsistent.
        self.orders.lock()
    }

    fn failures(&self) -> parking_lot::MutexGuard<'_, HashMap<Mac, String>> {
        self.failures.lock()
    }

    fn orders_to(&self, mac: Mac) -> Result<mpsc::Sender<Order>> {
        self.orders().get(&mac).cloned().context("this server does not supervise the node")
    }
}

impl Nodes {
    /// Starts the task of a virtual node; it starts or adopts the node's qemu.
    pub fn start_supervisor(self: &Arc<Self>, mac: Mac) {
        let (tx, rx) = mpsc::channel(ORDERS);
        self.supervisors().orders().insert(mac, tx);
        let nodes = self.clone();
        tokio::spawn(async move {
            if let Err(e) = supervise(&nodes, mac, rx).await {
                tracing::error!(%mac, "giving up on the virtual node: {e:#}");
                nodes.supervisors().failures().insert(mac, format!("{e:#}"));
            }
        });
    }

    /// Stops a virtual node's qemu and its task.
    ///
    /// # Errors
    /// qemu cannot be stopped.
    pub async fn stop_supervisor(&self, mac: Mac) -> Result<()> {
        let Ok(orders) = self.supervisors().orders_to(mac) else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        if orders.send(Order::Stop { done }).await.is_ok() {
            answer.await.unwrap_or(Ok(()))?;
        }
        self.supervisors().orders().remove(&mac);
        self.supervisors().failures().remove(&mac);
        Ok(())
    }

    /// Restarts a virtual node. When this returns, the new qemu runs and the node counts as booting.
    ///
    /// # Errors
    /// The node does not run; the error says why.
    pub async fn restart_vnode(&self, mac: Mac, hard: bool) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = || anyhow!("the node is being removed");
        self.supervisors().orders_to(mac)?.send(Order::Restart { hard, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Starts the tasks of all virtual nodes, at the start of the server.
pub fn start_all(nodes: &Arc<Nodes>) -> Result<()> {
    for node in nodes.db().with(NodeRow::all)? {
        if node.facts.is_virtual {
            nodes.start_supervisor(node.mac);
        }
    }
    Ok(())
}

/// Stops all qemu processes, for `walt-server down`; their number.
///
/// # Errors
/// One cannot be stopped.
pub fn stop_all(nodes: &Nodes) -> Result<usize> {
    let mut stopped = 0;
    for node in nodes.db().with(NodeRow::all)?.into_iter().filter(|n| n.facts.is_virtual) {
        if let Some(vm) = adopt(nodes, node.mac)? {
            vm.stop()?;
            stopped += 1;
        }
        links::remove(nodes, node.mac)?;
        // An empty cgroup may be left from a qemu that ended while no server was running.
        cgroup(nodes, node.mac).remove()?;
        update_life(nodes, node.mac, |life| {
            life.stop();
            true
        })?;
    }
    cgroup(nodes, Mac([0; 6])).remove_empty_parents()?;
    Ok(stopped)
}

/// Checks that the program and the account for virtual nodes exist.
///
/// # Errors
/// The program or the account is missing.
pub fn check_programs() -> error::Result<()> {
    if crate::base::programs::find_program(walt_vnode::PROGRAM).is_none() {
        return Err(Error::NoQemu);
    }
    account().map(drop)
}

/// Why the last start of a node failed, or else the last line on its console.
pub fn last_console_line(nodes: &Nodes, node: &NodeRow) -> Option<String> {
    let failure = nodes.supervisors().failures().get(&node.mac).cloned();
    failure.or_else(|| log_of(nodes, node.mac).last_line().ok().flatten())
}

/// The console log of a node.
pub fn log_of(nodes: &Nodes, mac: Mac) -> console::Log {
    console::Log::new(nodes.node_dir(mac).join("console.log"))
}

/// Checks that the programs exist which these disks need when they are made.
///
/// # Errors
/// One is missing.
pub fn check_disk_programs(disks: &Disks) -> error::Result<()> {
    let needed = disks.iter().filter_map(|(_, disk)| walt_vnode::disks::program(disk.template()));
    match needed.into_iter().find(|p| crate::base::programs::find_program(p.name).is_none()) {
        Some(program) => Err(Error::NoMkfs(program)),
        None => Ok(()),
    }
}

fn account() -> error::Result<Account> {
    let user = nix::unistd::User::from_name(ACCOUNT).context("cannot read the accounts of the server")?;
    let user = user.ok_or(Error::NoAccount { account: ACCOUNT })?;
    Ok(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

fn cgroup(nodes: &Nodes, mac: Mac) -> Cgroup {
    Cgroup::new(format!("{}/vm-{}", nodes.base().cgroup_root().trim_start_matches('/'), mac.dashed()))
}

fn adopt(nodes: &Nodes, mac: Mac) -> Result<Option<Vm>> {
    let dir = nodes.node_dir(mac);
    Ok(blocking(|| walt_vnode::adopt(&dir, Some(cgroup(nodes, mac))))?)
}

struct Backoff(Duration);

impl Backoff {
    fn reset(&mut self) {
        self.0 = BACKOFF.0;
    }
    /// The pause before the next start, given how long the machine lived.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= EARLY {
            self.reset();
            return Duration::ZERO;
        }
        let pause = self.0;
        self.0 = (self.0 * 2).min(BACKOFF.1);
        pause
    }
}

async fn supervise(nodes: &Arc<Nodes>, mac: Mac, mut orders: mpsc::Receiver<Order>) -> Result<()> {
    let mut adopted = adopt(nodes, mac)?;
    if adopted.is_some()
        && let Err(e) = blocking(|| links::apply(nodes, mac))
    {
        tracing::warn!(%mac, "a link of the node is not as it should be: {e:#}");
    }
    let mut backoff = Backoff(BACKOFF.0);
    // The restarts that wait for the next start: a node can be given away while it restarts for its owner.
    let mut waiting: Vec<oneshot::Sender<Result<()>>> = Vec::new();
    loop {
        let Some(node) = nodes.db().with(|c| NodeRow::by_mac(c, mac))? else { return Ok(()) };
        let begun = Instant::now();
        let running = match adopted.take() {
            Some(vm) => Ok(vm),
            None => start(nodes, &node).await,
        };
        let pause = match running {
            Ok(vm) => {
                nodes.supervisors().failures().remove(&mac);
                for done in waiting.drain(..) {
                    let _ = done.send(Ok(()));
                }
                match watch(nodes, mac, &vm, &mut orders).await? {
                    Ended::ByItself => backoff.after(begun.elapsed()),
                    Ended::Restart(done) => {
                        waiting.push(done);
                        backoff.reset();
                        Duration::ZERO
                    }
                    Ended::Stopped => return Ok(()),
                }
            }
            Err(e) => {
                tracing::warn!(node = %node.facts.name, "cannot start the virtual node: {e:#}");
                nodes.supervisors().failures().insert(mac, format!("{e:#}"));
                update_life(nodes, mac, |life| {
                    life.stop();
                    true
                })?;
                for done in waiting.drain(..) {
                    let _ = done.send(Err(anyhow!("{e:#}")));
                }
                backoff.after(Duration::ZERO)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Restart { done, .. }) => {
                    waiting.push(done);
                    backoff.reset();
                }
                Some(Order::Stop { done }) => {
                    let _ = done.send(Ok(()));
                    return Ok(());
                }
            },
        }
    }
}

enum Ended {
    ByItself,
    Restart(oneshot::Sender<Result<()>>),
    Stopped,
}

/// Waits until qemu has ended, by itself or by an order.
async fn watch(nodes: &Arc<Nodes>, mac: Mac, vm: &Vm, orders: &mut mpsc::Receiver<Order>) -> Result<Ended> {
    let pidfd = walt_sys::async_fd(vm.pidfd().try_clone()?)?;
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    loop {
        tokio::select! {
            _ = pidfd.readable() => {
                // It has ended already; this removes its files.
                blocking(|| vm.stop())?;
                return Ok(Ended::ByItself);
            }
            _ = trim.tick() => {
                if let Err(e) = blocking(|| vm.console().trim(console::LOG_CAP, console::LOG_KEEP)) {
                    tracing::warn!(%mac, "cannot trim the console log: {e}");
                }
            }
            order = orders.recv() => match order {
                // The server ends; qemu stays.
                None => return Ok(Ended::Stopped),
                Some(Order::Restart { hard, done }) => {
                    if !hard {
                        ask_to_reboot(nodes, mac, vm, &pidfd).await;
                    }
                    blocking(|| vm.stop())?;
                    return Ok(Ended::Restart(done));
                }
                Some(Order::Stop { done }) => {
                    let _ = done.send(blocking(|| vm.stop()).map_err(Into::into));
                    return Ok(Ended::Stopped);
                }
            },
        }
    }
}

/// Reboots the running system, so that it can write its data. A system that does not answer is stopped anyway.
async fn ask_to_reboot(nodes: &Nodes, mac: Mac, vm: &Vm, pidfd: &AsyncFd<impl AsFd + std::os::fd::AsRawFd>) {
    // A guest that boots by PXE would reboot in the same qemu, with the old settings.
    if let Err(e) = blocking(|| vm.qmp()?.end_at_reboot()) {
        tracing::debug!(%mac, "no soft reboot: {e}");
        return;
    }
    let life = nodes.db().with(|c| NodeRow::by_mac(c, mac)).ok().flatten().map(|node| node.life);
    let is_hybrid = life.and_then(|life| life.mode).is_some_and(BootMode::is_hybrid);
    let timeout = if is_hybrid { REBOOT_TIMEOUT_HYBRID } else { REBOOT_TIMEOUT };
    match nodes.hub().command(mac, None, "REBOOT").await {
        Ok(()) => {
            let ended = tokio::time::timeout(timeout, pidfd.readable()).await;
            if ended.is_err() {
                tracing::warn!(%mac, "the node acknowledged a reboot, but did not reboot: stopping it");
            }
        }
        Err(reason) => tracing::debug!(%mac, "no soft reboot: {reason}"),
    }
}

async fn start(nodes: &Arc<Nodes>, node: &NodeRow) -> Result<Vm> {
    check_programs()?;
    let account = account()?;
    let stored = nodes.db().with(|c| NodeRow::settings(c, node.mac))?;
    let effective = settings::effective(&stored, true);
    let value = |key: &str| effective.get(key).map(String::as_str).unwrap_or_default();
    let memory = settings::ram_mib(value("ram")).context("the setting 'ram' is damaged")?;
    let wanted: u32 = value("cpu.cores").parse().context("the setting 'cpu.cores' is damaged")?;
    let host = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let wanted_disks: Disks = value(settings::DISKS).parse().context("the setting 'disks' is damaged")?;
    let dir = nodes.node_dir(node.mac);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let plan = boot::plan(nodes, node).await;
    let is_pxe = value("boot.road") == "pxe";
    let (acceleration, boot, files) = match plan {
        Ok(mut plan) => {
            let acceleration = blocking(|| acceleration(nodes, &mut plan.kernel, &dir, account))?;
            if is_pxe {
                (acceleration, BootMethod::Pxe, None)
            } else {
                let files = BootFiles { kernel: plan.kernel, initrds: plan.initrds };
                (acceleration, BootMethod::Direct { command_line: plan.command_line }, Some(files))
            }
        }
        // iPXE in the guest may support more than our interpreter. Only the choice of the acceleration needs the
        // kernel, and emulation always works.
        Err(e) if is_pxe => {
            tracing::debug!(node = %node.facts.name, "cannot find out what the node will boot: {e:#}");
            (acceleration_without_kernel(nodes), BootMethod::Pxe, None)
        }
        Err(e) => return Err(e),
    };
    // No machine of this node runs: nobody else uses its disks.
    let disks = blocking(|| walt_vnode::disks::provide(&nodes.disks_dir(node.mac), &wanted_disks, account))?;
    let spec = VmSpec {
        name: node.facts.name.to_string(),
        uuid: node.uuid.clone(),
        memory_mib: u32::try_from(memory).context("the setting 'ram' is damaged")?,
        // More threads than the host has cores make an emulated guest slower.
        cores: wanted.min(host),
        manufacturer: boot::MANUFACTURER.into(),
        product: boot::PRODUCT.into(),
        boot,
        acceleration,
    };
    let cards = blocking(|| links::cards(nodes, node))?;
    update_life(nodes, node.mac, |life| {
        life.start(time::now());
        true
    })?;
    let launch = Launch {
        spec: &spec,
        directory: &dir,
        files,
        cards,
        disks,
        account,
        cgroup: Some(cgroup(nodes, node.mac)),
        program: walt_vnode::PROGRAM,
    };
    let vm = blocking(|| walt_vnode::launch(launch))?;
    tracing::info!(node = %node.facts.name, pid = vm.identity().pid, "started");
    Ok(vm)
}

/// The acceleration for this kernel: as configured, or probed once per kernel and qemu.
fn acceleration(
    nodes: &Nodes,
    kernel: &mut File,
    dir: &std::path::Path,
    account: Account,
) -> Result<walt_vnode::Acceleration> {
    match nodes.config().virtual_nodes.acceleration {
        Acceleration::Kvm => return Ok(walt_vnode::Acceleration::Kvm),
        Acceleration::Tcg => return Ok(walt_vnode::Acceleration::Tcg),
        Acceleration::Auto => {}
    }
    let key = walt_vnode::probe::key(kernel, &walt_vnode::version(walt_vnode::PROGRAM)?)?;
    let name = format!("acceleration {key}");
    let verdict = nodes.db().with(|c| crate::base::db::get_meta(c, &name))?;
    let word = match verdict {
        Some(word) => word,
        None => {
            let found = walt_vnode::probe::run(kernel, &dir.join("probe"), account, walt_vnode::PROGRAM)?;
            tracing::info!(acceleration = ?found.acceleration, reason = %found.reason, "probed the acceleration of this kernel");
            let word = if found.acceleration == walt_vnode::Acceleration::Kvm { "kvm" } else { "tcg" };
            nodes.db().meta(&name, || word.as_bytes().to_vec())?
        }
    };
    Ok(if word == b"kvm" { walt_vnode::Acceleration::Kvm } else { walt_vnode::Acceleration::Tcg })
}

/// The acceleration for an unknown kernel: as configured, else emulation.
fn acceleration_without_kernel(nodes: &Nodes) -> walt_vnode::Acceleration {
    match nodes.config().virtual_nodes.acceleration {
        Acceleration::Kvm => walt_vnode::Acceleration::Kvm,
        Acceleration::Tcg | Acceleration::Auto => walt_vnode::Acceleration::Tcg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_forgotten() {
        let mut backoff = Backoff(BACKOFF.0);
        let early = Duration::from_secs(2);
        let pauses: Vec<u64> = (0..7).map(|_| backoff.after(early).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.after(EARLY), Duration::ZERO);
        assert_eq!(backoff.after(early), BACKOFF.0);
    }
}
