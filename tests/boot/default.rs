//! The default image: what the two shells promise, in the order in which a user meets it.

use super::{BOOT, SOON, USER, on, wait};
use std::time::{Duration, Instant};
use walt_testkit::{OS_STARTED, Terminal, TestServer};

const DEFAULT: &str = "pc-x86-64-default";
const MINI: &str = "pc-x86-64-mini";
/// For packages that come from a mirror.
const INSTALL: Duration = Duration::from_secs(600);
/// For the start, and for the end, of the OS in a container.
const OS: Duration = Duration::from_secs(120);
/// For a program that a node starts some time after its sshd.
const SERVICE: Duration = Duration::from_secs(120);

/// What the user adds to the image.
const UNIT: &str = "[Unit]\\nDescription=test\\n[Service]\\nType=oneshot\\nExecStart=/bin/touch /run/unit-was-here\\n[Install]\\nWantedBy=multi-user.target\\n";

fn open(server: &TestServer, image: &str) -> Terminal {
    let mut shell = server.terminal(USER, &["image", "shell", image]);
    shell.expect("Note: the OS was started in a virtual environment.\n", OS);
    shell.expect("Run 'walt help show shells' for more info.\n\n", SOON);
    shell.expect("root@image-shell:~# ", OS);
    shell
}

fn leave(shell: &mut Terminal) {
    shell.line("exit");
    shell.expect("New image name: ", OS);
}

#[test]
fn from_shell_to_node() {
    let server = TestServer::start_with_images(&[DEFAULT, MINI]);
    server.walt(USER, &["node", "create", "vn1"]).ok();
    server.walt(USER, &["node", "config", "vn1", "disks=1G,2G"]).ok();
    server.walt(USER, &["node", "reboot", "--hard", "vn1"]).ok();
    node_shell(&server);
    vlan(&server);
    node_save(&server);
    limited_shell(&server);
    image_shell(&server);
    the_node_boots_the_change(&server);
    overwriting_reboots_the_node(&server);
    scripts(&server);
    resume(&server);
}

fn node_shell(server: &TestServer) {
    let mut shell = server.terminal(USER, &["node", "shell", "vn1"]);
    shell.expect("Caution: changes outside /persist will be lost on next node reboot.\n", SOON);
    shell.expect("Run 'walt help show shells' for more info.\n", SOON);
    shell.expect("root@vn1:~# ", BOOT);
    let ps = shell.must("ps -ef", SOON);
    for process in ["/sbin/init", "[kthreadd]", "sshd", "systemd-journal", "cron", "dbus-daemon", "ps -ef"] {
        assert!(ps.contains(process), "{process} is not in {ps}");
    }
    assert_eq!(shell.must("cat /proc/1/comm", SOON), "systemd\n");
    // Whatever the kernel calls them.
    for (disk, sectors) in [("sda", 1_953_125), ("sdb", 3_906_250)] {
        let size = format!(
            "cat /sys/class/block/$(basename $(readlink /dev/disk/by-id/scsi-0QEMU_QEMU-DISK_{disk}))/size"
        );
        assert_eq!(shell.must(&size, SOON), format!("{sectors}\n"), "{disk}");
    }
    shell.must("touch /root/volatile && echo kept >/persist/kept", SOON);
    // A user's ping, by its capability; and one without, since every group may.
    assert_eq!(shell.must("getcap /bin/ping", SOON), "/bin/ping cap_net_raw=ep\n");
    let ping = |program: &str| {
        format!("su nobody -s /bin/sh -c '{program} -qc1 127.0.0.1' | grep -c ' 0% packet loss'")
    };
    shell.must("cp /bin/ping /tmp/plain-ping && getcap /tmp/plain-ping", SOON);
    assert_eq!(shell.must(&ping("/tmp/plain-ping"), SOON), "1\n");
    shell.must("sysctl -qw net.ipv4.ping_group_range='1 0'", SOON);
    assert_eq!(shell.must(&ping("ping"), SOON), "1\n");
    shell.line("exit");
    let (status, rest) = shell.end(SOON);
    assert!(status.success() && rest.contains("closed."), "{status}: {rest}");
    wait(server, "vn1");
    let out = server.walt(USER, &["node", "reboot", "vn1"]).ok();
    assert!(out.contains("rebooted ok."), "{out}");
    wait(server, "vn1");
    assert_eq!(on(server, "vn1", "ls /root/volatile 2>/dev/null; cat /persist/kept"), "kept\n");
}

