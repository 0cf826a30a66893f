//! Shaped links of virtual nodes: the real process that forwards, between namespaces; and the real server with nodes
//! that boot nothing.

mod forwarder;
mod server;
