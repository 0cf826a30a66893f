//! A real kernel in a real qemu, started, found again and ended by the crate walt-vnode alone, on a tap of a bridge in
//! a network namespace of its own.

use super::{BOOT, MINI, SOON};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use walt_sys::net::bridge::{self, BridgeSpec};
use walt_sys::net::{in_netns, link, mac_from_seed, new_netns, nft, tap};
use walt_sys::process::Cgroup;
use walt_testkit::{images, until};
use walt_types::Mac;
use walt_vnode::console::Keyboard;
use walt_vnode::disks::provide;
use walt_vnode::{
    Acceleration, Account, BootFiles, BootMethod, Card, Launch, Vm, VmSpec, adopt, launch, probe,
};

/// Another account than root, which may not read our files.
const NOBODY: Account = Account { uid: 65534, gid: 65534 };
/// Ethernet address of the machine.
const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// The tap that the reviewed rules name.
const TAP: &str = "wt87c9-123456";

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net; do
  [ -e /$m.ko ] && /bin/busybox insmod /$m.ko
done
/bin/busybox ifconfig eth0 192.168.183.2 netmask 255.255.255.0 up
/bin/busybox cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name /proc/cmdline
echo READY
exec /bin/busybox sh
";

fn kernel() -> File {
    File::open(images::kernel(MINI).image).unwrap()
}

/// An initramfs of busybox, the drivers of the network card, and a script.
fn initrd(dir: &Path) -> File {
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    std::fs::write(root.join("init"), INIT).unwrap();
    std::fs::set_permissions(root.join("init"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "cp $(command -v busybox) bin/ && mknod -m 600 dev/console c 5 1 && \
         find {} -name 'virtio*.ko' -o -name '*failover.ko' | xargs -r -I F cp F . && \
         find . | busybox cpio -o -H newc > ../initrd",
        images::kernel(MINI).modules.display()
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(&root).status().unwrap();
    assert!(made.success());
    // Closed to others, so that it must be handed over as a copy.
    std::fs::set_permissions(dir.join("initrd"), std::fs::Permissions::from_mode(0o600)).unwrap();
    File::open(dir.join("initrd")).unwrap()
}

fn spec() -> VmSpec {
    VmSpec {
        name: "vn1".into(),
        uuid: walt_vnode::new_uuid().unwrap(),
        memory_mib: 256,
        cores: 1,
        manufacturer: walt_vnode::MANUFACTURER.into(),
        product: walt_vnode::PRODUCT.into(),
        boot: BootMethod::Direct { command_line: "console=ttyS0 panic=5 walt.test=a,b".into() },
        acceleration: Acceleration::Tcg,
    }
}

fn text(vm: &Vm) -> String {
    String::from_utf8_lossy(&vm.console().tail(64 * 1024).unwrap()).into_owned()
}

fn tap_is_gone() -> Option<()> {
    link::get(TAP).unwrap().is_none().then_some(())
}

#[test]
fn a_machine_boots_is_adopted_and_ends() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let netns = new_netns().unwrap();
    let group = format!("walt/test-{}", std::process::id());
    in_netns(&netns, || {
        nft::apply(include_str!("../../crates/walt-core/src/firewall.snapshot"))?;
        let walt_net = BridgeSpec {
            name: "walt-net".into(),
            alias: "walt test".into(),
            address: Some((Ipv4Addr::new(192, 168, 183, 1), 24)),
            mac: mac_from_seed("test"),
        };
        bridge::ensure(&walt_net)?;
        life_of_a_machine(dir.path(), &group);
        bridge::remove(&walt_net)?;
        assert!(link::get("walt-net")?.is_none());
        Ok(())
    })
    .unwrap();
    let cgroup = Cgroup::new(format!("{group}/vnode-1"));
    assert!(cgroup.processes().unwrap().is_empty());
    cgroup.remove_empty_parents().unwrap();
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"] {
        assert!(!Path::new(root).join(&group).exists(), "a control group is left");
    }
}

/// Ends the machine of a directory when a test fails.
struct Ended<'a>(&'a Path);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Ok(Some(vm)) = adopt(self.0, None) {
            let _ = vm.stop();
        }
    }
}

