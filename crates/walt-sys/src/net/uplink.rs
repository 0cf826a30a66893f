//! The way out of the machine: the interface of the default route, whose MTU container links take over.

use super::{Result, io_error, link};

/// MTU of container links on a machine without a default route, in bytes: that of Ethernet.
pub const DEFAULT_MTU: u32 = 1500;

/// `RTF_UP` and `RTF_REJECT` of `/proc/net/route`.
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECT: u32 = 0x200;

/// The interface of the default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Name of the interface.
    pub ifname: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// The uplink of the machine, `None` without an IPv4 default route.
///
/// # Errors
/// When the routes cannot be read.
pub fn get() -> Result<Option<Uplink>> {
    let path = "/proc/thread-self/net/route";
    let table = std::fs::read_to_string(path).map_err(|e| io_error(format!("read {path}"), e))?;
    let Some(ifname) = default_interface(&table) else { return Ok(None) };
    let mtu = link::get(&ifname)?.map_or(DEFAULT_MTU, |l| l.mtu);
    Ok(Some(Uplink { ifname, mtu }))
}

/// The interface of the default route with the lowest metric, from the text of `/proc/net/route`.
fn default_interface(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [ifname, destination, _gateway, flags, _refs, _uses, metric, mask, ..] = fields[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let usable = flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0;
        let default = destination == "00000000" && mask == "00000000";
        (usable && default).then_some((metric.parse::<u32>().ok()?, ifname.to_owned()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, ifname)| ifname)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        dead0\t00000000\t00000000\t0201\t0\t0\t1\t00000000\t0\t0\t0\n\
        eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn lowest_metric_wins_and_rejects_are_no_way_out() {
        assert_eq!(default_interface(TABLE).as_deref(), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
        assert_eq!(default_interface(""), None);
    }
}
