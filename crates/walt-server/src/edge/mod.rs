//! Sockets and protocols: reads and writes bytes, makes no decisions.

pub mod api;
pub mod dhcp_client;
pub mod dns;
pub mod exports;
pub mod link;
pub mod log_intake;
pub mod netboot;
pub mod netconsole;
pub mod peers;
pub mod registry;
