//! The netboot road: firmware, DHCP, iPXE, HTTP. What is booted must not depend on the road.

use super::{
    BOOT, SOON, USER, booted,
    boots::{boots, loaded, stages},
    on, wait,
};
use crate::station::{self, OVMF_CODE, Station, Switch, UPLINK};
use std::fmt::Write;
use std::process::Command;
use walt_testkit::{Options, TestServer, images, until};

const MINI: &str = "pc-x86-64-mini";
/// The image of machines that nobody has given one.
const DEFAULT: &str = "pc-x86-64-default";
/// Loader for UEFI: Debian package `ipxe`.
pub const UEFI_LOADER: &str = "/usr/lib/ipxe/ipxe.efi";

fn set_road(server: &TestServer, road: &str) {
    server.walt(USER, &["node", "config", "vn1", &format!("boot.road={road}")]).ok();
    let out = server.walt(USER, &["node", "reboot", "vn1"]).ok();
    assert!(out.contains("Node vn1: rebooted ok."), "{out}");
    assert_ne!(booted(server, "vn1"), "yes", "the node has still to boot");
    wait(server, "vn1");
}

fn boot_id(server: &TestServer, node: &str) -> String {
    on(server, node, "cat /proc/sys/kernel/random/boot_id")
}

/// Numbers of the qemu processes of a server's virtual nodes.
fn machines(server: &TestServer) -> String {
    let state = server.state_dir().join("nodes");
    let mut all = String::new();
    for node in std::fs::read_dir(state).unwrap().flatten() {
        let identity = std::fs::read(node.path().join("vm.json")).unwrap();
        let identity: serde_json::Value = serde_json::from_slice(&identity).unwrap();
        writeln!(all, "{} since {}", identity["pid"], identity["start_time"]).unwrap();
    }
    all
}

#[test]
fn both_roads_boot_the_same() {
    let mut server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    wait(&server, "vn1");
    let direct = on(&server, "vn1", "cat /proc/cmdline");
    assert!(direct.contains("nfsroot="), "{direct}");

    set_road(&server, "pxe");
    assert_eq!(on(&server, "vn1", "cat /proc/cmdline"), direct);
    let record = boots(&server, "vn1").pop().unwrap();
    let expected = ["start", "firmware", "dhcp", "script", "initrd", "kernel", "root", "init", "ssh"];
    assert_eq!(stages(&record), expected, "{record}");
    assert!(loaded(&record, "kernel") > 1_000_000 && loaded(&record, "initrd") > 100_000, "{record}");

    // What the system on the node does stays in its qemu, also while no server runs: the firmware tries again.
    let (machine, first) = (machines(&server), boot_id(&server, "vn1"));
    // At once, as by a reset button: a forced reboot under traffic can hang Linux 6.1.192 in virtio_net.
    on(&server, "vn1", "(sleep 1; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("a boot through the death of the server", BOOT, || {
        let ran = server.walt(USER, &["node", "run", "vn1", "cat /proc/sys/kernel/random/boot_id"]);
        (ran.status == Some(0) && ran.out != first).then_some(())
    });
    assert_eq!(machines(&server), machine);

    // An order is another thing: settings are read then.
    set_road(&server, "direct");
    assert_ne!(machines(&server), machine);
    assert_eq!(on(&server, "vn1", "cat /proc/cmdline"), direct);
}

/// Nothing of ours but labels and `/boot/pc-x86-64`: Debian's own initial RAM disk mounts the root.
#[test]
fn an_image_made_the_stock_way_boots() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: it takes minutes to install another Debian; WALT_TEST_LONG=1 asks for it");
        return;
    }
    let image = images::built_by("tests/boot/stock/recipe.sh");
    let server = TestServer::start();
    server.import(DEFAULT, &image);
    server.walt(USER, &["node", "create", "vn1"]).ok();
    wait(&server, "vn1");
    assert!(on(&server, "vn1", "cat /proc/cmdline").contains(" boot=nfs "));
    assert_eq!(
        on(&server, "vn1", "cat /proc/1/comm; test -e /usr/sbin/walt-mkinitrd || echo stock"),
        "systemd\nstock\n"
    );
}

/// Adds hooks to the small image. Each keeps what it was started with; that for reboots does what it is told.
const HOOKS: &str = r#"
set -e
mkdir -p hooks/bin 'hooks/boot/pc-x86-64/ACME/Standard PC (i440FX + PIIX, 1996)'
cd hooks
printf '#!ipxe\nset additional_kernel_params console=ttyS0 quiet mitigations=off init_on_alloc=0 tsc=reliable\n' \
    >"boot/pc-x86-64/ACME/Standard PC (i440FX + PIIX, 1996)/boot-params.ipxe"
