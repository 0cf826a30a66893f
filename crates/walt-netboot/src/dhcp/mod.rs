//! DHCP (RFC 2131, 2132): requests in, replies out; the network belongs to one server, without relays.
//!
//! ```text
//!   bytes ─▶ wire::parse ─▶ Request ─▶ Server::plan ─▶ Plan ─▶ Outcome
//!                                        ▲      ▲         ├─ Ignore       nothing is sent
//!                    nodes, time ────────┘   leases       ├─ Register     a machine says it is a node: add it, ask again
//!                                                         └─ Answer       keep `save` on disk, then send `reply`
//! ```
//! A **node** has its address for ever. Any other station is an **unknown device**: it gets a lease from what
//! is left of the network, and keeps it as long as it comes back. A node is a machine whose user class or
//! vendor class is `walt.node.<model>`, or whose firmware tells a model; [`boot`] decides that, and what each of them
//! should load.
//!
//! Limits: [`wire::PACKET_MAX`] bytes in, [`leases::OFFERS_MAX`] offers that wait for their request,
//! [`leases::DECLINED_MAX`] addresses set aside; leases are bounded by the size of the network.

pub mod boot;
pub mod leases;
pub mod probe;
mod server;
#[cfg(test)]
mod tests;
pub mod wire;

pub use boot::{Class, Loaders};
pub use leases::Lease;
pub use server::{Config, Destination, Node, Outcome, Plan, Registration, Reply, Saved, Server};
pub use wire::{Request, WireError, parse};