fn life_of_a_machine(dir: &Path, group: &str) {
    let node = dir.join("node");
    let _ended = Ended(&node);
    let cgroup = || Some(Cgroup::new(format!("{group}/vnode-1")));
    let start = |spec: &VmSpec, initrds| {
        let tap = tap::open(TAP, "walt-net", "tap of vn1").unwrap();
        launch(Launch {
            spec,
            directory: &node,
            files: Some(BootFiles { kernel: kernel(), initrds }),
            cards: vec![Card { mac: MAC, tap }],
            disks: Vec::new(),
            account: NOBODY,
            cgroup: cgroup(),
            program: walt_vnode::PROGRAM,
        })
        .unwrap()
    };
    let vm = start(&spec(), vec![initrd(dir)]);
    let pid = vm.identity().pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains("Uid:\t65534\t65534\t65534\t65534") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    assert_eq!(vm.qmp().unwrap().status().unwrap(), "running");
    until("the guest's first program", BOOT, || text(&vm).contains("READY").then_some(()));
    assert!(text(&vm).contains("QEMU\r\nStandard PC (i440FX + PIIX, 1996)\r\n"), "{}", text(&vm));
    assert!(text(&vm).contains("walt.test=a,b"));
    let ping = Command::new("busybox").args(["ping", "-c1", "-W5", "192.168.183.2"]).output().unwrap();
    assert!(ping.status.success(), "{}{}", String::from_utf8_lossy(&ping.stdout), text(&vm));

    // The server dies and comes back.
    let identity = vm.identity().clone();
    drop(vm);
    let vm = adopt(&node, cgroup()).unwrap().expect("the machine still runs");
    assert_eq!(*vm.identity(), identity);
    assert!(vm.is_running());
    let keyboard = Keyboard::new(vm.console_socket()).unwrap();
    keyboard.type_bytes(b"echo typed-$((40+2))\r").unwrap();
    until("an answer to what was typed", SOON, || text(&vm).contains("typed-42").then_some(()));

    // The guest's own reboot ends the machine, and its tap with it.
    keyboard.type_bytes(b"/bin/busybox reboot -f\r").unwrap();
    assert!(vm.wait(SOON), "reboot did not end qemu");
    vm.stop().unwrap();
    assert!(adopt(&node, cgroup()).unwrap().is_none());
    until("the end of the tap", SOON, tap_is_gone);

    // Another one, ended while it runs.
    let vm = start(&spec(), Vec::new());
    vm.stop().unwrap();
    assert!(!vm.is_running());
    assert!(!node.join("vm.json").exists() && node.join("console.log").exists());
    until("the end of the tap", SOON, tap_is_gone);

    // One that a dying server had no time to note, and one that does not answer.
    let vm = start(&spec(), Vec::new());
    std::fs::remove_file(node.join("vm.json")).unwrap();
    assert!(adopt(&node, cgroup()).unwrap().is_none());
    assert!(vm.wait(SOON), "a machine that nobody noted");
    let vm = start(&spec(), Vec::new());
    let process = vm.identity().pid.to_string();
    assert!(Command::new("kill").args(["-STOP", &process]).status().unwrap().success());
    assert!(adopt(&node, cgroup()).unwrap().is_none());
    assert!(vm.wait(SOON), "a machine that does not answer");
    until("the end of the tap", SOON, tap_is_gone);
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = VmSpec { cores: 100_000, ..spec() };
    let failed = launch(Launch {
        spec: &spec,
        directory: dir.path(),
        files: Some(BootFiles { kernel: kernel(), initrds: Vec::new() }),
        cards: Vec::new(),
        disks: Vec::new(),
        account: NOBODY,
        cgroup: None,
        program: walt_vnode::PROGRAM,
    });
    let told = failed.unwrap_err().to_string();
    assert!(told.starts_with("qemu did not start: ") && told.contains("100000"), "{told}");
    assert!(!dir.path().join("vm.json").exists() && !dir.path().join("qmp.sock").exists());
}

/// Either answer is right somewhere; that it comes in time, and with a reason, is what counts.
#[test]
fn the_probe_decides_in_time() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let key = probe::key(&mut kernel(), &walt_vnode::version(walt_vnode::PROGRAM).unwrap()).unwrap();
    assert!(key.len() > 64 && key.contains("QEMU"), "{key}");
    let root = Account { uid: 0, gid: 0 };
    let started = Instant::now();
    let verdict = probe::run(&kernel(), &dir.path().join("probe"), root, walt_vnode::PROGRAM).unwrap();
    println!("{verdict:?} after {:?}", started.elapsed());
    assert!(started.elapsed() < probe::PROBE_TIMEOUT + SOON);
    assert!(!verdict.reason.is_empty());
    assert!(!dir.path().join("probe").exists());
}

