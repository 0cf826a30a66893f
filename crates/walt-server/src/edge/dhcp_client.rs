//! Addresses of further networks by DHCP (`ip: dhcp`): busybox' `udhcpc` asks for each of them.
//!
//! ```text
//!   udhcpc ──runs──▶ the script ──a line──▶ read here ──▶ Wire ──▶ cable::follow gives the interface its address
//! ```
//! The server takes the address and nothing else: no default route, no DNS server. `udhcpc` ends with the server, and the
//! address stays until the next server has asked.

use crate::{
    actions::app::App,
    base::{config::OtherAddress, state::Base},
};
use anyhow::{Context, Result};
use std::{
    net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, process::Stdio, sync::Arc, time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    task::JoinHandle,
};
use walt_sys::net::member;

/// Name of the script in the state directory: `/run` may be mounted so that nothing in it can be executed.
const SCRIPT: &str = "dhcp-client";
/// Says what has happened, in one line: `udhcpc` sets these variables, and the prefix length is its `mask`.
const SCRIPT_TEXT: &str = "#!/bin/sh\n# Written by walt-server, run by udhcpc.\necho \"$1 $ip $mask\"\n";
/// Pause before `udhcpc` is started again after it ended: its interface may have vanished.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest line that is read from the script, in bytes.
const LINE_MAX: usize = 256;

/// What has happened, as `udhcpc` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    /// A lease began, or goes on.
    Leased(Ipv4Addr, u8),
    /// The lease is over; `udhcpc` also says so when it starts.
    Over,
}

/// Reads a line of the script.
fn parse(line: &str) -> Option<Happened> {
    let mut words = line.split_whitespace();
    match words.next()? {
        "bound" | "renew" => {
            let ip = words.next()?.parse().ok()?;
            let prefix = words.next()?.parse().ok().filter(|bits| *bits <= 32)?;
            Some(Happened::Leased(ip, prefix))
        }
        "deconfig" => Some(Happened::Over),
        _ => None,
    }
}

/// Starts a task for each network that gets its address by DHCP.
pub fn start(app: &Arc<App>) -> Vec<JoinHandle<()>> {
    let others = app.config().network.others.iter();
    others
        .filter(|(_, net)| net.ip == OtherAddress::Dhcp)
        .map(|(name, net)| {
            let device =
                net.vlan.map_or_else(|| net.raw_device.clone(), |v| member::vlan_name(&net.raw_device, v));
            tokio::spawn(ask(app.clone(), name.clone(), device))
        })
        .collect()
}

/// Asks for ever.
async fn ask(app: Arc<App>, network: String, device: String) {
    let mut was_said = false;
    loop {
        let script = app.config().state_dir.join(SCRIPT);
        let outcome = match write_script(&script) {
            Ok(()) => run(app.base(), &network, &device, &script).await,
            Err(e) => Err(e),
        };
        // An absent interface is said by the module `cable`; the reason need not be said every few seconds.
        match outcome {
            Err(e) if !was_said => {
                tracing::warn!("network.{network}: no address by DHCP: {e:#}");
                was_said = true;
            }
            Err(e) => tracing::debug!("network.{network}: {e:#}"),
            Ok(()) => was_said = false,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn write_script(path: &Path) -> Result<()> {
    walt_sys::file::replace(path, SCRIPT_TEXT.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// Runs `udhcpc` until it ends: that is an error, but for the interface that vanishes.
async fn run(base: &Base, network: &str, device: &str, script: &Path) -> Result<()> {
    // The thread that starts it lives as long as the server (setpriv(1), PR_SET_PDEATHSIG).
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "busybox", "udhcpc", "-f", "-i", device, "-s"]).arg(script);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot run setpriv (Debian package util-linux)")?;
    let output = child.stdout.take().context("udhcpc has no output")?;
    let mut lines = BufReader::with_capacity(LINE_MAX, output).lines();
    let mut is_leased = false;
    while let Some(line) = lines.next_line().await.context("cannot read what udhcpc says")? {
        match parse(&line) {
            Some(Happened::Leased(ip, prefix)) => {
                is_leased = true;
                if base.wire().set_address(network, Some((ip, prefix))) {
                    tracing::info!(
                        "network.{network}: the interface '{device}' has the address {ip}/{prefix} by DHCP"
                    );
                }
            }
            // At the start it means nothing: an address from before stays until there is an answer.
            Some(Happened::Over) if is_leased => {
                is_leased = false;
                if base.wire().set_address(network, None) {
                    tracing::warn!("network.{network}: the address of '{device}' by DHCP has expired");
                }
            }
            _ => {}
        }
    }
    let status = child.wait().await.context("cannot wait for udhcpc")?;
    anyhow::ensure!(
        is_leased,
        "udhcpc of busybox ended on '{device}' ({status}): the interface must exist, and busybox must have the applet \
         (Debian package busybox-static)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_script() {
        let leased = Some(Happened::Leased(Ipv4Addr::new(10, 9, 0, 7), 24));
        assert_eq!(parse("bound 10.9.0.7 24"), leased);
        assert_eq!(parse("renew 10.9.0.7 24"), leased);
        assert_eq!(parse("deconfig  "), Some(Happened::Over));
        for other in
            ["", "leasefail", "nak", "bound", "bound 10.9.0 24", "bound 10.9.0.7 33", "udhcpc: sending"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
