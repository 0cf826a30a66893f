//! Permanent neighbours: the kernel never asks who has the address of a registered node, so nobody else can answer.

use super::link;
use super::{Result, except, netlink, refused};
use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Ethernet addresses by IP address.
pub type Neighbours = BTreeMap<Ipv4Addr, [u8; 6]>;

/// Makes the permanent IPv4 neighbours of an interface exactly these; what the kernel learnt elsewhere stays.
///
/// # Errors
/// When the interface is missing or the kernel refuses.
pub fn sync(ifname: &str, wanted: &Neighbours) -> Result<()> {
    netlink(&format!("set the neighbours of '{ifname}'"), |handle| async move {
        let index = link::need(&handle, ifname).await?.index;
        let present = permanent(&handle, index).await?;
        for (ip, message) in &present {
            if !wanted.contains_key(ip) {
                let what = format!("remove the neighbour {ip} of '{ifname}'");
                except(libc::ENOENT, handle.neighbours().del(message.clone()).execute().await, what)?;
            }
        }
        for (ip, mac) in wanted {
            if present.get(ip).and_then(lladdr) != Some(*mac) {
                add(&handle, index, ifname, *ip, *mac).await?;
            }
        }
        Ok(())
    })
}

/// Adds or replaces one permanent neighbour.
///
/// # Errors
/// When the interface is missing or the kernel refuses.
pub fn set(ifname: &str, ip: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    netlink(&format!("set the neighbour {ip} of '{ifname}'"), |handle| async move {
        let index = link::need(&handle, ifname).await?.index;
        add(&handle, index, ifname, ip, mac).await
    })
}

/// Removes one permanent neighbour; its absence is success.
///
/// # Errors
/// When the interface is missing or the kernel refuses.
pub fn remove(ifname: &str, ip: Ipv4Addr) -> Result<()> {
    let what = format!("remove the neighbour {ip} of '{ifname}'");
    netlink(&what.clone(), |handle| async move {
        let index = link::need(&handle, ifname).await?.index;
        match permanent(&handle, index).await?.remove(&ip) {
            None => Ok(()),
            Some(message) => except(libc::ENOENT, handle.neighbours().del(message).execute().await, what),
        }
    })
}

/// The permanent IPv4 neighbours of an interface.
///
/// # Errors
/// When the interface is missing or the kernel refuses.
pub fn list(ifname: &str) -> Result<Neighbours> {
    netlink(&format!("list the neighbours of '{ifname}'"), |handle| async move {
        let index = link::need(&handle, ifname).await?.index;
        let present = permanent(&handle, index).await?;
        Ok(present.iter().filter_map(|(ip, message)| Some((*ip, lladdr(message)?))).collect())
    })
}

async fn add(handle: &Handle, index: u32, ifname: &str, ip: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    let request = handle.neighbours().add(index, IpAddr::V4(ip)).link_layer_address(&mac).replace();
    request.execute().await.map_err(refused(format!("set the neighbour {ip} of '{ifname}'")))
}

async fn permanent(handle: &Handle, index: u32) -> Result<BTreeMap<Ipv4Addr, NeighbourMessage>> {
    let answers = handle.neighbours().get().set_address_family(AddressFamily::Inet).execute();
    let found: Vec<NeighbourMessage> = answers.try_collect().await.map_err(refused("list the neighbours"))?;
    let ours = found.into_iter().filter(|m| {
        m.header.ifindex == index
            && m.header.state == NeighbourState::Permanent
            && m.header.family == AddressFamily::Inet
    });
    Ok(ours
        .filter_map(|message| {
            let ip = message.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
                _ => None,
            })?;
            Some((ip, message))
        })
        .collect())
}

fn lladdr(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}
