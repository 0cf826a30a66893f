//! Finds out what a virtual node boots, by running the iPXE scripts of its image.

use crate::{
    base::db::{NodeRow, blocking},
    services::nodes::{Nodes, boot_tree::BootTree},
};
use anyhow::{Context, Result, bail};
use std::{fs::File, sync::Arc, time::Instant};
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
    /// The same for the record of the boot.
    pub planned: Planned,
}

/// What is known of a boot before the machine runs.
#[derive(Debug, Default)]
pub struct Planned {
    /// Digest of the image.
    pub image_id: Option<String>,
    /// View of the image.
    pub view: Option<String>,
    /// Command line of the kernel.
    pub command_line: Option<String>,
    /// Size of the kernel.
    pub kernel_bytes: u64,
    /// Size of the initial RAM disks.
    pub initrd_bytes: u64,
    /// Seconds until the scripts had run.
    pub scripts: f64,
    /// Seconds until the kernel and the initial RAM disks were there.
    pub files: f64,
}

/// Finds out what a node boots now: kernel, initrds, command line.
///
/// # Errors
/// The node cannot boot; the message is for the console and for `walt node show`.
pub async fn plan(nodes: &Arc<Nodes>, node: &NodeRow) -> Result<Boot> {
    let begun = Instant::now();
    let (image, view) = {
        let writing = nodes.images().writing_now().await;
        let image = nodes.images().find(&node.facts.image)?;
        (image.image_id, blocking(|| nodes.images().view_for(node, &writing))?)
    };
    let id = *view.id();
    let files = BootTree::new(view, &node.facts.model);
    let boot = scripts(node, &files, &machine(nodes, node, MANUFACTURER, PRODUCT)?)?;
    let scripts = begun.elapsed().as_secs_f64();
    let open = |path: &String| {
        files.open(path.as_bytes()).with_context(|| format!("cannot read the boot file {path}"))
    };
    let kernel = open(&boot.kernel)?;
    let initrds: Vec<File> = boot.initrds.iter().map(open).collect::<Result<_>>()?;
    let size = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
    let planned = Planned {
        image_id: Some(image.oci()),
        view: Some(id.to_string()),
        command_line: Some(boot.command_line.clone()),
        kernel_bytes: size(&kernel),
        initrd_bytes: initrds.iter().map(size).sum(),
        scripts,
        files: begun.elapsed().as_secs_f64(),
    };
    Ok(Boot { kernel, initrds, command_line: boot.command_line, planned })
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
