//! Serves a directory as a view and another one as `/persist` to everybody: for trying NFS clients.
//!
//! `nfs-serve ADDRESS:PORT VIEW-DIR PERSIST-DIR STATE-DIR`; with port 0 the port is printed. The mount
//! paths are `/var/lib/walt/nodes/<anything>/{fs,persist}`. A line on stdin prints the calls of 127.0.0.1
//! so far, its end ends the server.

#[path = "../tests/nfs/tree.rs"]
mod tree;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use walt_server::nfs::{Config, Durability, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let [_, address, view, persist, state] = args.as_slice() else {
        return Err("usage: nfs-serve ADDRESS:PORT VIEW-DIR PERSIST-DIR STATE-DIR".into());
    };
    let exports = Arc::new(tree::Everybody {
        view: Arc::new(tree::Tree::read(view.as_ref())?),
        persist: persist.into(),
    });
    let listener = TcpListener::bind(address.as_str())?;
    let port = listener.local_addr()?.port();
    let config = Config {
        dir: state.into(),
        durability: Durability::Full,
        // A test's client may sit behind an address translation that takes other ports.
        reserved_ports_only: false,
        mappings: walt_nfs::portmap::one_port(port),
    };
    let server = Server::new(exports, &config)?;
    server.serve_tcp(listener)?;
    println!("port {port}");
    for line in std::io::stdin().lines() {
        let _ = line?;
        println!("calls {}", server.calls(Ipv4Addr::LOCALHOST));
    }
    server.stop();
    Ok(())
}
