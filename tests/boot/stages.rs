//! The server dies in each stage of a machine's boot, and the machine boots all the same.

use super::{BOOT, on};
use crate::road::server_with_default;
use crate::station::{self, Station};
use walt_testkit::{Options, until};

/// What the server logs in each stage of a boot by PXE, in their order: it is killed right after.
const STAGES: [&str; 5] = [
    // The firmware has an offer.
    "kind=Offer",
    // The iPXE of its card loads the server's script by HTTP, is registered, and goes on with the image's.
    "bootstrap.ipxe\"",
    "start.ipxe\"",
    // It loads the kernel.
    "kernel\"",
    // The system has its root.
    "mounts its image",
];
/// What the server logs of all that.
const LOG: (&str, &str) =
    ("WALT_LOG", "info,walt_server::edge::netboot=debug,walt_server::edge::exports=debug");

#[test]
fn the_server_dies_in_every_stage_of_a_boot() {
    let mut server = server_with_default(Options::default());
    server.kill();
    server.launch_with(&[LOG]).unwrap_or_else(|e| panic!("{e:?}"));
    let station = Station::with_bios(&server, None, 1, "ACME");
    for stage in STAGES {
        let seen = server.log().len();
        until(&format!("the log to show {stage}"), BOOT, || {
            let log = server.log();
            log.get(seen..).filter(|new| new.contains(stage)).map(drop)
        });
        server.kill();
        server.launch_with(&[LOG]).unwrap_or_else(|e| panic!("{e:?}"));
    }
    let name = station.booted(&server, station::PC);
    assert_eq!(on(&server, &name, "uname -n"), format!("{name}\n"));
}
