//! Network boot: what the wire and the boot scripts of images mean, without sockets, clock or disk.
//!
//! | module | what |
//! |---|---|
//! | [`dhcp`] | addresses for nodes and for unknown devices, and what each of them should load |
//! | [`dns`] | names and addresses of nodes: the zone `walt` |
//! | [`grub`] | configurations for GRUB, which boots nodes by Secure Boot |
//! | [`ipxe`] | interpreter of the images' iPXE scripts, for virtual nodes that are started without firmware |
//! | [`ra`] | router advertisements, for which iPXE waits |
//! | [`rpi`] | which Raspberry Pi asks, and for which file |
//! | [`tftp`] | one transfer of a file |
//!
//! Limits: see each module.

pub mod dhcp;
pub mod dns;
pub mod grub;
pub mod ipxe;
pub mod ra;
pub mod rpi;
pub mod tftp;
