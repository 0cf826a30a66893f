//! Virtual nodes: a task for each of them keeps its qemu running, as the database says.
//!
//! ```text
//!   adopt or start ──▶ running ──qemu ends (the guest rebooted, panicked)──▶ start again, with back-off
//!                         │ │                          └ no try is left ──▶ wait for an order
//!                         │ └ a panic while it boots  ──▶ kill ──▶ start again
//!                         │ order: restart ──▶ ask the system, or kill ──▶ start again
//!                         └ order: stop    ──▶ kill ──▶ the task ends
//! ```
//! Before a start, the task waits as long as `boot.delay` says, and while too many nodes boot ([`slots`]).
//! What the server itself cannot start is tried for ever: the node needs a look when its tries are used up, and starts
//! once the reason is gone.
//!
//! The tasks end with the server, qemu does not: the next server adopts it. With the setting `boot.road=pxe`, a
//! reboot or panic of the guest stays within its qemu, as on a physical machine; orders stop qemu all the same, since
//! settings and image are read when it starts.

mod slots;
mod start;

use crate::{
    base::{
        db::{NodeRow, blocking},
        time,
    },
    services::nodes::{
        Nodes, boots,
        error::{self, Error},
        hub::{failed, update_life},
        links,
    },
};
use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use std::{collections::HashMap, os::fd::AsFd, sync::Arc, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot},
    time::Instant,
};
use walt_core::{
    boots::{Cause, End, clean},
    life::{BootMode, Next},
    settings,
};
use walt_sys::process::Cgroup;
use walt_types::{Disks, Mac};
use walt_vnode::{Account, Vm, console};

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
/// How often the console is searched for a panic.
const PANIC_INTERVAL: Duration = Duration::from_secs(1);
/// How long a kernel that has panicked while it booted may write to the console before it is stopped.
const PANIC_GRACE: Duration = Duration::from_secs(2);
/// Cause of a boot at the start of the server.
const START_CAUSE: &str = "start of the server";

enum Order {
    Restart { hard: bool, cause: Cause, done: oneshot::Sender<Result<()>> },
    Stop { done: oneshot::Sender<Result<()>> },
}

/// The tasks by node, and why the last start of a node failed.
#[derive(Default)]
pub struct Supervisors {
    orders: Mutex<HashMap<Mac, mpsc::Sender<Order>>>,
    failures: Mutex<HashMap<Mac, String>>,
    slots: slots::Slots,
}

impl Supervisors {
    /// The boot of a node is over: another node may boot.
    pub fn boot_is_over(&self, mac: Mac) {
        self.slots.release(mac);
    }

    fn orders(&self) -> parking_lot::MutexGuard<'_, HashMap<Mac, mpsc::Sender<Order>>> {
        // A panic cannot leave the map inconsistent.
        self.orders.lock()
    }

    /// The virtual nodes that this server supervises.
    pub fn supervised(&self) -> Vec<Mac> {
        self.orders().keys().copied().collect()
    }

    fn failures(&self) -> parking_lot::MutexGuard<'_, HashMap<Mac, String>> {
        self.failures.lock()
    }

    fn orders_to(&self, mac: Mac) -> Result<mpsc::Sender<Order>> {
        self.orders().get(&mac).cloned().context("this server does not supervise the node")
    }
}

