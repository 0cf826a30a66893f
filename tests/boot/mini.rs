//! The mini image: what is true of every node, at the price of a small boot.

use super::{BOOT, MINI, SOON, USER, booted, on, wait};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::{TestServer, User, images, machine, until};

/// A ping or a console goes on until it is told to end.
const WATCH: Duration = Duration::from_secs(20);

fn server_with_node() -> TestServer {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    server
}

/// Adds to the small image: a program with a capability (it may read all files), the same one with 40 MB behind it, a
/// file with an access list, a directory with one for what is made in it, and a file whose attributes are too large.
const MORE: &str = r#"
set -e
mkdir more; cd more
set_attribute() {
    perl -e '($path, $name, $value) = @ARGV;
        syscall(188, $path, $name, $value = pack("H*", $value), length $value, 0) == 0 or die "$path $name: $!"' "$@"
}
mkdir cap cap/dir cap/small cap/large
cp "$(command -v busybox)" cap/small
{ cat cap/small/busybox; head -c 40000000 /dev/zero; } >cap/large/busybox
chmod 755 cap/*/busybox
for f in cap/*/busybox; do set_attribute $f security.capability 0100000204000000000000000000000000000000; done
list=0200000001000600ffffffff02000400feff000004000000ffffffff10000400ffffffff20000000ffffffff
echo listed >cap/listed; set_attribute cap/listed system.posix_acl_access $list
set_attribute cap/dir system.posix_acl_default $list
echo left >cap/left; set_attribute cap/left security.capability 0100000204000000000000000000000000000000
set_attribute cap/left user.long "$(head -c 4000 /dev/zero | od -An -v -tx1 | tr -d ' \n')"
tar --format=pax --xattrs --xattrs-include='*' --numeric-owner -rf ../rootfs.tar cap
"#;

/// A server with the small image and [`MORE`] as a user's image.
pub(crate) fn server_with_attributes() -> TestServer {
    let mini = images::built(MINI);
    let server = TestServer::start();
    let more = server.dir().join("image");
    std::fs::create_dir(&more).unwrap();
    for file in ["rootfs.tar", "config.json"] {
        std::fs::copy(mini.join(file), more.join(file)).unwrap();
    }
    let made = Command::new("sh").args(["-c", MORE]).current_dir(&more).status().unwrap();
    assert!(made.success());
    server.import(MINI, &more);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    server
}

/// With a node that boots it.
fn server_with_attributes_and_node() -> TestServer {
    let server = server_with_attributes();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    // It has only begun to boot.
    server.walt(USER, &["node", "config", "vn1", &format!("disks={DISKS}")]).ok();
    server.walt(USER, &["node", "reboot", "--hard", "vn1"]).ok();
    server
}

/// Disks of the node; the kernel may find the second one first.
const DISKS: &str = "1G[template=ext4],2G[template=fat32]";
/// Prints the device of the disk with this number of sectors.
const DEVICE: &str =
    "device() { for d in /sys/block/sd?; do read -r n <$d/size; [ $n != $1 ] || echo /dev/${d##*/}; done; }
    ext4=$(device 1953125)1 fat=$(device 3906250)1; mkdir -p /mnt/a /mnt/b;";

#[test]
fn a_node_boots_and_is_used() {
    let mut server = server_with_attributes_and_node();
    until("the node to start", SOON, || booted(&server, "vn1").starts_with("booting ").then_some(()));
    // No wait: the shell waits for the boot itself.
    let mut shell = server.terminal(USER, &["node", "shell", "vn1"]);
    shell.expect("Caution: changes outside /persist will be lost on next node reboot.\n", SOON);
    shell.expect("Run 'walt help show shells' for more info.\n", SOON);
    shell.expect("# ", BOOT);
    assert_eq!(shell.must("uname -n", SOON), "vn1\n");
    assert_eq!(shell.must("pwd; echo $HOME", SOON), "/root\n/root\n");
    assert!(shell.must("ps", SOON).contains("[kthreadd]"), "a node is a whole machine");
    shell.must("echo volatile > /root/volatile; echo kept > /persist/kept; sync", SOON);
    shell.resize(33, 111);
    assert_eq!(shell.must("stty size", SOON), "33 111\n");
    shell.line("exit");
    let (status, rest) = shell.end(SOON);
    assert!(status.success() && rest.contains("closed."), "{status} {rest}");

    assert_eq!(booted(&server, "vn1"), "yes");
    wait(&server, "vn1");
    files_have_their_attributes(&server);
    run_returns_the_remote_status(&server);
    disks_are_written(&server);
    no_mount_on_the_server(&server);
    reboot_keeps_persist_only(&server);
    a_new_server_adopts_the_node(&mut server);
    ping_and_console_end(&server);
    server.walt(USER, &["node", "remove", "vn1"]).ok();
    let left = Command::new("pgrep").args(["-u", "walt-qemu", "-f"]).arg(server.dir()).output().unwrap();
    assert!(left.stdout.is_empty(), "qemu is still there");
    assert!(server.down().contains("Stopped 0 node(s)"));
}

