//! Network boot: what nodes are served on walt-net before their root is mounted.
//!
//! ```text
//!  DHCP ──▶ loader (TFTP) ──▶ bootstrap.ipxe ──▶ start.ipxe … ──▶ kernel, initrd (HTTP)
//!                                  └──────────── all of them by files::open ────────────┘
//! ```
//! Limits: see each module.

pub mod bootstrap;
pub mod files;
