//! Sockets and protocols: reads and writes bytes, makes no decisions.

pub mod api;
pub mod dhcp_client;
pub mod dns;
pub mod exports;
pub mod link;
pub mod netboot;
pub mod node_logs;
pub mod peers;
pub mod registry;
