//! A physical interface that becomes a port of the bridge, and what must be known about it before.
//!
//! ```text
//!   switch ── cable ── eth1 ─────────────── port of the bridge        without a VLAN
//!   switch ── cable ── eth1 ── eth1.12 ──── port of the bridge        VLAN 12 (IEEE 802.1Q)
//! ```
//! Nothing here decides: [`inspect`] reports, and the caller refuses what it must not take.

use super::link::{self, Link};
use super::{IFNAME_MAX, NetError, Result, check_ifname, except, io_error, netlink, refused};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVlan};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// Highest number of a VLAN (IEEE 802.1Q: 4095 is reserved).
pub const VLAN_MAX: u16 = 4094;

/// What is known about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The interface.
    pub link: Link,
    /// Name and kind of the bridge or bond that it belongs to.
    pub controller: Option<(String, String)>,
    /// Its addresses with the length of their prefix, without those that IPv6 makes by itself (`fe80::`).
    pub addresses: Vec<String>,
    /// Whether an IPv4 or IPv6 default route uses it.
    pub is_default: bool,
    /// Whether it is the loopback interface.
    pub is_loopback: bool,
}

/// Everything about an interface that matters before it becomes a port; `None` if it does not exist.
///
/// # Errors
/// The kernel does not answer.
pub fn inspect(name: &str) -> Result<Option<Member>> {
    let Some(link) = link::get(name)? else { return Ok(None) };
    let controller = match link.controller {
        Some(index) => link::list()?.into_iter().find(|l| l.index == index).map(|l| (l.name, l.kind)),
        None => None,
    };
    let addresses = addresses(&link)?;
    let is_default = default_routes()?.iter().any(|ifname| ifname == name);
    let is_loopback = link.is_loopback;
    Ok(Some(Member { link, controller, addresses, is_default, is_loopback }))
}

fn addresses(link: &Link) -> Result<Vec<String>> {
    let what = format!("list the addresses of '{}'", link.name);
    let index = link.index;
    netlink(&what.clone(), |handle| async move {
        let answers = handle.address().get().set_link_index_filter(index).execute();
        let messages: Vec<_> = answers.try_collect().await.map_err(refused(what))?;
        let address = |attributes: &[AddressAttribute]| {
            let local = attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            local.or_else(|| {
                attributes.iter().find_map(|a| match a {
                    AddressAttribute::Address(ip) => Some(*ip),
                    _ => None,
                })
            })
        };
        Ok(messages
            .iter()
            .filter(|m| m.header.index == index)
            .filter_map(|m| Some((address(&m.attributes)?, m.header.prefix_len)))
            .filter(|(ip, _)| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .map(|(ip, prefix)| format!("{ip}/{prefix}"))
            .collect())
    })
}

/// Names of the interfaces of default routes.
fn default_routes() -> Result<Vec<String>> {
    let read = |path: &str| match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        // A kernel without IPv6.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(io_error(format!("read {path}"), e)),
    };
    let v4 = read("/proc/thread-self/net/route")?;
    let v6 = read("/proc/thread-self/net/ipv6_route")?;
    Ok(default_v4(&v4).chain(default_v6(&v6)).collect())
}

/// Interfaces of default routes in the text of `/proc/net/route`.
fn default_v4(table: &str) -> impl Iterator<Item = String> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        is_default.then(|| fields[0].to_owned())
    })
}

/// Interfaces of default routes in the text of `/proc/net/ipv6_route`. The kernel's own route that rejects everything
/// is on `lo`.
fn default_v6(table: &str) -> impl Iterator<Item = String> + '_ {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default =
            fields.first().is_some_and(|to| to.bytes().all(|b| b == b'0')) && fields.get(1) == Some(&"00");
        let ifname = *fields.get(9)?;
        (is_default && ifname != "lo").then(|| ifname.to_owned())
    })
}

/// Makes an interface a port of the bridge, and brings it up. Doing it twice is doing it once.
///
/// # Errors
/// One of them does not exist, or the kernel refuses, as for a wireless interface.
pub fn attach(name: &str, bridge: &str) -> Result<()> {
    let what = format!("make '{name}' a port of the bridge '{bridge}'");
    netlink(&what.clone(), |handle| async move {
        let port = link::need(&handle, name).await?;
        let bridge = link::need(&handle, bridge).await?;
        if port.controller != Some(bridge.index) {
            link::set(&handle, link::change(port.index).controller(bridge.index).build(), what).await?;
        }
        link::set(&handle, link::change(port.index).up().build(), format!("bring up '{name}'")).await
    })
}

/// Takes an interface out of its bridge. Its absence is success.
///
/// # Errors
/// The kernel refuses.
pub fn detach(name: &str) -> Result<()> {
    change(name, format!("take '{name}' out of its bridge"), |message| message.nocontroller())
}

/// Brings an interface up. Its absence is success.
///
/// # Errors
/// The kernel refuses.
pub fn set_up(name: &str) -> Result<()> {
    change(name, format!("bring up '{name}'"), |message| message.up())
}

/// Brings an interface down. Its absence is success.
///
/// # Errors
/// The kernel refuses.
pub fn set_down(name: &str) -> Result<()> {
    change(name, format!("bring down '{name}'"), |message| message.down())
}

fn change(
    name: &str,
    what: String,
    to: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
) -> Result<()> {
    netlink(&what.clone(), |handle| async move {
        let Some(found) = link::find(&handle, name).await? else { return Ok(()) };
        let message = to(link::change(found.index)).build();
        except(libc::ENODEV, handle.link().set(message).execute().await, what)
    })
}

