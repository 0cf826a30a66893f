//! The NFS server against the clients of libnfs: listing, reading, writing, hostile names.
#![allow(clippy::unwrap_used)] // a test's assertion, also in its helpers

#[path = "nfs/tree.rs"]
mod tree;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use walt_nfsd::serve::Limits;
use walt_nfsd::{Config, Durability, Server};

struct Served {
    server: Arc<Server>,
    port: u16,
    dir: tempfile::TempDir,
}

/// A server over a small tree on the disk.
fn serve() -> Served {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (view, persist) = (dir.path().join("view"), dir.path().join("persist"));
    std::fs::create_dir_all(view.join("many")).unwrap();
    std::fs::create_dir(&persist).unwrap();
    std::fs::write(view.join("hello"), "hello world\n").unwrap();
    std::fs::write(view.join("empty"), "").unwrap();
    std::fs::create_dir(view.join("sub")).unwrap();
    std::fs::write(view.join("sub/inner"), "inner").unwrap();
    std::fs::write(view.join("big"), pattern(3_000_001)).unwrap();
    std::os::unix::fs::symlink("hello", view.join("link")).unwrap();
    for n in 0..3000 {
        std::fs::write(view.join(format!("many/{n:05}-{}", "x".repeat(n % 90))), "").unwrap();
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config {
        dir: dir.path().join("state"),
        durability: Durability::Full,
        sync_data: std::fs::File::sync_data,
        reserved_ports_only: false,
        mappings: walt_nfs::portmap::one_port(port),
        limits: Limits::default(),
    };
    let view = Arc::new(tree::Tree::read(&view).unwrap());
    let server = Server::new(Arc::new(tree::Everybody { view, persist }), &config).unwrap();
    server.serve_tcp(listener).unwrap();
    Served { server, port, dir }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.stop();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

impl Served {
    fn url(&self, path: &str) -> String {
        let port = self.port;
        format!("nfs://127.0.0.1/var/lib/walt/nodes/{path}?nfsport={port}&mountport={port}&version=3")
    }
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let command = Command::new("timeout").args(["30", program]).args(args).output();
        command.expect("libnfs-utils is installed")
    }
    fn ok(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let out = self.run(program, args);
        assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }
}

#[test]
fn a_view_is_listed_and_read() {
    let s = serve();
    let text = String::from_utf8(s.ok("nfs-ls", &[&s.url("n1/fs")])).unwrap();
    let mut names: Vec<_> = text.lines().filter_map(|l| l.split_whitespace().last()).collect();
    names.sort_unstable();
    assert_eq!(names, ["big", "empty", "hello", "link", "many", "sub"]);
    let many = String::from_utf8(s.ok("nfs-ls", &["-R", &s.url("n1/fs")])).unwrap();
    assert_eq!(many.lines().filter(|l| l.contains("many/")).count(), 3000);
    assert_eq!(s.ok("nfs-cat", &[&s.url("n1/fs/hello")]), b"hello world\n");
    assert_eq!(s.ok("nfs-cat", &[&s.url("n1/fs/empty")]), b"");
    assert_eq!(s.ok("nfs-cat", &[&s.url("n1/fs/sub/inner")]), b"inner");
    assert!(s.ok("nfs-cat", &[&s.url("n1/fs/big")]) == pattern(3_000_001));
    assert!(!s.run("nfs-cat", &[&s.url("n1/fs/nothing")]).status.success());
    let counts = s.server.counts(Ipv4Addr::LOCALHOST);
    assert!(counts.calls > 10 && (3_000_001..6_000_000).contains(&counts.bytes), "{counts:?}");
    s.server.close(Ipv4Addr::LOCALHOST);
    assert_eq!(s.server.calls(Ipv4Addr::LOCALHOST), 0);
}

#[test]
fn views_take_no_writes_and_strangers_get_nothing() {
    let s = serve();
    let source = s.dir.path().join("view/hello");
    let out = s.run("nfs-cp", &[source.to_str().unwrap(), &s.url("n1/fs/new")]);
    assert!(!out.status.success());
    assert!(!s.dir.path().join("view/new").exists());
    let out = s.run("nfs-ls", &[&s.url("stranger/fs")]);
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(!text.contains("hello"), "{text}");
}

#[test]
fn persist_keeps_what_is_written() {
    let s = serve();
    let source = s.dir.path().join("view/big");
    s.ok("nfs-cp", &[source.to_str().unwrap(), &s.url("n1/persist/copy")]);
    let copy: &Path = &s.dir.path().join("persist/copy");
    assert!(std::fs::read(copy).unwrap() == pattern(3_000_001));
    let before = s.server.counts(Ipv4Addr::LOCALHOST).bytes;
    assert!(s.ok("nfs-cat", &[&s.url("n1/persist/copy")]) == pattern(3_000_001));
    assert!(s.server.counts(Ipv4Addr::LOCALHOST).bytes - before > 3_000_000);
    assert_eq!(std::fs::metadata(s.dir.path().join("state/secret")).unwrap().len(), 16);
}
