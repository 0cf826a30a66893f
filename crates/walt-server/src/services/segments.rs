//! The bridges of networks between virtual nodes, and those of shaped links: made when a card needs one, removed when
//! nothing is on it. This machine has no part in them.

use crate::{base::config::Config, services::network};
use anyhow::{Context, Result};
use walt_core::segments;
use walt_sys::net::{bridge, link};
use walt_types::NetworkName;

fn spec(config: &Config, name: &str, what: &str) -> bridge::BridgeSpec {
    let alias = format!("{} {what}", network::alias(config));
    let mac = walt_sys::net::mac_from_seed(&alias);
    bridge::BridgeSpec { name: name.to_owned(), alias, address: None, mac }
}

/// Makes the bridge of a network, unless it is there; its name. That of walt-net is there as long as a server runs.
///
/// # Errors
/// The kernel refuses, or another interface has the name.
pub fn ensure(config: &Config, network: &NetworkName) -> Result<String> {
    let name = segments::segment_name(config.bridge(), network);
    if !network.is_walt_net() {
        bridge::ensure(&spec(config, &name, &format!("network {network}")))
            .with_context(|| format!("cannot set up the bridge of network {network}"))?;
    }
    Ok(name)
}

/// Makes the bridge of a shaped link, unless it is there.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_link(config: &Config, name: &str) -> Result<()> {
    bridge::ensure(&spec(config, name, "link")).context("cannot set up the bridge of a link")?;
    Ok(())
}

/// Removes the bridge of a shaped link; its absence is success.
///
/// # Errors
/// As [`ensure`].
pub fn remove_link(config: &Config, name: &str) -> Result<()> {
    bridge::remove(&spec(config, name, "link")).context("cannot remove the bridge of a link")
}

/// Our bridges among these interfaces.
fn ours<'a>(config: &Config, links: &'a [link::Link]) -> Vec<&'a link::Link> {
    let prefixes = [segments::segment_prefix(config.bridge()), segments::link_prefix(config.bridge())];
    let alias = network::alias(config);
    let is_ours = |found: &&link::Link| {
        found.kind == "bridge"
            && prefixes.iter().any(|prefix| found.name.starts_with(prefix))
            && (found.alias.is_empty() || found.alias.starts_with(&alias))
    };
    links.iter().filter(is_ours).collect()
}

/// Removes the bridges that have no ports.
///
/// # Errors
/// The kernel refuses.
pub fn sweep(config: &Config) -> Result<()> {
    let links = link::list().context("cannot list the interfaces")?;
    for found in ours(config, &links) {
        if !links.iter().any(|port| port.controller == Some(found.index)) {
            link::remove(&found.name).context("cannot remove the bridge of an unused network")?;
        }
    }
    Ok(())
}

/// Removes all of them.
///
/// # Errors
/// The kernel refuses.
pub fn down(config: &Config) -> Result<()> {
    let links = link::list().context("cannot list the interfaces")?;
    for found in ours(config, &links) {
        link::remove(&found.name).context("cannot remove the bridge of a network")?;
    }
    Ok(())
}
