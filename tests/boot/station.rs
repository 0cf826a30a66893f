//! Machines that the server did not start: qemu with a firmware of its own, on a cable of its own in the server's bridge.

use super::{BOOT, SOON, wait};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use walt_testkit::{Netns, TestServer, until};

/// Model of PCs.
pub const PC: &str = "pc-x86-64";
/// UEFI firmware for PCs: Debian package `ovmf`.
pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE.fd";
/// Its variables.
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS.fd";
/// UEFI firmware for arm64: Debian package `qemu-efi-aarch64`.
pub const AAVMF_CODE: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";
/// Its variables.
const AAVMF_VARS: &str = "/usr/share/AAVMF/AAVMF_VARS.fd";
/// U-Boot for qemu's arm64 board: Debian package `u-boot-qemu`.
pub const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
/// Emulator of arm64 machines: Debian package `qemu-system-arm`.
pub const QEMU_ARM64: &str = "/usr/bin/qemu-system-aarch64";
/// Bridge of a switch at the other end of the server's cable.
pub const SWITCH: &str = "switch";
/// Lines of a machine's console that are shown when a test fails.
const CONSOLE_LINES: usize = 60;
/// A card that many PCs have, with a ROM for BIOS.
const CARD_WITH_ROM: &str = "e1000";
/// One that UEFI firmware and U-Boot can drive themselves, so that their own network boot is seen. U-Boot misreads the
/// address of the older kind of device.
const CARD_WITHOUT_ROM: &str = "virtio-net-pci,romfile=,disable-legacy=on";

/// Whether all these files are there; if not, it says that the test skips, and the Debian package.
pub fn has(files: &[(&str, &str)]) -> bool {
    let missing = files.iter().find(|(file, _)| !Path::new(file).exists());
    if let Some((file, package)) = missing {
        eprintln!("skipped: {file} is not there (Debian package {package})");
    }
    missing.is_none()
}

/// A bridge in a namespace of its own, and a cable from it to an interface of this machine.
pub struct Switch {
    /// Its namespace.
    pub netns: Netns,
    /// The interface at this machine's end.
    pub cable: String,
}

/// The switch's end of the cable.
pub const UPLINK: &str = "uplink";

impl Switch {
    /// A switch, connected.
    pub fn new() -> Self {
        let netns = Netns::new();
        netns.run(&["ip", "link", "add", SWITCH, "type", "bridge", "forward_delay", "0"]);
        netns.run(&["ip", "link", "set", SWITCH, "up"]);
        let switch = Self { netns, cable: format!("wc{}", std::process::id()) };
        switch.connect();
        switch
    }

    /// Plugs in the adapter with the cable.
    pub fn connect(&self) {
        let name = self.netns.path();
        let name = name.file_name().unwrap().to_str().unwrap();
        let made = Command::new("ip")
            .args(["link", "add", &self.cable, "type", "veth", "peer", "name", UPLINK, "netns", name])
            .status()
            .unwrap();
        assert!(made.success());
        self.netns.run(&["ip", "link", "set", UPLINK, "master", SWITCH, "up"]);
    }

    /// Pulls out the adapter.
    pub fn disconnect(&self) {
        let gone = Command::new("ip").args(["link", "delete", &self.cable]).status().unwrap();
        assert!(gone.success());
    }
}

/// A machine. It ends with the test, and so does its cable.
pub struct Station {
    qemu: Child,
    /// Its Ethernet address.
    pub mac: String,
    console: PathBuf,
    keyboard: PathBuf,
}

impl Station {
    /// A PC with a BIOS, plugged into the switch if one is given. A node whose `maker` is QEMU is virtual in its own eyes.
    pub fn with_bios(server: &TestServer, switch: Option<&Switch>, number: u8, maker: &str) -> Self {
        Self::start(server, switch, number, "qemu-system-x86_64", CARD_WITH_ROM, |qemu| {
            qemu.args(["-cpu", "max", "-machine", "pc,graphics=off", "-smbios", &product(maker)]);
        })
    }

    /// A PC with UEFI, and more arguments of qemu.
    pub fn with_uefi(server: &TestServer, number: u8, more: &[&str]) -> Self {
        Self::start(server, None, number, "qemu-system-x86_64", CARD_WITHOUT_ROM, |qemu| {
            qemu.args(["-cpu", "max", "-machine", "q35", "-smbios", &product("QEMU")]).args(more);
            flash(qemu, server, number, OVMF_CODE, OVMF_VARS);
        })
    }

    /// A PC with UEFI that only runs what is signed: this firmware and its variables, which only it can change.
    pub fn with_secure_boot(server: &TestServer, number: u8, code: &str, variables: &str) -> Self {
        Self::start(server, None, number, "qemu-system-x86_64", CARD_WITHOUT_ROM, |qemu| {
            qemu.args(["-cpu", "max", "-machine", "q35,smm=on", "-smbios", &product("ACME")]);
            qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            flash(qemu, server, number, code, variables);
        })
    }