/// Tries its disks, step by step, each after a line that is typed.
const DISKS_INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
modprobe -a virtio_pci virtio_scsi sd_mod
until [ -b /dev/sda ] && [ -b /dev/sdb ]; do sleep 0.1; done
disk=/dev/sda; [ $(cat /sys/block/sda/size) = 1953125 ] || disk=/dev/sdb
echo SIZES $(cat /sys/block/sd?/size | sort -n) $(cat /sys/block/sd?/device/model | sort -u)
step() { read -r _; echo; }
write() { yes walt | dd of=$disk bs=1M count=$1 conv=fsync iflag=fullblock 2>/dev/null; echo $2 $?; }
step; write 8 WROTE
step; blkdiscard -l 8388608 $disk; echo DISCARDED $?
step; write 40 FULL
step; blkdiscard $disk; write 4 AGAIN
exec sh
";
/// Room on the server for the disks, in MiB.
const ROOM_MIB: u64 = 24;

/// A small file system, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={ROOM_MIB}M"), "walt-test"]).arg(dir.path());
        assert!(mount.status().unwrap().success());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn disks_initrd(dir: &Path) -> File {
    let root = dir.join("root");
    let modules = images::kernel(MINI).modules;
    let release = modules.file_name().unwrap().to_str().unwrap();
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::write(root.join("init"), DISKS_INIT).unwrap();
    let script = format!(
        "chmod 755 init; mkdir dev proc sys; cp $(command -v busybox) bin/; mknod -m 600 dev/console c 5 1
        to=lib/modules/{release}; mkdir -p $to
        grep -e /virtio_pci.ko: -e /virtio_scsi.ko: -e /sd_mod.ko: {modules}/modules.dep | tr -d : | tr ' ' '\\n' |
            sort -u | while read -r m; do mkdir -p $to/${{m%/*}}; cp {modules}/$m $to/$m; done
        busybox depmod -b . {release}
        find . | busybox cpio -o -H newc >../initrd",
        modules = modules.display()
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(&root).status().unwrap();
    assert!(made.success());
    File::open(dir.join("initrd")).unwrap()
}

#[test]
fn a_disk_gives_room_back_and_a_full_server_is_an_error_of_the_guest() {
    let (dir, small) = (tempfile::tempdir_in("/var/tmp").unwrap(), SmallDisk::new());
    let (node, directory) = (dir.path().join("node"), small.0.path().join("disks"));
    let disks = provide(&directory, &"1G,2G".parse().unwrap(), NOBODY).unwrap();
    let path = directory.join("sda-1000000000-none");
    let room = || path.metadata().unwrap().blocks() * 512;
    let _ended = Ended(&node);
    let vm = launch(Launch {
        spec: &VmSpec { boot: BootMethod::Direct { command_line: "console=ttyS0".into() }, ..spec() },
        directory: &node,
        files: Some(BootFiles { kernel: kernel(), initrds: vec![disks_initrd(dir.path())] }),
        cards: Vec::new(),
        disks,
        account: NOBODY,
        cgroup: None,
        program: walt_vnode::PROGRAM,
    })
    .unwrap();
    let keyboard = Keyboard::new(vm.console_socket()).unwrap();
    let shown = |says: &str| {
        until(says, BOOT, || text(&vm).contains(says).then_some(()));
    };
    let next = || keyboard.type_bytes(b"\r").unwrap();
    let mib = 1024 * 1024;
    shown("SIZES 1953125 3906250 QEMU-DISK");
    next();
    shown("WROTE 0");
    assert!(room() >= 8 * mib, "{}", room());
    next();
    shown("DISCARDED 0");
    assert!(room() < mib, "{}", room());
    next();
    shown("FULL 1");
    assert!(room() > (ROOM_MIB - 4) * mib, "{}", room());
    assert_eq!(vm.qmp().unwrap().status().unwrap(), "running");
    next();
    shown("AGAIN 0");
    // What was flushed is in the file, however the machine ends.
    let pid = vm.identity().pid.to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    assert!(vm.wait(SOON));
    let mut written = vec![0; 4 * mib as usize];
    File::open(&path).unwrap().read_exact_at(&mut written, 0).unwrap();
    assert!(written.chunks_exact(5).all(|c| c == b"walt\n"));
}