fn files_have_their_attributes(server: &TestServer) {
    let nobody = |command: &str| on(server, "vn1", &format!("su -s /bin/sh nobody -c '{command}'"));
    let refused = server
        .walt(USER, &["node", "run", "vn1", "su -s /bin/sh nobody -c 'cat /etc/shadow || echo refused'"]);
    assert_eq!(refused.out, "refused\n", "{refused:?}");
    for program in ["small", "large"] {
        assert!(nobody(&format!("/cap/{program}/busybox cat /etc/shadow")).starts_with("root:"), "{program}");
    }
    assert_eq!(nobody("cat /cap/listed"), "listed\n");
    // What is changed keeps them, in RAM.
    on(server, "vn1", "chmod 700 /cap/small/busybox && chmod 755 /cap/small/busybox && touch /cap/listed");
    assert!(nobody("/cap/small/busybox cat /etc/shadow").starts_with("root:"));
    assert_eq!(nobody("cat /cap/listed"), "listed\n");
    assert_eq!(
        on(server, "vn1", "umask 077; echo new >/cap/dir/new; su -s /bin/sh nobody -c 'cat /cap/dir/new'"),
        "new\n"
    );
    assert_eq!(on(server, "vn1", "cat /cap/left; grep -c loop /proc/mounts || true"), "left\n0\n");
    // Of busybox, ping is for root only; any other program may.
    assert_eq!(on(server, "vn1", "cat /proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
    // Nobody else reads what is among them.
    assert_eq!(on(server, "vn1", "stat -c %a /bin/_walt_internal_/attributed/files.ext4"), "600\n");
    let console = std::fs::read_dir(server.state_dir().join("nodes")).unwrap().flatten().next().unwrap();
    let console = std::fs::read(console.path().join("console.log")).unwrap();
    let console = String::from_utf8_lossy(&console);
    assert!(
        console.contains("walt: without their attributes: /cap/left (the attributes are too large"),
        "{console}"
    );
}

fn run_returns_the_remote_status(server: &TestServer) {
    let run = |command: &[&str]| server.walt(USER, &[&["node", "run", "vn1"], command].concat());
    assert_eq!(run(&["uname", "-n"]).ok(), "vn1\n");
    assert_eq!(run(&["exit 7"]).status, Some(7));
    let both = run(&["echo out; echo err >&2"]);
    assert_eq!((both.out.as_str(), both.err.as_str()), ("out\n", "err\n"));
    let fed = server.walt_with_input(USER, &["node", "run", "vn1", "--", "wc", "-c"], "12345");
    assert_eq!(fed.ok().trim(), "5");
}

fn on_disks(server: &TestServer, command: &str) -> String {
    on(server, "vn1", &format!("set -e; {DEVICE} {command}"))
}

/// Room in bytes that the first disk takes on the server.
fn room_of_disk(server: &TestServer) -> u64 {
    let node = std::fs::read_dir(server.state_dir().join("nodes")).unwrap().flatten().next().unwrap();
    node.path().join("disks/sda-1000000000-ext4").metadata().unwrap().blocks() * 512
}

fn disks_are_written(server: &TestServer) {
    let models = on(server, "vn1", "cat /sys/block/sd?/device/model | sort -u");
    assert_eq!(models.trim(), "QEMU-DISK");
    let new = room_of_disk(server);
    on_disks(
        server,
        "mount -t ext4 $ext4 /mnt/a; mount -t vfat $fat /mnt/b; echo kept >/mnt/a/kept; echo kept >/mnt/b/kept
        yes walt | head -c 50000000 >/mnt/a/large; sync",
    );
    let full = room_of_disk(server);
    assert!(full > new + 50_000_000, "{new} {full}");
    on_disks(server, "rm /mnt/a/large; sync; fstrim /mnt/a; umount /mnt/a /mnt/b");
    let trimmed = room_of_disk(server);
    assert!(trimmed < new + 10_000_000, "{new} {full} {trimmed}");
}

fn disks_have_what_was_written(server: &TestServer) {
    let found = on_disks(
        server,
        "grep -q ' /mnt/a ' /proc/mounts || { mount -t ext4 $ext4 /mnt/a; mount -t vfat $fat /mnt/b; }
        cat /mnt/a/kept /mnt/b/kept; echo more >>/mnt/a/more; sync; wc -l </mnt/a/more",
    );
    assert!(found.starts_with("kept\nkept\n"), "{found}");
}

fn no_mount_on_the_server(server: &TestServer) {
    let dir = server.dir().display().to_string();
    let mounts: Vec<String> = machine::mounts().into_iter().filter(|m| m.starts_with(&dir)).collect();
    assert!(mounts.is_empty(), "{mounts:?}");
}

fn reboot_keeps_persist_only(server: &TestServer) {
    let boot_id = on(server, "vn1", "cat /proc/sys/kernel/random/boot_id");
    let out = server.walt(USER, &["node", "reboot", "vn1"]).ok();
    assert!(out.contains("Node vn1: rebooted ok."), "{out}");
    assert_ne!(booted(server, "vn1"), "yes", "the node has still to boot");
    wait(server, "vn1");
    assert_ne!(on(server, "vn1", "cat /proc/sys/kernel/random/boot_id"), boot_id);
    assert_eq!(
        on(
            server,
            "vn1",
            "ls /root/volatile 2>/dev/null; cat /persist/kept; stat -c %u /persist/kept || true"
        ),
        "kept\n0\n"
    );
    disks_have_what_was_written(server);
}

fn a_new_server_adopts_the_node(server: &mut TestServer) {
    let boot_id = on(server, "vn1", "cat /proc/sys/kernel/random/boot_id");
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    until("the node's link to the new server", SOON, || (booted(server, "vn1") == "yes").then_some(()));
    assert_eq!(on(server, "vn1", "cat /proc/sys/kernel/random/boot_id"), boot_id, "it was not rebooted");
    assert_eq!(on(server, "vn1", "ls -d /bin"), "/bin\n", "its root is still served");
    disks_have_what_was_written(server);
    let more = on(server, "vn1", "cat /mnt/a/more");
    assert_eq!(more, "more\nmore\n", "the death of the server is nothing to a disk");
}

fn ping_and_console_end(server: &TestServer) {
    let mut ping = server.terminal(USER, &["node", "ping", "vn1"]);
    ping.expect("bytes from", WATCH);
    ping.send("\x03");
    ping.end(WATCH);
    let mut console = server.terminal(USER, &["node", "console", "vn1"]);
    console.expect("\n", WATCH);
    drop(console);
    let start = Instant::now();
    let mut command = server.walt_command(USER, &["node", "wait", "--timeout", "1", "vn1"]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    assert!(start.elapsed() < WATCH, "a node that has booted is not waited for");
}

#[test]
fn a_node_that_is_gone_is_one_clear_error() {
    let server = server_with_node();
    wait(&server, "vn1");
    // Nobody answers on the node any more, although it was booted.
    on(&server, "vn1", "(sleep 1; ip link set eth0 down || ifconfig eth0 down) >/dev/null 2>&1 &");
    until("the node's link to be lost", BOOT, || (booted(&server, "vn1") != "yes").then_some(()));
    let ran = server.walt(User::Root, &["node", "show", "--all"]);
    assert!(ran.ok().contains("NO"));
    server.walt(USER, &["node", "wait", "--timeout", "2", "vn1"]).fails(1, "Timeout was reached.");
}
