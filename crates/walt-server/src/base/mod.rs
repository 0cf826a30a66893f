//! The lowest floor: used by everything above, and without dependencies on the rest of this program.
//!
//! Configuration and database, keys, the lock of the state, channels to clients, sockets, files, times, failures,
//! fail points of crash tests.

pub mod changes;
pub mod config;
pub mod db;
pub mod events;
pub mod fail_points;
pub mod failure;
pub mod files;
pub mod journal;
pub mod keys;
pub mod metrics;
pub mod operations;
pub mod ports;
pub mod programs;
pub mod random;
pub mod recent_log;
pub mod registry_config;
pub mod sockets;
pub mod state;
pub mod state_lock;
pub mod terminal;
pub mod time;
pub mod transfer;
pub mod web_config;
pub mod wire;