for hook in walt-preinit on-bootup walt-network-reboot blink; do
    cat >bin/$hook <<'END'
#!/bin/sh
{
    for name in HOME LOGNAME PATH SHELL USER; do eval "echo \"$name=\$$name\""; done
    env | cut -d= -f1 | grep -v -x -e HOME -e LOGNAME -e PATH -e SHELL -e USER -e PWD -e OLDPWD -e SHLVL -e _
    umask; pwd; wc -c
    echo "arguments: $*"
} >/run/hook-${0##*/} 2>&1
END
done
echo 'read -r what </run/what && eval "$what"' >>bin/walt-network-reboot
chmod 755 bin/*
tar -rf ../rootfs.tar bin boot
"#;

/// What a hook is started with.
fn login(arguments: &str) -> String {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    format!(
        "HOME=/root\nLOGNAME=root\nPATH={path}\nSHELL=/bin/sh\nUSER=root\n0022\n/\n0\narguments: {arguments}\n"
    )
}

/// A server whose default image for PCs is the small one, with [`HOOKS`].
pub fn server_with_default(options: Options) -> TestServer {
    let mini = images::built(MINI);
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    let image = server.dir().join("image");
    std::fs::create_dir(&image).unwrap();
    for file in ["rootfs.tar", "config.json"] {
        std::fs::copy(mini.join(file), image.join(file)).unwrap();
    }
    let made = Command::new("sh").args(["-c", HOOKS]).current_dir(&image).status().unwrap();
    assert!(made.success());
    server.import(DEFAULT, &image);
    server
}

/// Runs functions of the node link in its RAM root, beside it and with bounds for a test.
fn in_node_link(server: &TestServer, name: &str, commands: &str) -> String {
    let link = "/bin/_walt_internal_/walt-node-link";
    let script = format!(
        "cd /run/walt/rootfs && exec chroot . /bin/busybox sh -c '
        . /bin/_walt_internal_/walt-script-common
        eval \"$(sed -n \"/^[a-z_]*() {{/,/^}}/p; /^[a-z_]*() {{.*}}$/p; /^[A-Z_]*=/p\" {link} | uniq)\"
        REBOOT_WAIT=3
        {commands}'"
    );
    on(server, name, &script)
}

fn hooks(server: &TestServer, name: &str) {
    assert_eq!(on(server, name, "grep ^virtual= /run/walt/rootfs/etc/walt-node"), "virtual=0\n");
    assert_eq!(on(server, name, "cat /run/hook-walt-preinit"), login(""));
    until("the hook of the boot", SOON, || {
        let ran = server.walt(USER, &["node", "run", name, "cat /run/hook-on-bootup"]);
        (ran.out == login("")).then_some(())
    });
    assert_eq!(in_node_link(server, name, "blink 1; echo $?"), "0\n");
    assert_eq!(on(server, name, "cat /run/hook-blink"), login("1"));
    // One bound, whatever a hook does.
    for (what, reason) in [
        ("exit 0", "returned, and the node still ran 3 s after its start"),
        ("sleep 60", "did not end within 3 s"),
        ("exit 5", "failed (status 5)"),
    ] {
        on(server, name, &format!("echo '{what}' >/run/what"));
        let told = in_node_link(server, name, "run_reboot_hook /bin/walt-network-reboot; echo $reason");
        assert_eq!(told, format!("/bin/walt-network-reboot {reason}\n"));
    }
    assert_eq!(on(server, name, "cat /run/hook-walt-network-reboot"), login(""));
    // With kexec.allow=false, the server's order has one more word, and no hook runs.
    let told = in_node_link(
        server,
        name,
        "virtual=0 boot_mode=network
        note() { :; }; force_reboot() { echo forced; }; run_reboot_hook() { echo $1; }
        do_reboot; do_reboot firmware",
    );
    assert_eq!(told, "/bin/walt-network-reboot\nforced\nforced\n");
}

/// What a node does without pause: reads of its image and of `/persist`, and writes that must reach the server.
const LOAD: &str = r#"
    rm -f /tmp/stop /tmp/load
    : >/tmp/turns
    (while [ ! -e /tmp/stop ]; do
        echo 3 >/proc/sys/vm/drop_caches
        cat /bin/busybox /sbin/init >/dev/null || echo "read: $?"
        dd if=/dev/zero of=/persist/load bs=64k count=8 conv=fsync 2>/tmp/dd || { echo "write: $?"; cat /tmp/dd; }
        echo >>/tmp/turns
    done >/tmp/load 2>&1) </dev/null >/dev/null 2>&1 &"#;

/// How long the cable is out.
const PULLED: std::time::Duration = std::time::Duration::from_secs(20);

/// Nodes wait while the cable is out, and while the adapter itself is; then they go on.
fn pulled_cable(server: &TestServer, switch: &Switch, name: &str) {
    let turns = || on(server, name, "wc -l </tmp/turns").trim().parse::<u32>().unwrap();
    on(server, name, LOAD);
    until("the load", SOON, || (turns() > 2).then_some(()));
    switch.netns.run(&["ip", "link", "set", UPLINK, "down"]);
    // This time is the subject of the test.
    std::thread::sleep(PULLED);
    switch.netns.run(&["ip", "link", "set", UPLINK, "up"]);
    let before = turns();
    until("the node to go on", SOON, || (turns() > before + 2).then_some(()));
    switch.disconnect();
    until("the server to notice", SOON, || {
        let status = server.api(None).get("/api/v1/status").json();
        status["cable"]["problem"].is_string().then_some(())
    });
    switch.connect();
    let before = turns();
    until("the node to go on after its adapter came back", SOON, || (turns() > before + 2).then_some(()));
    on(server, name, "touch /tmp/stop");
    assert_eq!(on(server, name, "cat /tmp/load"), "");
    assert_eq!(on(server, name, "dmesg | grep -i -e 'error' -e 'timed out' | grep -v -i acpi; true"), "");
    until("the node link", SOON, || (booted(server, name) == "yes").then_some(()));
}

#[test]
fn a_machine_that_is_plugged_in_becomes_a_node() {
    let switch = Switch::new();
    let server =
        server_with_default(Options { raw_device: Some(switch.cable.clone()), ..Options::default() });
    let station = Station::with_bios(&server, Some(&switch), 1, "ACME");
    let name = station.booted(&server, station::PC);
    let line = on(&server, &name, "cat /proc/cmdline");
    assert!(line.contains(&format!("/var/lib/walt/nodes/{}/fs", station.mac)), "{line}");
    assert!(line.contains(&format!(":{name}::off BOOTIF=01-{}", station.mac.replace(':', "-"))), "{line}");
    assert_eq!(on(&server, &name, "uname -n"), format!("{name}\n"));
    pulled_cable(&server, &switch, &name);
    hooks(&server, &name);
    // It is a node as any other: an order reboots it, by its own means, and by force when its hook fails.
    let first = boot_id(&server, &name);
    server.walt(USER, &["node", "reboot", &name]).ok();
    assert_ne!(booted(&server, &name), "yes", "the node has still to boot");
    until("the ordered boot", SOON + BOOT, || {
        let ran = server.walt(USER, &["node", "run", &name, "cat /proc/sys/kernel/random/boot_id"]);
        (ran.status == Some(0) && ran.out != first).then_some(())
    });
    let told = "the node reboots by force: /bin/walt-network-reboot failed (status 5)";
    let status = server.server_command(&["status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains(told), "{status:?}");
    forgotten_and_restored(&server, &station, &name);
}

/// A node that is forgotten while it runs reboots, as a new one; restored, it reboots as the one that it was.
fn forgotten_and_restored(server: &TestServer, station: &Station, name: &str) {
    on(server, name, "echo kept >/persist/kept && sync");
    server.walt(USER, &["node", "rename", name, "apu1"]).ok();
    server.walt(USER, &["node", "forget", "-y", "apu1"]).ok();
    let new = station.booted(server, station::PC);
    assert_eq!((new.as_str(), on(server, &new, "ls /persist").as_str()), (name, ""));
    server.walt(USER, &["device", "restore", "-y", "apu1"]).ok();
    assert_ne!(booted(server, "apu1"), "yes", "the node has still to boot");
    wait(server, "apu1");
    assert_eq!(on(server, "apu1", "uname -n; cat /persist/kept"), "apu1\nkept\n");
}

#[test]
fn a_machine_with_uefi_becomes_a_node() {
    if !station::has(&[(OVMF_CODE, "ovmf"), (UEFI_LOADER, "ipxe")]) {
        return;
    }
    // The whole Debian: firmware, loader, kernel, systemd.
    let server = TestServer::start_with_images(&[DEFAULT]);
    let station = Station::with_uefi(&server, 2, &[]);
    let name = station.booted(&server, station::PC);
    assert_eq!(on(&server, &name, "ls -d /sys/firmware/efi"), "/sys/firmware/efi\n");
}
