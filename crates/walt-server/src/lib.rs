//! The daemon, on four floors; a floor imports downward only (`scripts/structure` checks it).
//!
//! ```text
//! run       start: state, recovery, adoption; end
//! edge      walt.sock (HTTP, WebSockets), /v2/, node link, NFS exports, DHCP, TFTP, HTTP boot, DNS: bytes in and out
//! actions   one file per thing that users ask: questions, decisions, wording, reboots; App
//! services  images, nodes, sessions, registries, network: state and invariants of one thing each
//! base      configuration, database, keys, locks, channels to clients, sockets, failures
//! ```
//! The server may die at any moment; what outlives it (qemu, holders, bridge, rules) is adopted by the
//! next one at its start ([`run`]), and `walt-server down` ([`actions::admin`]) is what takes it all away.
//!
//! Limits are named constants beside the code they bound.

pub mod actions;
pub mod base;
pub mod edge;
pub mod run;
pub mod services;

pub use run::run;
