//! Finds out what a virtual node boots, by running the iPXE scripts of its image.

use crate::{
    base::db::{NodeRow, blocking},
    services::nodes::{Nodes, boot_tree::BootTree},
};
use anyhow::{Context, Result, bail};
use std::{fs::File, sync::Arc};
use walt_core::settings;
use walt_netboot::ipxe::{self, Machine, Outcome};
use walt_types::NetSetup;

pub use walt_vnode::{MANUFACTURER, PRODUCT};
/// First script of every image.
const START: &str = "start.ipxe";

/// What to boot.
pub struct Boot {
    /// The kernel, open for reading.
    pub kernel: File,
    /// The initrds in order, open for reading.
    pub initrds: Vec<File>,
    /// Command line of the kernel.
    pub command_line: String,
}

/// Finds out what a node boots now: kernel, initrds, command line.
///
/// # Errors
/// The node cannot boot; the message is for the console and for `walt node show`.
pub async fn plan(nodes: &Arc<Nodes>, node: &NodeRow) -> Result<Boot> {
    let view = {
        let writing = nodes.images().writing_now().await;
        blocking(|| nodes.images().view_for(node, &writing))?
    };
    let files = BootTree::new(view, &node.facts.model);
    let boot = scripts(node, &files, &machine(nodes, node, MANUFACTURER, PRODUCT)?)?;
    let open = |path: &String| {
        files.open(path.as_bytes()).with_context(|| format!("cannot read the boot file {path}"))
    };
    Ok(Boot {
        kernel: open(&boot.kernel)?,
        initrds: boot.initrds.iter().map(open).collect::<Result<_>>()?,
        command_line: boot.command_line,
    })
}

/// What iPXE would know of a node, on a machine of this make.
///
/// # Errors
/// The database failed.
pub fn machine(nodes: &Nodes, node: &NodeRow, manufacturer: &str, product: &str) -> Result<Machine> {
    let net = nodes.config().network.walt_net.ip;
    let stored = nodes.db().with(|c| NodeRow::settings(c, node.mac))?;
    Ok(Machine {
        mac: node.mac,
        ip: node.ip,
        netmask: net.mask(),
        gateway: (settings::net_setup(&stored) == NetSetup::Nat).then_some(net.addr),
        hostname: node.facts.name.to_string(),
        next_server: net.addr,
        manufacturer: manufacturer.into(),
        product: product.into(),
        model: node.facts.model.to_string(),
    })
}

/// Runs the boot scripts of a node's image.
///
/// # Errors
/// They boot nothing; the error says why.
pub fn scripts(node: &NodeRow, files: &BootTree, machine: &Machine) -> Result<ipxe::Boot> {
    let report = ipxe::run(machine, START, files);
    match report.outcome {
        Ok(Outcome::Boot(boot)) => Ok(boot),
        Ok(Outcome::Reboot) => {
            bail!("the boot scripts of {} end in a reboot: {}", node.facts.image, report.console.trim())
        }
        Ok(Outcome::Shell) => {
            bail!("the boot scripts of {} end in a shell: {}", node.facts.image, report.console.trim())
        }
        Err(e) => bail!("the boot scripts of {} fail: {e}", node.facts.image),
    }
}
