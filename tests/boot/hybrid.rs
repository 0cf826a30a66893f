//! Hybrid boot: a node copies its image to its disk and runs from there. What needs no machine is in
//! `tests/api/hybrid.rs`.

use super::{BOOT, BOOT_ID, MINI, SOON, USER, booted, mini, on, wait};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use walt_testkit::{TestServer, until};

/// How long there is no server: long enough to read all files.
const ABSENT: Duration = Duration::from_secs(20);

fn node(server: &TestServer) -> serde_json::Value {
    server.api(None).get("/api/v1/nodes").json()["nodes"][0].clone()
}

fn mode(server: &TestServer) -> String {
    node(server)["boot_mode"].as_str().unwrap_or_default().to_owned()
}

fn node_dir(server: &TestServer) -> PathBuf {
    server.state_dir().join("nodes").join(node(server)["mac"].as_str().unwrap().replace(':', "-"))
}

/// What the console has shown since the last boot began.
fn last_boot(server: &TestServer) -> String {
    let log = fs::read(node_dir(server).join("console.log")).unwrap();
    let log = String::from_utf8_lossy(&log).into_owned();
    log.rsplit("*** Initializing...").next().unwrap().to_owned()
}

/// As a power cut: the machine is gone at once, and is started again by the server.
fn cut_power(server: &TestServer) {
    let note = fs::read(node_dir(server).join("vm.json")).unwrap();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
    let pid = note["pid"].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
}

#[track_caller]
fn reboot(server: &TestServer) {
    let before = on(server, "vn1", BOOT_ID);
    server.walt(USER, &["node", "reboot", "vn1"]).ok();
    wait(server, "vn1");
    assert_ne!(on(server, "vn1", BOOT_ID), before);
}

#[track_caller]
fn set(server: &TestServer, value: &str) {
    server.walt(USER, &["node", "config", "-y", "vn1", value]).ok();
}

#[test]
fn a_node_runs_from_its_disk() {
    let mut server = mini::server_with_attributes();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    set(&server, "disks=1G[template=hybrid-boot-v]");
    server.walt(USER, &["node", "reboot", "--hard", "vn1"]).ok();
    until("the copy to begin", BOOT, || {
        last_boot(&server).contains("*** Copying the image to sda1...").then_some(())
    });
    assert!(server.walt(USER, &["node", "show"]).ok().contains(" hybrid-volatile (copied "));
    cut_power(&server);
    until("the machine to start again", SOON, || (!last_boot(&server).contains("Copying")).then_some(()));
    wait(&server, "vn1");

    volatile(&mut server);
    saved_and_changed(&server);
    persistent(&server);
    set(&server, "boot.mode=network");
    reboot(&server);
    assert_eq!((mode(&server).as_str(), on(&server, "vn1", "ls /root").as_str()), ("network", "saved\n"));
    server.walt(USER, &["node", "remove", "vn1"]).ok();
}

/// The first boot from a disk, without the server, and the second.
fn volatile(server: &mut TestServer) {
    let nobody = |server: &TestServer, command: &str| {
        on(server, "vn1", &format!("su -s /bin/sh nobody -c '{command}'"))
    };
    println!("{}", last_boot(server));
    assert_eq!(mode(server), "hybrid-volatile");
    assert_eq!(on(server, "vn1", ". /bin/walt-env; echo $walt_boot_mode"), "hybrid-volatile\n");
    assert_eq!(on(server, "vn1", "grep -c '/fs nfs' /proc/mounts || true"), "0\n");
    assert_eq!(on(server, "vn1", "ps | grep -c '[w]alt-fs-watchdog' || true"), "0\n");
    // Capabilities and access lists come with the copy.
    for program in ["small", "large"] {
        assert!(nobody(server, &format!("/cap/{program}/busybox cat /etc/shadow")).starts_with("root:"));
    }
    assert_eq!(nobody(server, "cat /cap/listed"), "listed\n");
    assert_eq!(
        on(server, "vn1", "stat -c '%a %u %g' /tmp /etc/shadow /root"),
        "1777 0 0\n640 0 0\n700 0 0\n"
    );
    on(server, "vn1", "echo volatile >/root/volatile; echo local >/local/file; echo kept >/persist/kept");

    // Its files are its own: they are read while there is no server.
    let read = "sleep 3; echo 3 >/proc/sys/vm/drop_caches; find / -xdev -type f -exec cat {} + | wc -c >/root/read; date +%s >>/root/read";
    on(server, "vn1", &format!("({read}) >/dev/null 2>&1 &"));
    server.kill();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let killed = now();
    std::thread::sleep(ABSENT);
    let launched = now();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("the node's link to the new server", SOON, || (booted(server, "vn1") == "yes").then_some(()));
    let read = on(server, "vn1", "cat /root/read");
    let numbers: Vec<u64> = read.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        numbers[0] > 50_000_000 && (killed..=launched).contains(&numbers[1]),
        "{killed} {read} {launched}"
    );

    reboot(server);
    let told = last_boot(server);
    assert!(
        !told.contains("Copying the image") && told.contains("Boot mode: hybrid-volatile on sda1"),
        "{told}"
    );
    assert_eq!(on(server, "vn1", "ls /root /local; cat /persist/kept"), "/local:\n\n/root:\nkept\n");
}

