//! Router advertisements, by rdisc6 of ndisc6.

use crate::{has, ok};
use std::time::Duration;
use walt_testkit::{Newcomer, TestServer, until};

#[test]
fn there_is_no_router_and_it_is_said_at_once() {
    if !has("rdisc6", "ndisc6") {
        return;
    }
    let server = TestServer::start();
    let station = Newcomer::plug(&server, 1);
    until("the station's link-local address", Duration::from_secs(60), || {
        let addresses = ok(&station.run("ip", &["-6", "address", "show", "dev", "eth0"]));
        (addresses.contains("fe80:") && !addresses.contains("tentative")).then_some(())
    });
    let told = ok(&station.run("rdisc6", &["-1", "-r", "10", "-w", "3000", "eth0"]));
    assert!(told.contains("Router lifetime           :            0"), "{told}");
    assert!(!told.contains("Prefix"), "{told}");
    // The kernel heard it too: no address but its own, and no route.
    let addresses = ok(&station.run("ip", &["-6", "address", "show", "dev", "eth0"]));
    assert_eq!(addresses.matches("inet6").count(), 1, "{addresses}");
    assert!(!ok(&station.run("ip", &["-6", "route"])).contains("default"));
}
