//! Puts a VLAN of an interface into a bridge, or takes it out again: for a test inside a node, since kernels of build
//! machines often have no VLANs.
//!
//! `vlan up|down RAW-DEVICE VLAN BRIDGE ADDRESS`

use std::net::Ipv4Addr;
use walt_sys::net::bridge::{self, BridgeSpec};
use walt_sys::net::{NetError, link, mac_from_seed, member};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, raw, vlan, name, address] = words.as_slice() else {
        eprintln!("usage: vlan up|down RAW-DEVICE VLAN BRIDGE ADDRESS");
        std::process::exit(2);
    };
    let (Ok(vlan), Ok(address)) = (vlan.parse::<u16>(), address.parse::<Ipv4Addr>()) else {
        eprintln!("the VLAN must be a number, and the address one of IPv4");
        std::process::exit(2);
    };
    let spec = BridgeSpec {
        name: name.clone(),
        alias: format!("walt example {name}"),
        address: Some((address, 24)),
        mac: mac_from_seed(name),
    };
    let done = if what == "up" { up(&spec, raw, vlan) } else { down(&spec, raw, vlan) };
    if let Err(e) = done {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

fn up(spec: &BridgeSpec, raw: &str, vlan: u16) -> Result<(), NetError> {
    bridge::ensure(spec)?;
    let (port, made) = member::ensure_vlan(raw, vlan)?;
    member::attach(&port, &spec.name)?;
    println!("{port} {}", if made { "made" } else { "found" });
    Ok(())
}

fn down(spec: &BridgeSpec, raw: &str, vlan: u16) -> Result<(), NetError> {
    let port = member::vlan_name(raw, vlan);
    member::detach(&port)?;
    link::remove(&port)?;
    bridge::remove(spec)
}