    /// An arm64 machine with UEFI, and more arguments of qemu.
    pub fn with_arm64_uefi(server: &TestServer, number: u8, more: &[&str]) -> Self {
        Self::start(server, None, number, QEMU_ARM64, CARD_WITHOUT_ROM, |qemu| {
            qemu.args(["-cpu", "cortex-a72", "-machine", "virt"]).args(more);
            flash(qemu, server, number, AAVMF_CODE, AAVMF_VARS);
        })
    }

    /// An arm64 board with U-Boot.
    pub fn with_uboot(server: &TestServer, number: u8) -> Self {
        Self::start(server, None, number, QEMU_ARM64, CARD_WITHOUT_ROM, |qemu| {
            qemu.args(["-cpu", "cortex-a72", "-machine", "virt", "-bios", UBOOT]);
        })
    }

    /// Plugs it in and switches it on; `machine` adds what distinguishes it.
    fn start(
        server: &TestServer,
        switch: Option<&Switch>,
        number: u8,
        program: &str,
        card: &str,
        machine: impl FnOnce(&mut Command),
    ) -> Self {
        let path = |name: &str| path_of(server, number, name);
        let script = path("sh");
        let bridge = switch.map_or_else(|| server.bridge(), |_| SWITCH.to_owned());
        let plug = format!("#!/bin/sh\nexec ip link set \"$1\" master {bridge} up\n");
        std::fs::write(&script, plug).unwrap();
        let executable = Command::new("chmod").arg("755").arg(&script).status().unwrap();
        assert!(executable.success());
        let mac = mac(number);
        let tap = format!("{}-{number}", server.bridge());
        let netdev = format!("tap,id=net0,ifname={tap},script={},downscript=no", script.display());
        let (console, keyboard) = (path("console"), path("keyboard"));
        let messages = std::fs::File::create(path("qemu")).unwrap();
        let serial = format!(
            "socket,id=serial,path={},server=on,wait=off,logfile={}",
            keyboard.display(),
            console.display()
        );
        // The kernel ends it when this thread ends, however that comes.
        let mut words = switch.map_or_else(Vec::new, |switch| switch.netns.wrapper());
        words.push("setpriv".into());
        let mut qemu = Command::new(&words[0]);
        qemu.args(&words[1..])
            .args(["--pdeathsig", "KILL", program, "-nodefaults", "-no-user-config"])
            .args(["-accel", "tcg", "-smp", "2", "-m", "512M", "-display", "none"])
            .args(["-netdev", &netdev, "-chardev", &serial, "-serial", "chardev:serial"]);
        machine(&mut qemu);
        if card == CARD_WITH_ROM {
            qemu.args(["-boot", "reboot-timeout=5000"]);
        }
        let qemu = qemu
            .args(["-device", &format!("{card},netdev=net0,mac={mac},bootindex=1")])
            .stdin(Stdio::null())
            .stdout(messages.try_clone().unwrap())
            .stderr(messages)
            .spawn()
            .expect("qemu can be started");
        Self { qemu, mac, console, keyboard }
    }

    /// What it has written to its serial port.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Types a line on its serial port once it has written `prompt`. It may write little until the line is typed: nobody
    /// reads it here.
    pub fn type_at(&self, prompt: &str, line: &str) {
        until(&format!("{prompt:?} on the console"), SOON, || self.console().contains(prompt).then_some(()));
        let mut keyboard = UnixStream::connect(&self.keyboard).expect("qemu listens");
        keyboard.write_all(format!("{line}\r").as_bytes()).unwrap();
        // The end of what was typed has come back: all of it has arrived.
        let end = &line[line.len().saturating_sub(8)..];
        until("the typed line on the console", SOON, || self.console().contains(end).then_some(()));
    }

    /// Waits until the server knows it as a node of this model, and it has booted; its name.
    pub fn booted(&self, server: &TestServer, model: &str) -> String {
        let node = until("the machine to become a node", BOOT, || {
            let list = server.api(None).get("/api/v1/nodes").json();
            list["nodes"].as_array().unwrap().iter().find(|n| n["mac"] == self.mac.as_str()).cloned()
        });
        let name = node["name"].as_str().unwrap().to_owned();
        assert_eq!((&node["virtual"], node["model"].as_str()), (&false.into(), Some(model)), "{node}");
        wait(server, &name);
        name
    }
}

/// The Ethernet address of a station.
pub fn mac(number: u8) -> String {
    format!("52:54:00:0a:0b:{number:02x}")
}

fn path_of(server: &TestServer, number: u8, name: &str) -> PathBuf {
    server.dir().join(format!("station{number}.{name}"))
}

fn product(maker: &str) -> String {
    format!("type=1,manufacturer={maker},product=Standard PC (i440FX + PIIX,, 1996)")
}

/// Firmware with variables of its own.
fn flash(qemu: &mut Command, server: &TestServer, number: u8, code: &str, variables: &str) {
    let own = path_of(server, number, "variables");
    std::fs::copy(variables, &own).unwrap();
    qemu.args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={code}")])
        .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", own.display())]);
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            let text = self.console();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- console of {}", self.mac);
            lines[lines.len().saturating_sub(CONSOLE_LINES)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
