//! Network boot: what the wire and the boot scripts of images mean, without sockets, clock or disk.
//!
//! | module | what |
//! |---|---|
//! | [`ipxe`] | interpreter of the images' iPXE scripts, for virtual nodes that are started without firmware |
//!
//! Limits: see each module.

pub mod ipxe;
