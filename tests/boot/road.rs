//! The netboot road: firmware, DHCP, iPXE, HTTP. What is booted must not depend on the road.

use super::{BOOT, SOON, USER, booted, on, wait};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use walt_testkit::{TestServer, images, until};

const MINI: &str = "pc-x86-64-mini";
/// The image of machines that nobody has given one.
const DEFAULT: &str = "pc-x86-64-default";
/// Lines of a machine's console that are shown when a test fails.
const CONSOLE_LINES: usize = 60;
/// UEFI firmware: Debian package `ovmf`.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE.fd";
/// Its variables.
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS.fd";
/// Loader for UEFI: Debian package `ipxe`.
const UEFI_LOADER: &str = "/usr/lib/ipxe/snponly.efi";

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

/// A machine that the server did not start, on a cable of its own in the server's bridge. It ends with the test, and
/// so does its cable.
struct Station {
    qemu: Child,
    mac: String,
    console: PathBuf,
}

impl Station {
    /// Plugs it in and switches it on; `firmware` are the arguments of qemu that choose it. A node whose `maker` is
    /// QEMU is virtual in its own eyes.
    fn start(server: &TestServer, number: u8, maker: &str, firmware: &[&str]) -> Self {
        let path = |name: &str| server.dir().join(format!("station{number}.{name}"));
        let script = path("sh");
        let plug = format!("#!/bin/sh\nexec ip link set \"$1\" master {} up\n", server.bridge());
        std::fs::write(&script, plug).unwrap();
        let executable = Command::new("chmod").arg("755").arg(&script).status().unwrap();
        assert!(executable.success());
        let mac = format!("52:54:00:0a:0b:{number:02x}");
        let tap = format!("{}-{number}", server.bridge());
        let netdev = format!("tap,id=net0,ifname={tap},script={},downscript=no", script.display());
        let (console, messages) = (path("console"), std::fs::File::create(path("qemu")).unwrap());
        // The kernel ends it when this thread ends, however that comes.
        let qemu = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config"])
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512M", "-display", "none"])
            .args([
                "-smbios",
                &format!("type=1,manufacturer={maker},product=Standard PC (i440FX + PIIX,, 1996)"),
            ])
            .args(["-netdev", &netdev, "-boot", "reboot-timeout=5000", "-serial"])
            .arg(format!("file:{}", console.display()))
            .args(firmware)
            .args(["-device", &format!("{},netdev=net0,mac={mac},bootindex=1", card(firmware))])
            .stdin(Stdio::null())
            .stdout(messages.try_clone().unwrap())
            .stderr(messages)
            .spawn()
            .expect("qemu can be started");
        Self { qemu, mac, console }
    }

    /// Waits until the server knows it, and it has booted; its name.
    fn booted(&self, server: &TestServer) -> String {
        let node = until("the machine to become a node", BOOT, || {
            let list = server.api(None).get("/api/v1/nodes").json();
            list["nodes"].as_array().unwrap().iter().find(|n| n["mac"] == self.mac.as_str()).cloned()
        });
        let name = node["name"].as_str().unwrap().to_owned();
        assert_eq!((&node["virtual"], node["model"].as_str()), (&false.into(), Some("pc-x86-64")), "{node}");
        wait(server, &name);
        name
    }
}

/// A card that many PCs have, with a ROM for BIOS; for UEFI one that the firmware itself can drive, so that its own PXE
/// is seen.
fn card(firmware: &[&str]) -> &'static str {
    if firmware.contains(&"q35") { "virtio-net-pci,romfile=" } else { "e1000" }
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            let text =
                String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- console of {}", self.mac);
            lines[lines.len().saturating_sub(CONSOLE_LINES)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
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
fn server_with_default() -> TestServer {
    let mini = images::built(MINI);
    let server = TestServer::start();
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
}

#[test]
fn a_machine_that_is_plugged_in_becomes_a_node() {
    let server = server_with_default();
    let station = Station::start(&server, 1, "ACME", &["-machine", "pc,graphics=off"]);
    let name = station.booted(&server);
    let line = on(&server, &name, "cat /proc/cmdline");
    assert!(line.contains(&format!("/var/lib/walt/nodes/{}/fs", station.mac)), "{line}");
    assert!(line.contains(&format!(":{name}::off BOOTIF=01-{}", station.mac.replace(':', "-"))), "{line}");
    assert_eq!(on(&server, &name, "uname -n"), format!("{name}\n"));
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
    let new = station.booted(server);
    assert_eq!((new.as_str(), on(server, &new, "ls /persist").as_str()), (name, ""));
    server.walt(USER, &["device", "restore", "-y", "apu1"]).ok();
    assert_ne!(booted(server, "apu1"), "yes", "the node has still to boot");
    wait(server, "apu1");
    assert_eq!(on(server, "apu1", "uname -n; cat /persist/kept"), "apu1\nkept\n");
}

#[test]
fn a_machine_with_uefi_becomes_a_node() {
    for (file, package) in [(OVMF_CODE, "ovmf"), (UEFI_LOADER, "ipxe")] {
        if !std::path::Path::new(file).exists() {
            eprintln!("skipped: {file} is not there (Debian package {package})");
            return;
        }
    }
    // The whole Debian: firmware, loader, kernel, systemd.
    let server = TestServer::start_with_images(&[DEFAULT]);
    let variables = server.dir().join("ovmf-variables");
    std::fs::copy(OVMF_VARS, &variables).unwrap();
    let code = format!("if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}");
    let variables = format!("if=pflash,format=raw,unit=1,file={}", variables.display());
    let firmware = ["-machine", "q35", "-drive", &code, "-drive", &variables];
    let station = Station::start(&server, 2, "QEMU", &firmware);
    let name = station.booted(&server);
    assert_eq!(on(&server, &name, "ls -d /sys/firmware/efi"), "/sys/firmware/efi\n");
}
