//! A real server and the real client; no node boots. The default image is made of a few files.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod boots;
mod bounds;
mod cable;
mod default_images;
mod devices;
mod disks;
mod hybrid;
mod images;
mod isolation;
mod links;
mod lists;
mod live;
mod log_bounds;
mod log_tools;
mod logs;
mod misuse;
mod nfs_call;
mod node_leases;
mod outside;
mod ownership;
mod registries;
mod room;
mod run;
mod search;
mod settings;
mod start;
mod status;
mod store;
mod tls;
mod web;
