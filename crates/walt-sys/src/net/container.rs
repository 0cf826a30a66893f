//! The link of a container: one veth pair, point to point.
//!
//! ```text
//! server's namespace                          container's namespace
//!   <host_ifname>  gateway/32, rp_filter  ====  eth0  ip/32
//!   route ip/32 dev <host_ifname>               route gateway/32 dev eth0; default via gateway
//! ```
//!
//! Every pair has the same gateway address on the server's side, so containers do not share a broadcast domain and a
//! container's packets with another's address are dropped by the reverse path filter. When the container's namespace
//! ends, both ends go.

use super::link;
use super::{Result, check_ifname, except, in_netns, netlink, refused, sysctl};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

/// Name of the interface inside the container.
pub const CONTAINER_IFNAME: &str = "eth0";

/// Length of the prefix of a single address, in bits.
const HOST_PREFIX: u8 = 32;

/// What the link of one container shall be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerNetwork {
    /// Name of the server's end; the rules of the nft table go by its prefix.
    pub host_ifname: String,
    /// The container's address.
    pub ip: Ipv4Addr,
    /// The server's address on all container links.
    pub gateway: Ipv4Addr,
    /// Largest packet in bytes: that of the uplink, see [`super::uplink`].
    pub mtu: u32,
}

/// Makes the pair, moves one end into the container's namespace, and configures both.
///
/// If the link exists already, it is made again.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel refuses a step (the message names it).
pub fn setup_container_network(netns: &impl AsFd, spec: &ContainerNetwork) -> Result<()> {
    check_ifname(&spec.host_ifname)?;
    link::remove(&spec.host_ifname)?;
    make_pair(netns, spec)?;
    let done = in_netns(netns, || inside(spec)).and_then(|()| outside(spec));
    if done.is_err() {
        // The first error is the one to report; a pair that cannot be removed goes with the namespace.
        let _ = link::remove(&spec.host_ifname);
    }
    done
}

fn make_pair(netns: &impl AsFd, spec: &ContainerNetwork) -> Result<()> {
    let what = format!("make the link '{}' of a container", spec.host_ifname);
    let netns = netns.as_fd().as_raw_fd();
    netlink(&what.clone(), |handle| async move {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(CONTAINER_IFNAME)
            .mtu(spec.mtu)
            .append_extra_attribute(LinkAttribute::NetNsFd(netns))
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(spec.host_ifname.clone())
            .mtu(spec.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        handle.link().add(message).execute().await.map_err(refused(what))
    })
}

fn inside(spec: &ContainerNetwork) -> Result<()> {
    netlink("configure the network of a container", |handle| async move {
        let lo = link::need(&handle, "lo").await?;
        link::set(&handle, link::change(lo.index).up().build(), "bring up lo in a container".into()).await?;
        let eth = link::need(&handle, CONTAINER_IFNAME).await?;
        let request = handle.address().add(eth.index, IpAddr::V4(spec.ip), HOST_PREFIX);
        request.execute().await.map_err(refused(format!("give {} to a container", spec.ip)))?;
        link::set(&handle, link::change(eth.index).up().build(), "bring up eth0 in a container".into())
            .await?;
        let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(spec.gateway, HOST_PREFIX)
            .output_interface(eth.index)
            .scope(RouteScope::Link)
            .build();
        let what = "route to the gateway in a container";
        handle.route().add(to_gateway).execute().await.map_err(refused(what))?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(spec.gateway)
            .output_interface(eth.index)
            .pref_source(spec.ip)
            .build();
        handle.route().add(default).execute().await.map_err(refused("set the default route in a container"))
    })
}

fn outside(spec: &ContainerNetwork) -> Result<()> {
    let name = &spec.host_ifname;
    sysctl::set_interface("ipv6", name, "disable_ipv6", "1")?;
    sysctl::set_interface("ipv4", name, "rp_filter", "1")?;
    sysctl::set_interface("ipv4", name, "arp_ignore", "1")?;
    let what = format!("configure the link '{name}' of a container");
    netlink(&what.clone(), |handle| async move {
        let veth = link::need(&handle, name).await?;
        let address = handle.address().add(veth.index, IpAddr::V4(spec.gateway), HOST_PREFIX);
        except(libc::EEXIST, address.execute().await, format!("give {} to '{name}'", spec.gateway))?;
        let message = link::change(veth.index).alias(format!("walt container {}", spec.ip)).up().build();
        link::set(&handle, message, what).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(spec.ip, HOST_PREFIX)
            .output_interface(veth.index)
            .scope(RouteScope::Link)
            .build();
        let request = handle.route().add(route).replace();
        request.execute().await.map_err(refused(format!("route {} to '{name}'", spec.ip)))
    })
}
