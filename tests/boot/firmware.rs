//! Firmware of all kinds, up to a booted node: UEFI by HTTP, arm64 with U-Boot and with UEFI.

use super::on;
use crate::road::{UEFI_LOADER, server_with_default};
use crate::station::{self, AAVMF_CODE, OVMF_CODE, QEMU_ARM64, Station, UBOOT};
use walt_testkit::{Options, TestServer};

/// UEFI firmware offers PXE before HTTP; these arguments of qemu leave HTTP.
const ONLY_HTTP: [&str; 4] = [
    "-fw_cfg",
    "name=opt/org.tianocore/IPv4PXESupport,string=n",
    "-fw_cfg",
    "name=opt/org.tianocore/IPv6PXESupport,string=n",
];
/// The image of arm64 machines.
const ARM64: &str = "rpi64-default";

#[test]
fn a_pc_with_uefi_boots_by_http() {
    if !station::has(&[(OVMF_CODE, "ovmf"), (UEFI_LOADER, "ipxe")]) {
        return;
    }
    let server = server_with_default(Options::default());
    let station = Station::with_uefi(&server, 1, &ONLY_HTTP);
    let name = station.booted(&server, station::PC);
    assert_eq!(on(&server, &name, "ls -d /sys/firmware/efi"), "/sys/firmware/efi\n");
    let console = station.console();
    assert!(console.contains("HTTP Boot over IPv4") && !console.contains("PXE over IPv4"), "{console}");
}

/// What the other tests leave out of images and roads: the whole Debian by a BIOS and by UEFI over HTTP, the small image by
/// UEFI over PXE.
#[test]
fn images_and_roads_that_others_leave_out() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: other images and roads of PCs; WALT_TEST_LONG=1 asks for it");
        return;
    }
    let server = TestServer::start_with_images(&["pc-x86-64-default"]);
    let station = Station::with_bios(&server, None, 1, "ACME");
    let name = station.booted(&server, station::PC);
    assert_eq!(
        on(&server, &name, "cat /proc/1/comm; ls -d /sys/firmware/efi 2>&1 | grep -c 'No such'"),
        "systemd\n1\n"
    );
    drop(station);
    let station = Station::with_uefi(&server, 2, &ONLY_HTTP);
    let name = station.booted(&server, station::PC);
    assert_eq!(
        on(&server, &name, "cat /proc/1/comm; ls -d /sys/firmware/efi"),
        "systemd\n/sys/firmware/efi\n"
    );
    let console = station.console();
    assert!(console.contains("HTTP Boot over IPv4"), "{console}");
    drop(station);
    let small = server_with_default(Options::default());
    let station = Station::with_uefi(&small, 3, &[]);
    let name = station.booted(&small, station::PC);
    assert_eq!(on(&small, &name, "ls -d /sys/firmware/efi"), "/sys/firmware/efi\n");
    let console = station.console();
    assert!(console.contains("PXE over IPv4"), "{console}");
}

/// A board whose U-Boot says `walt.node.<model>` runs `start.uboot` of its image; UEFI runs `start.efi`.
#[test]
fn arm64_machines_boot() {
    if !station::has(&[
        (QEMU_ARM64, "qemu-system-arm"),
        (UBOOT, "u-boot-qemu"),
        (AAVMF_CODE, "qemu-efi-aarch64"),
    ]) {
        return;
    }
    let server = TestServer::start_with_images(&[ARM64]);
    {
        let board = Station::with_uboot(&server, 1);
        board.type_at("Hit any key to stop autoboot", "");
        // qemu's board is none of the image's: its device tree is the one that U-Boot has.
        board.type_at(
            "=> ",
            "setenv bootp_vci walt.node.rpi-4-b; setenv preserve_dtb 1; setenv autoload no; \
             dhcp && tftpboot ${scriptaddr} start.uboot && source ${scriptaddr}",
        );
        let name = board.booted(&server, "rpi-4-b");
        let line = on(&server, &name, "cat /proc/cmdline");
        assert!(
            line.contains("walt.node.model=rpi-4-b") && line.contains(" BOOTIF=01-52-54-00-0a-0b-01 "),
            "{line}"
        );
        assert!(on(&server, &name, "cat /proc/device-tree/compatible").contains("linux,dummy-virt"));
    }
    let machine = Station::with_arm64_uefi(&server, 2, &[]);
    let name = machine.booted(&server, "uefi-arm64");
    assert_eq!(
        on(&server, &name, "uname -m; ls -d /sys/firmware/efi; uname -n"),
        format!("aarch64\n/sys/firmware/efi\n{name}\n")
    );
}
