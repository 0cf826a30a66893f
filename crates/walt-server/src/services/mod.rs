//! State and invariants of one thing each: images, nodes, sessions, registries; and the machine's network.

pub mod images;
pub mod network;
pub mod nodes;
pub mod process;
pub mod registries;
pub mod sessions;