impl Nodes {
    /// Starts the task of a virtual node; it starts or adopts the node's qemu. `cause` is why it would be started.
    pub fn start_supervisor(self: &Arc<Self>, mac: Mac, cause: Cause) {
        let (tx, rx) = mpsc::channel(ORDERS);
        self.supervisors().orders().insert(mac, tx);
        let nodes = self.clone();
        tokio::spawn(async move {
            if let Err(e) = supervise(&nodes, mac, cause, rx).await {
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
    pub async fn restart_vnode(&self, mac: Mac, hard: bool, cause: Cause) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = || anyhow!("the node is being removed");
        self.supervisors()
            .orders_to(mac)?
            .send(Order::Restart { hard, cause, done })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Starts the tasks of all virtual nodes, at the start of the server.
pub fn start_all(nodes: &Arc<Nodes>) -> Result<()> {
    for node in nodes.db().with(NodeRow::all)? {
        if node.facts.is_virtual {
            nodes.start_supervisor(node.mac, Cause::server(START_CAUSE));
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
    boots::load(nodes)?;
    for node in nodes.db().with(NodeRow::all)?.into_iter().filter(|n| n.facts.is_virtual) {
        if let Some(vm) = adopt(nodes, node.mac)? {
            vm.stop()?;
            stopped += 1;
        }
        links::remove(nodes.links(), node.mac)?;
        // An empty cgroup may be left from a qemu that ended while no server was running.
        cgroup(nodes, node.mac).remove()?;
        update_life(nodes, node.mac, |life| {
            life.stop();
            true
        })?;
    }
    boots::flush(nodes)?;
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

async fn supervise(
    nodes: &Arc<Nodes>,
    mac: Mac,
    mut cause: Cause,
    mut orders: mpsc::Receiver<Order>,
) -> Result<()> {
    let mut adopted = adopt(nodes, mac)?;
    if adopted.is_some()
        && let Err(e) = blocking(|| links::apply(nodes.links(), mac))
    {
        tracing::warn!(%mac, "a link of the node is not as it should be: {e:#}");
    }
    let mut backoff = Backoff(BACKOFF.0);
    // The restarts that wait for the next start: a node can be given away while it restarts for its owner.
    let mut waiting: Vec<oneshot::Sender<Result<()>>> = Vec::new();
    let mut pause = Some(Duration::ZERO);
    if adopted.is_none() {
        // Whatever ran has ended together with the machine of the server, or while no server ran.
        boots::note(nodes, mac, |record| record.close(End::Stopped(String::new()), time::now()));
        let life = nodes.db().with(|c| NodeRow::by_mac(c, mac))?.map(|node| node.life);
        // A system that has failed does not boot better; the reason why none could be started may be gone.
        let is_hopeless = life.is_some_and(|life| life.needs_look.is_some() && life.started.is_some());
        pause = pause.filter(|_| !is_hopeless);
    }
    loop {
        // A machine that was adopted runs: an order is for it, and is read where it is watched.
        let waited = match adopted {
            Some(_) => Waited::Long,
            None => next_order(&mut orders, pause).await,
        };
        match waited {
            Waited::Long => {}
            Waited::Restart(wanted, done) => {
                cause = wanted;
                waiting.push(done);
                backoff.reset();
            }
            Waited::Stopped => return Ok(()),
        }
        let Some(node) = nodes.db().with(|c| NodeRow::by_mac(c, mac))? else { return Ok(()) };
        let running = match adopted.take() {
            Some(vm) => Some(vm),
            None => match wait_to_start(nodes, mac, &mut orders, &mut waiting, &mut cause).await? {
                Delayed::Over => None,
                Delayed::Stopped => return Ok(()),
            },
        };
        let begun = (Instant::now(), time::now());
        let running = match running {
            Some(vm) => Ok(vm),
            None => start::start(nodes, &node, begun.1, &cause).await,
        };
        match running {
            Ok(vm) => {
                nodes.supervisors().failures().remove(&mac);
                for done in waiting.drain(..) {
                    let _ = done.send(Ok(()));
                }
                let ended = watch(nodes, mac, &vm, &mut orders).await;
                nodes.supervisors().boot_is_over(mac);
                match ended? {
                    Ended::ByItself(end) => {
                        let again;
                        (cause, again) = after_end(nodes, mac, end)?;
                        pause = Some(backoff.after(begun.0.elapsed())).filter(|_| again);
                    }
                    Ended::Restart(wanted, done) => {
                        (cause, pause) = (wanted, Some(Duration::ZERO));
                        waiting.push(done);
                        backoff.reset();
                    }
                    Ended::Stopped => return Ok(()),
                }
            }
            Err(e) => {
                nodes.supervisors().boot_is_over(mac);
                tracing::warn!(node = %node.facts.name, "cannot start the virtual node: {e:#}");
                nodes.supervisors().failures().insert(mac, format!("{e:#}"));
                not_started(nodes, &node, begun.1, &cause, &format!("{e:#}"))?;
                cause = Cause::server("another try");
                for done in waiting.drain(..) {
                    let _ = done.send(Err(anyhow!("{e:#}")));
                }
                pause = Some(backoff.after(Duration::ZERO));
            }
        }
    }
}

/// How the pause before a start ended.
enum Delayed {
    Over,
    Stopped,
}

/// Waits before a start, as long as the setting `boot.delay` says, and for a slot. Nothing of the node runs meanwhile,
/// and it shows as off. A restart that is ordered meanwhile waits for the same start.
async fn wait_to_start(
    nodes: &Nodes,
    mac: Mac,
    orders: &mut mpsc::Receiver<Order>,
    waiting: &mut Vec<oneshot::Sender<Result<()>>>,
    cause: &mut Cause,
) -> Result<Delayed> {
    let stored = nodes.db().with(|c| NodeRow::settings(c, mac))?;
    let value = stored.get(settings::BOOT_DELAY).map_or("0", String::as_str);
    let range = settings::boot_delay(value).context("the setting 'boot.delay' is damaged")?;
    let seconds = crate::base::random::among(range);
    let slots = &nodes.supervisors().slots;
    let is_full = slots.is_full();
    if seconds > 0 || is_full {
        update_life(nodes, mac, |life| {
            life.stop();
            true
        })?;
    }
    if is_full {
        tracing::info!(%mac, "the node starts when fewer nodes boot");
    }
    let turn = async {
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        slots.take(mac).await;
    };
    tokio::pin!(turn);
    loop {
        tokio::select! {
            () = &mut turn => return Ok(Delayed::Over),
            order = orders.recv() => match order {
                None => return Ok(Delayed::Stopped),
                Some(Order::Restart { cause: wanted, done, .. }) => {
                    *cause = wanted;
                    waiting.push(done);
                }
                Some(Order::Stop { done }) => {
                    let _ = done.send(Ok(()));
                    return Ok(Delayed::Stopped);
                }
            },
        }
    }
}

enum Waited {
    Long,
    Restart(Cause, oneshot::Sender<Result<()>>),
    Stopped,
}

/// Waits for an order while nothing runs, at most for this long.
async fn next_order(orders: &mut mpsc::Receiver<Order>, pause: Option<Duration>) -> Waited {
    let long = async {
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        order = orders.recv() => match order {
            // The server ends.
            None => Waited::Stopped,
            Some(Order::Restart { cause, done, .. }) => Waited::Restart(cause, done),
            Some(Order::Stop { done }) => {
                let _ = done.send(Ok(()));
                Waited::Stopped
            }
        },
        () = long => Waited::Long,
    }
}

/// What follows when qemu has ended without an order: the cause of the next boot, and whether there is one.
fn after_end(nodes: &Nodes, mac: Mac, end: End) -> Result<(Cause, bool)> {
    boots::note(nodes, mac, |record| record.close(end.clone(), time::now()));
    let Some(node) = nodes.db().with(|c| NodeRow::by_mac(c, mac))? else { return Ok((Cause::node(), true)) };
    if node.life.booted.is_some() {
        return Ok((Cause::node(), true));
    }
    let why = match end {
        End::Panic(_) => "kernel panic",
        _ => "it stopped by itself",
    };
    // A boot that was overdue at last needs a look already.
    let again = node.life.needs_look.is_none() && failed(nodes, &node, &end)? != Some(Next::Look);
    Ok((Cause::server(why), again))
}

fn not_started(nodes: &Nodes, node: &NodeRow, started: f64, cause: &Cause, reason: &str) -> Result<()> {
    boots::not_started(nodes, node, started, cause, reason);
    let mut is_known = false;
    update_life(nodes, node.mac, |life| {
        life.not_started();
        is_known = life.needs_look.is_some();
        true
    })?;
    if !is_known && let Some(node) = nodes.db().with(|c| NodeRow::by_mac(c, node.mac))? {
        failed(nodes, &node, &End::NotStarted(clean(reason)))?;
    }
    Ok(())
}

enum Ended {
    ByItself(End),
    Restart(Cause, oneshot::Sender<Result<()>>),
    Stopped,
}

/// Waits until qemu has ended, by itself or by an order.
async fn watch(nodes: &Arc<Nodes>, mac: Mac, vm: &Vm, orders: &mut mpsc::Receiver<Order>) -> Result<Ended> {
    let pidfd = walt_sys::async_fd(vm.pidfd().try_clone()?)?;
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    let mut search = tokio::time::interval(PANIC_INTERVAL);
    let mut panics = vm.console().panics_from(boots::console_from(nodes, mac));
    loop {
        tokio::select! {
            _ = pidfd.readable() => {
                let panic = blocking(|| panics.look()).ok().flatten();
                // It has ended already; this removes its files.
                blocking(|| vm.stop())?;
                let line = blocking(|| vm.console().last_line()).ok().flatten().unwrap_or_default();
                return Ok(Ended::ByItself(panic.map_or_else(|| End::Stopped(clean(&line)), End::Panic)));
            }
            _ = search.tick() => {
                nodes.supervisors().slots.release_late(mac);
                if let Ok(Some(line)) = blocking(|| panics.look()) {
                    boots::note(nodes, mac, |record| {
                        record.panic.get_or_insert_with(|| line.clone());
                        true
                    });
                    // A system that had booted does what its command line says (panic=).
                    if !is_booted(nodes, mac)? {
                        tokio::time::sleep(PANIC_GRACE).await;
                        blocking(|| vm.stop())?;
                        return Ok(Ended::ByItself(End::Panic(line)));
                    }
                }
            }
            _ = trim.tick() => {
                if let Err(e) = blocking(|| vm.console().trim(console::LOG_CAP, console::LOG_KEEP)) {
                    tracing::warn!(%mac, "cannot trim the console log: {e}");
                }
            }
            order = orders.recv() => match order {
                // The server ends; qemu stays.
                None => return Ok(Ended::Stopped),
                Some(Order::Restart { hard, cause, done }) => {
                    if !hard {
                        ask_to_reboot(nodes, mac, vm, &pidfd).await;
                    }
                    blocking(|| vm.stop())?;
                    return Ok(Ended::Restart(cause, done));
                }
                Some(Order::Stop { done }) => {
                    let _ = done.send(blocking(|| vm.stop()).map_err(Into::into));
                    return Ok(Ended::Stopped);
                }
            },
        }
    }
}

fn is_booted(nodes: &Nodes, mac: Mac) -> Result<bool> {
    Ok(nodes.db().with(|c| NodeRow::by_mac(c, mac))?.is_some_and(|node| node.life.booted.is_some()))
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
