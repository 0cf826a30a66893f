//! The command line of qemu: pure.

use crate::{Error, Result, failed};
use std::process::{Command, Stdio};
use walt_types::Mac;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Manufacturer of the machine, in the guest's firmware tables and the iPXE variable.
pub const MANUFACTURER: &str = "QEMU";
/// Product name of the machine, in the guest's firmware tables and the iPXE variable.
pub const PRODUCT: &str = "Standard PC (i440FX + PIIX, 1996)";

/// What seccomp forbids qemu: old system calls, gaining privileges, starting programs, changing its scheduling.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// How long the firmware waits before it retries a failed boot, in milliseconds.
const RETRY_MS: u32 = 5000;
/// Number of the descriptor set through which qemu opens the console's log.
const LOG_FDSET: u32 = 1;
/// Number of the descriptor set of the first disk; the others follow.
const DISK_FDSET: usize = 10;
/// Product name of disks. The kernel of the guest calls them `/dev/sda` and so on.
const DISK_PRODUCT: &str = "QEMU-DISK";

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// By the processor.
    Kvm,
    /// By translation: works everywhere, several times slower.
    Tcg,
}

/// How the machine gets its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootMethod {
    /// qemu is given kernel and initrd, with this command line. A guest's reboot ends qemu: a mere reset would
    /// start the old kernel again.
    Direct {
        /// Command line of the guest's kernel.
        command_line: String,
    },
    /// From its network card, by the iPXE that qemu puts into it (package ipxe-qemu), like a physical machine. A
    /// guest's reboot boots again, in the same qemu.
    Pxe,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Name of the node.
    pub name: String,
    /// Identity of this start of the machine; see [`crate::new_uuid`].
    pub uuid: String,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cores: u32,
    /// Manufacturer in the firmware's tables, usually [`MANUFACTURER`].
    pub manufacturer: String,
    /// Product in the firmware's tables, usually [`PRODUCT`].
    pub product: String,
    /// How it gets its kernel.
    pub boot: BootMethod,
    /// How it is run.
    pub acceleration: Acceleration,
}

/// Numbers of the descriptors that qemu inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// The kernel, readable by qemu's account; for [`BootMethod::Direct`].
    pub kernel: Option<i32>,
    /// The initrd, likewise.
    pub initrd: Option<i32>,
    /// The taps of the network cards in order, each with its card's Ethernet address. The machine boots from the first.
    pub cards: Vec<(Mac, i32)>,
    /// The console's log, open for appending.
    pub log: i32,
    /// A listening unix socket for typing.
    pub console: i32,
    /// A listening unix socket for QMP.
    pub qmp: i32,
    /// The disks in order, open for reading and writing, each with its serial number.
    pub disks: Vec<(String, i32)>,
}