/// What the server does for `raw-device` with `vlan`, by the kernel of a node: this machine's may have no VLANs.
fn vlan(server: &TestServer) {
    let program = walt_testkit::programs().join("examples/vlan");
    server.walt(USER, &["node", "cp", program.to_str().unwrap(), "vn1:/root/vlan"]).ok();
    let far = "ip netns add far && ip link add cable type veth peer name far && ip link set far netns far &&
        in_far='ip netns exec far' &&
        $in_far ip addr add 10.9.1.2/24 dev far && $in_far ip link set far up &&
        $in_far ip link add link far name tagged type vlan id 12 &&
        $in_far ip addr add 10.9.0.2/24 dev tagged && $in_far ip link set tagged up";
    on(server, "vn1", far);
    assert_eq!(on(server, "vn1", "/root/vlan up cable 12 br12 10.9.0.1"), "cable.12 made\n");
    assert_eq!(on(server, "vn1", "/root/vlan up cable 12 br12 10.9.0.1"), "cable.12 found\n");
    assert_eq!(on(server, "vn1", "cat /proc/net/vlan/cable.12 | grep -c 'VID: 12'"), "1\n");
    // Tagged frames are the bridge's, others are not.
    let ping = |address: &str| {
        on(server, "vn1", &format!("ip netns exec far ping -c1 -W5 {address} >/dev/null; echo $?"))
    };
    assert_eq!(ping("10.9.0.1"), "0\n");
    // Linux answers for any of its addresses on any interface otherwise.
    on(server, "vn1", "sysctl -qw net.ipv4.conf.all.arp_ignore=1; ip addr add 10.9.1.1/24 dev br12");
    assert_eq!(ping("10.9.1.1"), "1\n");
    on(server, "vn1", "/root/vlan down cable 12 br12 10.9.0.1");
    assert_eq!(on(server, "vn1", "ip -o link show | grep -c -e br12 -e cable.12; true"), "0\n");
    on(server, "vn1", "ip netns del far");
}

/// Makes, on a node, what a tar can lose: parts of seconds, attributes (a capability, an access list), devices, holes,
/// links. Kernels before 6.6 keep no attributes of users in RAM.
const CHANGE: &str = r#"
    set -e
    cd /srv
    mkdir dir empty 'a b'
    echo capable >dir/capable
    chmod 755 dir/capable
    perl -e 'my ($path, $name, $value) = ("dir/capable", "security.capability", pack("V5", 0x02000001, 1 << 13, 0, 0, 0));
        syscall(188, $path, $name, $value, length $value, 0) == 0 or die "$name: $!"'
    echo listed >dir/listed
    chmod 640 dir/listed
    perl -e 'my ($path, $name, $value) = ("dir/listed", "system.posix_acl_access",
            pack("V", 2) . join "", map { pack "vvV", @$_ } [1, 6, -1], [2, 4, 1000], [4, 4, -1], [16, 4, -1], [32, 0, -1]);
        syscall(188, $path, $name, $value, length $value, 0) == 0 or die "$name: $!"'
    mknod null c 1 3
    mknod disk b 259 4000
    mkfifo fifo
    ln dir/capable 'a b/linked'
    ln -s nowhere link
    truncate -s 30000000 holes
    echo end >>holes
    chown -h 1000:100 link null
    chmod 1777 empty
    echo more >>/etc/issue
    rm /etc/motd
    touch -d '2001-02-03 04:05:06.789012345' -h link fifo disk holes dir/listed dir/capable
    touch -d '1999-12-31 23:59:59.000000001' empty dir
"#;

/// What of that must be the same in the image.
const LOOK: &str = r#"
    cd /srv
    find . | LC_ALL=C sort | while read -r f; do stat -c '%n|%F|%a|%u|%g|%t|%T|%.9Y' "$f"; [ -d "$f" ] || stat -c '%s %h' "$f"; done
    readlink link; sha256sum holes; tail -n 1 /etc/issue; ls /etc/motd 2>/dev/null || echo gone
    perl -e 'for (["dir/capable", "security.capability"], ["dir/listed", "system.posix_acl_access"]) {
        my ($path, $name, $value) = (@$_, "x" x 100);
        my $size = syscall(191, $path, $name, $value, 100);
        print "$name ", $size < 0 ? "$!" : unpack("H*", substr($value, 0, $size)), "
