//! Services, each with the state and invariants of one thing: images, nodes, sessions, registries, the machine's
//! network, what leads out of walt-net or into it, and the state as listeners see it.

pub mod cable;
pub mod devices;
pub mod images;
pub mod live;
pub mod logs;
pub mod network;
pub mod nodes;
pub mod outside;
pub mod process;
pub mod registries;
pub mod segments;
pub mod sessions;