/// The arguments of qemu, without the program's name.
pub fn command_line(spec: &VmSpec, fds: &Descriptors) -> Vec<String> {
    let mut line: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| line.extend([option.to_owned(), value]);
    add("-name", format!("guest={}", escape(&spec.name)));
    add("-uuid", spec.uuid.clone());
    // Without a graphics card, the firmware and iPXE write to the serial port then.
    let console = if spec.boot == BootMethod::Pxe { ",graphics=off" } else { "" };
    // Guests of one image have much in common: KSM may merge it.
    add("-machine", format!("pc,usb=off,vmport=off,mem-merge=on{console}"));
    match spec.acceleration {
        Acceleration::Kvm => add("-accel", "kvm".into()),
        Acceleration::Tcg => add("-accel", "tcg".into()),
    }
    add("-cpu", if spec.acceleration == Acceleration::Kvm { "host" } else { "max" }.into());
    add("-smp", spec.cores.to_string());
    add("-m", format!("{}M", spec.memory_mib));
    let (manufacturer, product) = (escape(&spec.manufacturer), escape(&spec.product));
    add("-smbios", format!("type=1,manufacturer={manufacturer},product={product}"));
    add("-sandbox", SANDBOX.into());
    add("-display", "none".into());
    add("-rtc", "base=utc".into());
    // The log is opened by qemu through the set, since it may not open the server's files.
    add("-add-fd", format!("fd={},set={LOG_FDSET}", fds.log));
    add(
        "-chardev",
        format!(
            "socket,id=console,fd={},server=on,wait=off,logfile=/dev/fdset/{LOG_FDSET},logappend=on",
            fds.console
        ),
    );
    add("-serial", "chardev:console".into());
    add("-chardev", format!("socket,id=qmp,fd={},server=on,wait=off", fds.qmp));
    add("-mon", "chardev=qmp,mode=control".into());
    for (number, (mac, tap)) in fds.cards.iter().enumerate() {
        add("-netdev", format!("tap,id=net{number},fd={tap}"));
        let rom = match spec.boot {
            BootMethod::Pxe if number == 0 => "bootindex=1",
            // No option ROM: the kernel is given, or nothing boots from this card.
            _ => "romfile=",
        };
        add("-device", format!("virtio-net-pci,netdev=net{number},mac={mac},{rom}"));
    }
    add_disks(&mut add, &fds.disks);
    add("-object", "rng-random,id=rng0,filename=/dev/urandom".into());
    add("-device", "virtio-rng-pci,rng=rng0".into());
    // The guest reports pages that it has freed, and qemu gives them back to the server.
    add("-device", "virtio-balloon-pci,free-page-reporting=on".into());
    match &spec.boot {
        BootMethod::Direct { command_line } => {
            if let Some(kernel) = fds.kernel {
                add("-kernel", format!("/proc/self/fd/{kernel}"));
            }
            if let Some(initrd) = fds.initrd {
                add("-initrd", format!("/proc/self/fd/{initrd}"));
            }
            add("-append", command_line.clone());
            line.push("-no-reboot".to_owned());
        }
        BootMethod::Pxe => add("-boot", format!("strict=on,reboot-timeout={RETRY_MS}")),
    }
    line.extend(["-nodefaults", "-no-user-config"].map(str::to_owned));
    line
}

/// Disks on one SCSI controller. What the guest writes is in the server's page cache, which outlives qemu and the
/// walt-server, and a guest's flush syncs the file. What the guest discards becomes a hole. An error of the server's
/// disk, such as a full one, is an error of the guest's: it is not stopped.
fn add_disks(add: &mut impl FnMut(&str, String), disks: &[(String, i32)]) {
    if disks.is_empty() {
        return;
    }
    add("-device", "virtio-scsi-pci,id=scsi0".into());
    for (number, (serial, fd)) in disks.iter().enumerate() {
        let set = DISK_FDSET + number;
        add("-add-fd", format!("fd={fd},set={set}"));
        let cache = "cache.direct=off,cache.no-flush=off,discard=unmap";
        add(
            "-blockdev",
            format!("driver=file,node-name=file{number},filename=/dev/fdset/{set},read-only=off,{cache}"),
        );
        add(
            "-blockdev",
            format!(
                "driver=raw,node-name=disk{number},file=file{number},read-only=off,{cache},detect-zeroes=off"
            ),
        );
        add(
            "-device",
            format!(
                "scsi-hd,bus=scsi0.0,scsi-id={number},drive=disk{number},product={DISK_PRODUCT},serial={serial},\
                 write-cache=on,rerror=report,werror=report"
            ),
        );
    }
}