/// A save in volatile mode, after which the node copies what is new.
fn saved_and_changed(server: &TestServer) {
    on(server, "vn1", "echo saved >/root/saved; mkdir /local/dir; echo saved >/local/dir/file; rm /cap/left");
    let before = on(server, "vn1", BOOT_ID);
    let dry = server.walt(USER, &["node", "save", "--dry-run", "vn1", MINI]).ok();
    for line in ["  /root/saved\n", "  /local/dir/file\n", "  /cap/left\n"] {
        assert!(dry.contains(line), "{dry}");
    }
    assert_eq!(dry.lines().filter(|line| line.contains("  /")).count(), 5, "{dry}");
    server.walt(USER, &["node", "save", "-y", "vn1", MINI]).ok();
    wait(server, "vn1");
    assert_ne!(on(server, "vn1", BOOT_ID), before);
    let told = last_boot(server);
    assert!(told.contains("*** Copying the image to sda1...") && !told.contains("layer 1 of"), "{told}");
    // The image has files in /local now.
    let found = on(server, "vn1", "cat /root/saved /local/dir/file; ls /cap /local");
    assert_eq!(found, "saved\nsaved\n/cap:\ndir\nlarge\nlisted\nsmall\n\n/local:\nREADME.nonlocal\ndir\n");
    on(server, "vn1", "rm -r /local/dir /local");
    server.walt(USER, &["node", "save", "-y", "vn1", MINI]).ok();
    wait(server, "vn1");
}

/// The same disk, and changes are kept.
fn persistent(server: &TestServer) {
    set(server, "boot.mode=hybrid-persistent");
    reboot(server);
    assert_eq!(mode(server), "hybrid-persistent");
    let change = "echo kept >/root/kept; echo kept >/local/kept; rm /cap/listed; echo mine >/bin/walt-log-cat; echo x >/tmp/x";
    on(server, "vn1", change);
    for _ in 0..2 {
        reboot(server);
        assert!(!last_boot(server).contains("Copying"), "{}", last_boot(server));
        let found = on(
            server,
            "vn1",
            "cat /root/kept /local/kept; ls /cap /tmp; grep -c mine /bin/walt-log-cat || true",
        );
        assert_eq!(found, "kept\nkept\n/cap:\ndir\nlarge\nsmall\n\n/tmp:\n0\n");
    }
    let dry = server.walt(USER, &["node", "save", "--dry-run", "vn1", MINI]).ok();
    for line in ["  /root/kept\n", "  /local/kept\n", "  /cap/listed\n"] {
        assert!(dry.contains(line), "{dry}");
    }
    assert_eq!(dry.lines().filter(|line| line.contains("  /")).count(), 4, "{dry}");
}

/// The default image, whose system has more to say when it stops: a minute alone, so only in long runs.
#[test]
fn the_default_image_runs_from_its_disk() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        println!("skipped: WALT_TEST_LONG is not set");
        return;
    }
    let server = TestServer::start_with_images(&["pc-x86-64-default"]);
    server.walt(USER, &["node", "create", "vn1"]).ok();
    set(&server, "disks=4G[template=hybrid-boot-p]");
    server.walt(USER, &["node", "reboot", "--hard", "vn1"]).ok();
    wait(&server, "vn1");
    println!("{}", last_boot(&server));
    assert_eq!(mode(&server), "hybrid-persistent");
    assert_eq!(
        on(&server, "vn1", "getcap /bin/ping; cat /proc/1/comm"),
        "/bin/ping cap_net_raw=ep\nsystemd\n"
    );
    let service = "printf '[Service]\\nExecStart=/bin/sleep 1000\\nExecStop=/bin/touch /root/stopped\\n[Install]\\n\
                   WantedBy=multi-user.target\\n' >/etc/systemd/system/kept.service; systemctl enable --now kept";
    on(&server, "vn1", service);
    reboot(&server);
    let told = last_boot(&server);
    assert!(!told.contains("Copying"), "{told}");
    assert_eq!(on(&server, "vn1", "ls /root; systemctl is-active kept"), "stopped\nactive\n");
    let failed = on(&server, "vn1", "systemctl --failed --no-legend --plain");
    assert_eq!(failed, "", "{failed}");
}
