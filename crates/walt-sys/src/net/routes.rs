//! The IPv4 routes of the machine, of all tables: which addresses are in use by what.

use super::{Result, link, netlink, refused};
use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// First address of its destination.
    pub destination: Ipv4Addr,
    /// Length of the destination's prefix, in bits; 0 for a default route.
    pub prefix: u8,
    /// Name of its interface; empty if it has none, or several.
    pub device: String,
}

/// All routes to stations and networks; those of broadcasts are left out.
///
/// # Errors
/// The kernel refuses or does not answer.
pub fn list() -> Result<Vec<Route>> {
    let names: HashMap<u32, String> = link::list()?.into_iter().map(|l| (l.index, l.name)).collect();
    let messages: Vec<RouteMessage> = netlink("list the routes", |handle| async move {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        handle.route().get(all).execute().try_collect().await.map_err(refused("list the routes"))
    })?;
    Ok(messages.iter().filter_map(|m| of(m, &names)).collect())
}

fn of(message: &RouteMessage, names: &HashMap<u32, String>) -> Option<Route> {
    if matches!(message.header.kind, RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast) {
        return None;
    }
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix: message.header.destination_prefix_length,
        device: String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => route.destination = *addr,
            RouteAttribute::Oif(index) => route.device = names.get(index).cloned().unwrap_or_default(),
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_route() {
        let routes = list().unwrap();
        let loopback = Route { destination: Ipv4Addr::new(127, 0, 0, 0), prefix: 8, device: "lo".into() };
        assert!(routes.contains(&loopback), "{routes:?}");
        assert!(routes.iter().all(|r| r.destination != Ipv4Addr::new(127, 255, 255, 255)), "{routes:?}");
    }
}