/// Name of the interface for a VLAN of `raw`: `<raw>.<vlan>`, or one made of a hash if that is too long for an
/// interface.
pub fn vlan_name(raw: &str, vlan: u16) -> String {
    let name = format!("{raw}.{vlan}");
    if name.len() <= IFNAME_MAX {
        return name;
    }
    let hash = blake3::hash(raw.as_bytes()).to_hex();
    format!("v{}.{vlan}", &hash[..8])
}

/// Makes the interface for a VLAN of `raw`, unless it exists; its name, and whether it was made. `raw` is brought up,
/// since a VLAN carries nothing otherwise.
///
/// # Errors
/// `raw` does not exist, the name is taken by something else, or the kernel refuses (it may lack the module `8021q`).
pub fn ensure_vlan(raw: &str, vlan: u16) -> Result<(String, bool)> {
    let name = vlan_name(raw, vlan);
    check_ifname(&name)?;
    let what = format!("make the interface '{name}' for VLAN {vlan} of '{raw}' (kernel module 8021q)");
    netlink(&what.clone(), |handle| async move {
        let below = link::need(&handle, raw).await?;
        link::set(&handle, link::change(below.index).up().build(), format!("bring up '{raw}'")).await?;
        if let Some(found) = link::find(&handle, &name).await? {
            if found.kind == "vlan" && found.below == Some(below.index) {
                return Ok((name, false));
            }
            let found = format!("it is not VLAN {vlan} of '{raw}'");
            return Err(NetError::NotOurs { name, found });
        }
        let message = LinkVlan::new(&name, below.index, vlan).build();
        handle.link().add(message).execute().await.map_err(refused(what))?;
        Ok((name, true))
    })
}

/// Gives an interface an address, and brings it up. Doing it twice is doing it once.
///
/// # Errors
/// It does not exist, or the kernel refuses.
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> Result<()> {
    let what = format!("give the address {address}/{prefix} to '{name}'");
    netlink(&what.clone(), |handle| async move {
        let index = link::need(&handle, name).await?.index;
        except(libc::EEXIST, handle.address().add(index, address, prefix).execute().await, what)?;
        link::set(&handle, link::change(index).up().build(), format!("bring up '{name}'")).await
    })
}

/// Takes an address from an interface; its absence, or that of the interface, is success.
///
/// # Errors
/// The kernel refuses.
pub fn remove_address(name: &str, address: IpAddr, prefix: u8) -> Result<()> {
    let what = format!("remove the address {address}/{prefix} from '{name}'");
    netlink(&what.clone(), |handle| async move {
        let Some(found) = link::find(&handle, name).await? else { return Ok(()) };
        let answers = handle.address().get().set_link_index_filter(found.index).execute();
        let all: Vec<_> = answers.try_collect().await.map_err(refused(what.clone()))?;
        for message in all {
            let is_it = message.header.index == found.index
                && message.header.prefix_len == prefix
                && message.attributes.contains(&AddressAttribute::Local(address));
            if is_it {
                let removed = handle.address().del(message).execute().await;
                except(libc::EADDRNOTAVAIL, removed, what.clone())?;
            }
        }
        Ok(())
    })
}

/// Speed of an interface in Mbit/s; `None` if the driver does not say.
///
/// # Errors
/// The kernel has no socket for the question.
pub fn speed(name: &str) -> Result<Option<u32>> {
    /// `ETHTOOL_GSET` of ethtool.h, and the value for "unknown".
    const GET_SETTINGS: u32 = 1;
    const UNKNOWN: u32 = u32::MAX;
    /// `struct ethtool_cmd` of ethtool.h, as far as it is read here; the kernel writes all 44 bytes.
    #[repr(C)]
    struct Settings {
        command: u32,
        supported: u32,
        advertising: u32,
        speed_low: u16,
        duplex: u8,
        more: [u8; 13],
        speed_high: u16,
        rest: [u8; 14],
    }
    const _: () = assert!(size_of::<Settings>() == 44);
    check_ifname(name)?;
    let what = || format!("ask for the speed of '{name}'");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"));
    let socket = socket.map_err(|e| io_error(what(), e))?;
    let mut settings = Settings {
        command: GET_SETTINGS,
        supported: 0,
        advertising: 0,
        speed_low: 0,
        duplex: 0,
        more: [0; 13],
        speed_high: 0,
        rest: [0; 14],
    };
    // SAFETY: ifreq is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut settings).cast();
    // SAFETY: the request names an interface and points to a struct ethtool_cmd, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    let speed = u32::from(settings.speed_high) << 16 | u32::from(settings.speed_low);
    let is_known = done == 0 && speed != 0 && speed != UNKNOWN && speed != u32::from(u16::MAX);
    Ok(is_known.then_some(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vlans() {
        assert_eq!(vlan_name("eth1", 12), "eth1.12");
        let long = vlan_name("enx00e04c680001", 4094);
        assert!(check_ifname(&long).is_ok() && long.ends_with(".4094"), "{long}");
        assert_ne!(long, vlan_name("enx00e04c680002", 4094));
    }

    #[test]
    fn default_routes_of_both_families() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                  eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\n\
                  eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(default_v4(v4).collect::<Vec<_>>(), ["eth0"]);
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe80 00000400 00000001 00000000 00450003 eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
             fe80{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth3\n",
            "0".repeat(28)
        );
        assert_eq!(default_v6(&v6).collect::<Vec<_>>(), ["eth2"]);
        assert!(default_v4("").next().is_none() && default_v6("x").next().is_none());
    }
}
