//! The start of a virtual node's qemu: its settings, what it boots, its disks and cards, and how its CPU is run.

use super::{account, cgroup, check_programs};
use crate::{
    base::{
        config::Acceleration,
        db::{self, NodeRow, blocking},
        time,
    },
    services::nodes::{Nodes, boot, boots, hub::update_life_for, links, ssh},
};
use anyhow::{Context, Result};
use std::{collections::BTreeMap, fs::File, sync::Arc};
use walt_core::{
    boots::{Cause, Stage},
    settings,
};
use walt_types::{Disks, Mac};
use walt_vnode::{Account, BootFiles, BootMethod, Launch, Vm, VmSpec};

/// Starts the qemu of a node, whose boot begins at `begun`.
pub(super) async fn start(nodes: &Arc<Nodes>, node: &NodeRow, begun: f64, cause: &Cause) -> Result<Vm> {
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
    let mut planned = boot::Planned::default();
    let (acceleration, boot, files) = match plan {
        Ok(mut plan) => {
            let acceleration = blocking(|| acceleration(nodes, &mut plan.kernel, &dir, account))?;
            planned = plan.planned;
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
    nodes.supervisors().slots.set_emulated(node.mac, acceleration == walt_vnode::Acceleration::Tcg);
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
    let cards = blocking(|| links::cards(nodes.links(), node))?;
    ssh::end_others(nodes.base(), node.mac, None);
    update_life_for(nodes, node.mac, cause, |life| {
        life.start(begun);
        true
    })?;
    record_start(nodes, node.mac, &effective)?;
    boots::planned(nodes, node.mac, &planned, begun, !is_pxe);
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
    boots::note(nodes, node.mac, |record| record.reach_once(Stage::Start, time::now()));
    tracing::info!(node = %node.facts.name, pid = vm.identity().pid, "started");
    Ok(vm)
}

/// Records with which settings a virtual machine starts. They may have been changed since they were read.
fn record_start(nodes: &Nodes, mac: Mac, used: &BTreeMap<&'static str, String>) -> Result<()> {
    nodes.db().transaction(|tx| {
        db::booted(tx, mac, used.keys().copied())?;
        let now = settings::effective(&NodeRow::settings(tx, mac)?, true);
        let changed = used.iter().filter(|(key, value)| now.get(*key) != Some(value));
        changed.into_iter().try_for_each(|(key, value)| db::keep_booted_with(tx, mac, key, value))
    })
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
