//! The bridges that are walt-net and the networks of virtual nodes: made if absent, adopted if they carry our alias,
//! refused otherwise.
//!
//! A bridge outlives the server that made it, because virtual nodes stay attached while the server is replaced. The
//! alias says whose it is; the address comes from a seed, so that nodes' ARP caches stay valid if the bridge is made
//! again.

use super::link::{self, Link};
use super::{NetError, Result, check_ifname, except, netlink, refused, sysctl};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoBridge, InfoData};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

/// What the bridge shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Name of the interface, such as `walt-net`.
    pub name: String,
    /// Text that marks the bridge as belonging to this server: state directory and name.
    pub alias: String,
    /// The server's address on it, and the length of the network's prefix in bits. Without one, the bridge is for its
    /// ports only: this machine has no part in it.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Ethernet address, see [`super::mac_from_seed`].
    pub mac: [u8; 6],
}

/// How the bridge came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was made now.
    Made,
    /// It was there, from an earlier run of this server.
    Adopted,
}

/// Makes the bridge or adopts it, and gives it the settings and the address it must have.
///
/// Apply the nft table first: its rules go by the name of the interface, so the bridge is never up without them.
///
/// # Errors
/// [`NetError::NotOurs`] if an interface of this name is not a bridge or has another alias; else what the kernel
/// refused.
pub fn ensure(spec: &BridgeSpec) -> Result<Origin> {
    check_ifname(&spec.name)?;
    let origin = netlink(&format!("make the bridge '{}'", spec.name), |handle| async move {
        let origin = match link::find(&handle, &spec.name).await? {
            Some(found) => check_ours(spec, &found).map(|()| Origin::Adopted)?,
            None => make(&handle, spec).await.map(|()| Origin::Made)?,
        };
        configure(&handle, spec).await?;
        Ok(origin)
    })?;
    // Before the bridge is up: no link-local address must ever be reachable by a node.
    sysctl::set_interface("ipv6", &spec.name, "disable_ipv6", "1")?;
    // A node may learn of the bridge's own address only, and only from it; of none if it has none (8).
    let ignore = if spec.address.is_some() { "1" } else { "8" };
    sysctl::set_interface("ipv4", &spec.name, "arp_ignore", ignore)?;
    sysctl::set_interface("ipv4", &spec.name, "arp_announce", "2")?;
    netlink(&format!("bring up the bridge '{}'", spec.name), |handle| async move {
        let index = link::need(&handle, &spec.name).await?.index;
        addresses(&handle, spec, index).await?;
        // Without an address of its own, it has nothing to say by ARP, and nothing to hear.
        let message = link::change(index).arp(spec.address.is_some()).up().build();
        link::set(&handle, message, format!("bring up the bridge '{}'", spec.name)).await
    })?;
    Ok(origin)
}

fn check_ours(spec: &BridgeSpec, found: &Link) -> Result<()> {
    // The name of a bridge without address is made of a hash, and nobody else's: this one was made a moment before its
    // server was killed.
    let is_unfinished = spec.address.is_none() && found.alias.is_empty();
    let other = if found.kind != "bridge" {
        let kind = if found.kind.is_empty() { "physical" } else { &found.kind };
        format!("it is a {kind} interface, not a bridge")
    } else if found.alias == spec.alias || is_unfinished {
        return Ok(());
    } else if found.alias.is_empty() {
        "a bridge without our alias".to_owned()
    } else {
        format!("its alias is '{}', ours would be '{}'", found.alias, spec.alias)
    };
    Err(NetError::NotOurs { name: spec.name.clone(), found: other })
}

async fn make(handle: &Handle, spec: &BridgeSpec) -> Result<()> {
    let what = format!("make the bridge '{}'", spec.name);
    let message = LinkBridge::new(&spec.name).address(spec.mac.to_vec()).build();
    handle.link().add(message).execute().await.map_err(refused(what))?;
    // The alias cannot be set at creation. A crash in between leaves a bridge without one, down and without address,
    // which the next start refuses by name.
    let made = link::need(handle, &spec.name).await?;
    let message = link::change(made.index).alias(spec.alias.clone()).build();
    link::set(handle, message, format!("set the alias of the bridge '{}'", spec.name)).await
}

/// No spanning tree delay (a node's DHCP must not wait 15 s), no snooping (RA and mDNS must reach everybody).
async fn configure(handle: &Handle, spec: &BridgeSpec) -> Result<()> {
    let index = link::need(handle, &spec.name).await?.index;
    let message =
        LinkMessageBuilder::<LinkBridge>::new_with_info_kind(rtnetlink::packet_route::link::InfoKind::Bridge)
            .index(index)
            .address(spec.mac.to_vec())
            .alias(spec.alias.clone())
            .set_info_data(InfoData::Bridge(vec![
                InfoBridge::ForwardDelay(0),
                InfoBridge::MulticastSnooping(false),
            ]))
            .build();
    handle
        .link()
        .change(message)
        .execute()
        .await
        .map_err(refused(format!("configure the bridge '{}'", spec.name)))
}

/// Gives the bridge its address, and takes away the ones of an earlier configuration.
async fn addresses(handle: &Handle, spec: &BridgeSpec, index: u32) -> Result<()> {
    let mut what = format!("list the addresses of '{}'", spec.name);
    if let Some((address, prefix)) = spec.address {
        what = format!("give the address {address}/{prefix} to '{}'", spec.name);
        let request = handle.address().add(index, IpAddr::V4(address), prefix);
        except(libc::EEXIST, request.execute().await, what.clone())?;
    }
    let answers = handle.address().get().set_link_index_filter(index).execute();
    let found: Vec<AddressMessage> = answers.try_collect().await.map_err(refused(what))?;
    for message in found {
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        });
        let stale = local.is_some_and(|ip| Some((ip, message.header.prefix_len)) != spec.address);
        if stale && message.header.index == index {
            let what = format!("remove an old address from '{}'", spec.name);
            except(libc::EADDRNOTAVAIL, handle.address().del(message).execute().await, what)?;
        }
    }
    Ok(())
}

/// Removes the bridge if it is ours; its absence is success.
///
/// # Errors
/// [`NetError::NotOurs`] if it is somebody else's; else what the kernel refused.
pub fn remove(spec: &BridgeSpec) -> Result<()> {
    match link::get(&spec.name)? {
        None => Ok(()),
        Some(found) => {
            check_ours(spec, &found)?;
            link::remove(&spec.name)
        }
    }
}
