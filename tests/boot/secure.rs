//! Secure Boot: firmware that only runs what is signed, on a machine that the server did not start.

use super::road::server_with_default;
use super::station::{self, Station, mac};
use super::{BOOT, MINI, SOON, USER, on};
use std::os::unix::fs::FileExt;
use std::process::Command;
use walt_testkit::{Newcomer, Options, TestServer, images, newcomer, until};

/// Firmware that has Microsoft's keys and checks signatures: Debian package `ovmf`. Its variables: the next one.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// What is signed, and the Debian package that has it.
const SIGNED: [(&str, &str); 2] = [
    ("/usr/lib/shim/shimx64.efi.signed", "shim-signed"),
    ("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grub-efi-amd64-signed"),
];
/// Number of the station.
const NUMBER: u8 = 3;
/// A place in the compressed part of a kernel, in bytes.
const TAMPERED_AT: u64 = 3_000_000;

/// Makes the station a node, as its administrator would who knows that its firmware runs no iPXE.
fn register(server: &TestServer) {
    let newcomer = Newcomer::plug(server, NUMBER);
    newcomer.netns().run(&["ip", "link", "set", newcomer::INTERFACE, "address", &mac(NUMBER)]);
    let words =
        ["udhcpc", "-f", "-n", "-q", "-t", "10", "-V", "walt.node.pc-x86-64", "-s", "/bin/true", "-i"];
    let asked = newcomer.run("busybox", &[&words[..], &[newcomer::INTERFACE]].concat());
    assert!(asked.status.success(), "{asked:?}");
}

/// The small image, with a kernel that somebody has changed.
fn import_tampered(server: &TestServer) {
    let (mini, tampered) = (images::built(MINI), server.dir().join("tampered"));
    std::fs::create_dir(&tampered).unwrap();
    for file in ["rootfs.tar", "config.json"] {
        std::fs::copy(mini.join(file), tampered.join(file)).unwrap();
    }
    std::fs::create_dir_all(tampered.join("boot/pc-x86-64")).unwrap();
    let kernel = tampered.join("boot/pc-x86-64/kernel");
    std::fs::copy(images::kernel(MINI).image, &kernel).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&kernel).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, TAMPERED_AT).unwrap();
    file.write_all_at(&[byte[0] ^ 1], TAMPERED_AT).unwrap();
    let replace =
        "tar --delete -f rootfs.tar ./boot/pc-x86-64/kernel && tar -rf rootfs.tar ./boot/pc-x86-64/kernel";
    let replaced = Command::new("sh").args(["-c", replace]).current_dir(&tampered).status().unwrap();
    assert!(replaced.success());
    server.import("tampered", &tampered);
}

#[test]
fn what_is_signed_boots_and_nothing_else() {
    for (file, package) in SIGNED.into_iter().chain([(OVMF_CODE, "ovmf")]) {
        if !std::path::Path::new(file).exists() {
            eprintln!("skipped: {file} is not there (Debian package {package})");
            return;
        }
    }
    let server = server_with_default(Options::default());
    register(&server);
    let name = server.walt(USER, &["node", "show", "--all", "--names-only"]).ok();
    let name = name.trim();
    server.walt(USER, &["node", "config", name, "boot.secure=true"]).ok();
    let refused = server.walt(USER, &["node", "config", name, "disks=1G"]);
    refused.fails(1, &format!("'disks' applies to virtual nodes only, and {name} is a physical one"));

    let station = Station::with_secure_boot(&server, NUMBER, OVMF_CODE, OVMF_VARS);
    assert_eq!(station.booted(&server, station::PC), name);
    let log = on(&server, name, "dmesg");
    assert!(log.contains("Secure boot enabled"), "{log}");
    // What the boot scripts say for this make of machine.
    let line = on(&server, name, "cat /proc/cmdline");
    assert!(
        line.contains("tsc=reliable")
            && line.contains(&format!("BOOTIF=01-{}", mac(NUMBER).replace(':', "-"))),
        "{line}"
    );

    import_tampered(&server);
    server.walt(USER, &["image", "clone", "walt:waltplatform/tampered"]).ok();
    server.walt(USER, &["node", "boot", name, "tampered"]).ok();
    until("the refusal of a kernel that was changed", SOON + BOOT, || {
        let console = station.console();
        let (_, after) = console.split_once("bad shim signature")?;
        after.contains("it must be signed").then_some(())
    });
    assert_ne!(super::booted(&server, name), "yes");
}
