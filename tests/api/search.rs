//! A search, and an update of the default images, wait for no registry long.

use super::registries::{line, server_with};
use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};
use walt_testkit::{User, images};

/// As long as a registry may say nothing, and as long again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port of loopback where requests are taken and never answered.
fn silent_registry() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
        }
    });
    port
}

#[test]
fn a_silent_registry_costs_its_own_line() {
    let server = server_with(&line("silent", silent_registry(), "none"), &[]);
    let began = Instant::now();
    let found = server.walt(User::RootFor("ann"), &["image", "search", images::TINY]);
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    let says = "Ignoring silent registry because of a communication failure.";
    assert!(found.err.contains(says), "{found:?}");
    assert!(found.ok().contains(&format!("walt:waltplatform/{}", images::TINY)));
    // It is asked for each image by an update, and waited for once.
    let began = Instant::now();
    let updated = server.walt(User::RootFor("ann"), &["advanced", "update-default-images"]);
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    assert!(updated.err.contains(says), "{updated:?}");
    assert!(updated.ok().contains("No updates available."));
}
