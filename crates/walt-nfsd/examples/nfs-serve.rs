//! Serves a directory as a view and another one as `/persist` to everybody: for trying NFS clients.
//!
//! `nfs-serve ADDRESS:PORT VIEW-DIR PERSIST-DIR STATE-DIR`; with port 0 the port is printed. The mount
//! paths are `/var/lib/walt/nodes/<anything>/{fs,persist}`. A line on stdin prints the calls of 127.0.0.1
//! so far, its end ends the server. With a name in `WALT_TEST_LOSE` the disk of `/persist` forgets the content of
//! the file of that name when it is first asked to keep it, and says so: `lost`.

#[path = "../tests/nfs/tree.rs"]
mod tree;

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use walt_nfsd::serve::Limits;
use walt_nfsd::{Config, Durability, Server};

/// A disk whose cache was lost once, as when a write-back fails.
fn lose_once(file: &File) -> io::Result<()> {
    static LOST: AtomicBool = AtomicBool::new(false);
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let wanted = std::env::var_os("WALT_TEST_LOSE");
    if wanted.is_none() || path.file_name() != wanted.as_deref() || LOST.swap(true, Ordering::SeqCst) {
        return file.sync_data();
    }
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, hole, 0, file.metadata()?.len().max(1))?;
    println!("lost");
    Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
}

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
        sync_data: lose_once,
        // A test's client may sit behind an address translation that takes other ports.
        reserved_ports_only: false,
        mappings: walt_nfs::portmap::one_port(port),
        limits: Limits::default(),
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