/// A comma ends a value unless it is doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// The version that qemu reports, such as `QEMU emulator version 7.2.22 (Debian …)`.
///
/// # Errors
/// When the program cannot be run (package `qemu-system-x86`).
pub fn version(program: &str) -> Result<String> {
    let run = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = run.map_err(failed(format!("run {program} (package qemu-system-x86)")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() && !line.is_empty() => Ok(line.trim().to_owned()),
        _ => Err(Error::NotStarted(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            name: "vn1".into(),
            uuid: "12345678-1234-4234-8234-123456789abc".into(),
            memory_mib: 512,
            cores: 2,
            manufacturer: MANUFACTURER.into(),
            product: PRODUCT.into(),
            boot: BootMethod::Direct { command_line: "console=ttyS0 a=b,c".into() },
            acceleration: Acceleration::Tcg,
        }
    }

    const FDS: Descriptors = Descriptors {
        kernel: Some(10),
        initrd: Some(11),
        cards: Vec::new(),
        log: 13,
        console: 14,
        qmp: 15,
        disks: Vec::new(),
    };

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn fds() -> Descriptors {
        Descriptors { cards: vec![(MAC, 12)], ..FDS }
    }

    /// Options and values in pairs, one a line.
    fn shown(line: &[String]) -> String {
        let mut out = String::new();
        for word in line {
            let separator = if word.starts_with('-') { "\n" } else { " " };
            out += &format!("{separator}{word}");
        }
        out.trim_start().to_owned()
    }

    #[test]
    fn the_command_line_is_as_reviewed() {
        assert_eq!(
            shown(&command_line(&spec(), &fds())),
            "-name guest=vn1
-uuid 12345678-1234-4234-8234-123456789abc
-machine pc,usb=off,vmport=off,mem-merge=on
-accel tcg
-cpu max
-smp 2
-m 512M
-smbios type=1,manufacturer=QEMU,product=Standard PC (i440FX + PIIX,, 1996)
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-display none
-rtc base=utc
-add-fd fd=13,set=1
-chardev socket,id=console,fd=14,server=on,wait=off,logfile=/dev/fdset/1,logappend=on
-serial chardev:console
-chardev socket,id=qmp,fd=15,server=on,wait=off
-mon chardev=qmp,mode=control
-netdev tap,id=net0,fd=12
-device virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile=
-object rng-random,id=rng0,filename=/dev/urandom
-device virtio-rng-pci,rng=rng0
-device virtio-balloon-pci,free-page-reporting=on
-kernel /proc/self/fd/10
-initrd /proc/self/fd/11
-append console=ttyS0 a=b,c
-no-reboot
-nodefaults
-no-user-config"
        );
    }

    #[test]
    fn a_machine_that_boots_from_its_card() {
        let second = Mac([2, 0, 0, 0, 0, 1]);
        let cards = vec![(MAC, 12), (second, 17)];
        let fds = Descriptors { kernel: None, initrd: None, cards, ..FDS };
        let line = shown(&command_line(&VmSpec { boot: BootMethod::Pxe, ..spec() }, &fds));
        for part in [
            "-machine pc,usb=off,vmport=off,mem-merge=on,graphics=off\n",
            "mac=52:54:00:12:34:56,bootindex=1\n",
            "\n-netdev tap,id=net1,fd=17\n-device virtio-net-pci,netdev=net1,mac=02:00:00:00:00:01,romfile=\n",
            "-boot strict=on,reboot-timeout=5000\n",
        ] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        // Its own reboot stays in it.
        assert!(!line.contains("-no-reboot") && !line.contains("-kernel"), "{line}");
    }

    #[test]
    fn disks_are_on_one_controller() {
        let fds = Descriptors { disks: vec![("sda".into(), 16), ("sdb".into(), 17)], ..FDS };
        let line = shown(&command_line(&spec(), &fds));
        assert!(
            line.contains(
                "
-device virtio-scsi-pci,id=scsi0
-add-fd fd=16,set=10
-blockdev driver=file,node-name=file0,filename=/dev/fdset/10,read-only=off,cache.direct=off,cache.no-flush=off,discard=unmap
-blockdev driver=raw,node-name=disk0,file=file0,read-only=off,cache.direct=off,cache.no-flush=off,discard=unmap,detect-zeroes=off
-device scsi-hd,bus=scsi0.0,scsi-id=0,drive=disk0,product=QEMU-DISK,serial=sda,write-cache=on,rerror=report,werror=report
-add-fd fd=17,set=11
"
            ),
            "{line}"
        );
        assert!(line.contains("scsi-id=1,drive=disk1,product=QEMU-DISK,serial=sdb,"), "{line}");
    }

    #[test]
    fn kvm_and_a_machine_without_network() {
        let fds = Descriptors { initrd: None, ..FDS };
        let line = shown(&command_line(&VmSpec { acceleration: Acceleration::Kvm, ..spec() }, &fds));
        assert!(line.contains("-accel kvm\n-cpu host\n"), "{line}");
        assert!(!line.contains("-initrd") && !line.contains("net0"), "{line}");
    }
}