";
    }'
"#;

/// By the node's GNU tar.
fn node_save(server: &TestServer) {
    on(server, "vn1", CHANGE);
    let before = on(server, "vn1", LOOK);
    assert!(before.contains("security.capability 0100000200200000"), "{before}");
    let listed = server.walt(USER, &["node", "save", "vn1", "saved", "--dry-run"]);
    let words = |path: &str| {
        let line = listed.out.lines().find(|l| l.ends_with(&format!("  {path}")));
        line.unwrap_or_else(|| panic!("{path}: {listed:?}")).split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(["/srv/null", "/etc/issue", "/etc/motd"].map(words), ["added", "changed", "deleted"]);
    server.walt(USER, &["node", "save", "vn1", "saved"]).ok();
    let after = server.walt_with_input(USER, &["image", "shell", "saved"], LOOK);
    assert_eq!(after.out, before, "{}", after.err);
}

/// The image without hooks: the shell is alone.
fn limited_shell(server: &TestServer) {
    server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{MINI}")]).ok();
    let mut shell = server.terminal(USER, &["image", "shell", MINI]);
    shell.expect("Note: this is a limited virtual environment (with just the shell process).\n", SOON);
    shell.expect("Run 'walt help show shells' for more info.\n\n", SOON);
    shell.expect("root@image-shell:~# ", SOON);
    let ps = shell.must("ps -ef", SOON);
    let processes: Vec<&str> = ps.lines().skip(1).collect();
    assert!(processes.len() == 2 && processes[0].starts_with("    1 root "), "{ps}");
    assert!(processes[0].ends_with("/sh") && processes[1].contains("ps"), "{ps}");
    leave(&mut shell);
    shell.send("\x03");
    assert_eq!(shell.end(SOON).0.code(), Some(1));
}

fn image_shell(server: &TestServer) {
    let mut shell = open(server, "pc-x86-64-default");
    shell.must(OS_STARTED, OS);
    let ps = shell.must("ps -ef", SOON);
    for process in ["/sbin/init", "systemd-journal", "cron", "dbus-daemon", "systemd-logind", "sshd"] {
        assert!(ps.contains(process), "{process} is not in {ps}");
    }
    assert!(!ps.contains("kthreadd"), "a container is no machine: {ps}");
    assert_eq!(shell.must("pwd; echo $HOME; hostname", SOON), "/root\n/root\nimage-shell\n");
    shell.must("systemctl is-active cron", SOON);
    let map = shell.must("cat /proc/self/uid_map", SOON);
    assert!(!map.contains("4294967295"), "what follows is to work in a user namespace: {map}");
    assert_eq!(shell.must("systemctl --no-pager --failed --no-legend | wc -l", SOON), "0\n");
    shell.must("apt-get -q update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -q install -y postgresql >/dev/null", INSTALL);
    let sql = |text: &str| format!("su postgres -c \"psql -qAtc '{text}'\"");
    shell.must(&sql("create table t (x int); insert into t values (42)"), SOON);
    shell.must(&format!("printf '{UNIT}' >/etc/systemd/system/was-here.service"), SOON);
    shell.must("systemctl enable was-here", SOON);
    shell.must("echo '@reboot root touch /run/cron-was-here' >/etc/cron.d/was-here", SOON);
    shell.must("rm /etc/issue.net", SOON);
    shell.must("cp /bin/true /srv/capable && setcap cap_net_admin+ep /srv/capable", SOON);
    let set = "my ($p, $n, $v) = (\"/srv/capable\", \"user.note\", \"a\\0b\"); syscall(188, $p, $n, $v, 3, 0) == 0 or die";
    shell.must(&format!("perl -e '{set}'"), SOON);
    leave(&mut shell);
    shell.line("mine");
    let (status, rest) = shell.end(OS);
    assert!(status.success() && rest.contains("New image mine saved."), "{status}: {rest}");
    assert!(rest.contains("walt node boot"), "the tip is missing: {rest}");
}

fn the_node_boots_the_change(server: &TestServer) {
    on(server, "vn1", "test -e /etc/issue.net");
    let out = server.walt(USER, &["node", "boot", "vn1", "mine"]).ok();
    assert!(out.contains("Node vn1 will now boot mine."), "{out}");
    wait(server, "vn1");
    let eventually = |what: &str, command: &str, wanted: &str| {
        let start = Instant::now();
        loop {
            let ran = server.walt(USER, &["node", "run", "vn1", command]);
            if ran.out == wanted {
                return;
            }
            assert!(start.elapsed() < SERVICE, "waited {} s for {what}: {ran:?}", SERVICE.as_secs());
        }
    };
    eventually("the table", "su postgres -c 'psql -qAtc \"select x from t\"'", "42\n");
    eventually("the unit", "ls /run/unit-was-here", "/run/unit-was-here\n");
    eventually("the cron entry", "ls /run/cron-was-here", "/run/cron-was-here\n");
    assert_eq!(on(server, "vn1", "ls /etc/issue.net 2>/dev/null || echo gone"), "gone\n");
    let get = "my ($p, $n, $v) = (\"/srv/capable\", \"user.note\", \"x\" x 9); print syscall(191, $p, $n, $v, 9), unpack(\"H*\", $v)";
    let attributes = on(server, "vn1", &format!("getcap /srv/capable; perl -e '{get}'"));
    assert_eq!(attributes, "/srv/capable cap_net_admin=ep\n3610062787878787878");
    assert_eq!(on(server, "vn1", "cat /persist/kept"), "kept\n", "/persist is the node's, whatever it boots");
}

fn overwriting_reboots_the_node(server: &TestServer) {
    let mut shell = open(server, "mine");
    shell.must("touch /root/second", SOON);
    leave(&mut shell);
    shell.line("");
    let asked = shell.expect("Are you sure? (y/n): ", SOON);
    assert!(asked.contains("Selected: mine") && asked.contains("(and reboot 1 node(s))"), "{asked}");
    shell.line("n");
    shell.expect("New image name: ", SOON);
    shell.line("");
    shell.expect("Are you sure? (y/n): ", SOON);
    shell.line("y");
    let (status, rest) = shell.end(OS);
    assert!(status.success() && rest.contains("Image mine updated."), "{status}: {rest}");
    assert!(rest.contains("rebooted ok."), "{rest}");
    wait(server, "vn1");
    on(server, "vn1", "test -e /root/second");
}

fn scripts(server: &TestServer) {
    let ran =
        server.walt_with_input(USER, &["image", "shell", "mine", "--save=other"], "touch /root/by-script\n");
    assert!(ran.ok().contains("New image other saved."));
    let ran =
        server.walt_with_input(USER, &["image", "shell", "other", "--save"], "touch /root/no\nexit 5\n");
    assert_eq!(ran.status, Some(5), "{ran:?}");
    assert!(ran.err.contains("dropped"), "{ran:?}");
    let ran = server.walt_with_input(USER, &["image", "shell", "other"], "ls /root; exit 3\n");
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert!(ran.out.contains("by-script\n") && !ran.out.contains("no\n"), "{ran:?}");
    // Not 'other': its database writes at each of its starts.
    let ran = server.walt_with_input(USER, &["image", "shell", DEFAULT, "--save"], "exit\n");
    assert!(ran.ok().contains("othing changed"));
}

fn resume(server: &TestServer) {
    let mut shell = open(server, "other");
    shell.must("kept=in-the-shell", SOON);
    shell.kill();
    assert!(server.walt(USER, &["image", "show"]).ok().contains("other"));
    let refused = server.walt(USER, &["image", "shell", "other"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    for hint in ["--resume other", "--discard other"] {
        assert!(refused.err.contains(hint), "{refused:?}");
    }
    let mut shell = server.terminal(USER, &["image", "shell", "--resume", "other"]);
    shell.send("\r");
    shell.expect("root@image-shell:~# ", SOON);
    assert_eq!(shell.must("echo $kept", SOON), "in-the-shell\n");
    leave(&mut shell);
    shell.send("\x03");
    let (status, rest) = shell.end(OS);
    assert_eq!(status.code(), Some(1), "{rest}");
    assert!(rest.contains("Aborted.") && rest.contains("dropped"), "{rest}");
}
