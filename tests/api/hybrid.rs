//! Hybrid boot without a machine: the scripts of nodes run in namespaces, with busybox, on disks that are files, and
//! fetch layers from a real server.

use crate::nfs_call::Client;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use walt_testkit::{Newcomer, TestServer, User, images, repository};

const ANN: User = User::RootFor("ann");
const SOON: Duration = Duration::from_secs(60);
/// What the image has, besides boot files.
const ROOTFS: &str = r#"
set -e
mkdir -p bin sbin etc usr/share/doc tmp
cp "$(command -v busybox)" bin/busybox
ln -s ../bin/busybox sbin/init
ln -s /bin/busybox bin/sh
echo first >etc/first
chown 5:6 etc/first; chmod 4751 etc/first
ln -s /etc/first etc/link; chown -h 7:8 etc/link
ln etc/first etc/hard
head -c 3000000 /dev/urandom >usr/share/random
long=$(printf 'n%.0s' $(seq 200)); mkdir -p usr/$long/$long; echo deep >usr/$long/$long/file
printf odd >"$(printf 'etc/a\344\nb')"
# more names than busybox' xargs takes at once
i=0; while [ $i -lt 900 ]; do i=$((i + 1)); echo $i >usr/share/doc/a-name-that-is-long-enough-to-fill-a-command-line-soon-$i; done
touch -d '2001-02-03 04:05:06' etc usr/share
truncate -s 3G usr/share/holes; printf middle | dd of=usr/share/holes bs=1M seek=1500 conv=notrunc 2>/dev/null
"#;

/// A disk of a node, attached to the machine of the test.
struct Disk {
    file: PathBuf,
    device: String,
}

impl Disk {
    /// A new one of so many MiB, with a file system that has what this script makes.
    fn new(server: &TestServer, name: &str, mib: u32, content: &str) -> Self {
        let tree = server.dir().join(format!("{name}.tree"));
        fs::create_dir_all(&tree).unwrap();
        run(Command::new("sh").args(["-ec", content]).current_dir(&tree));
        let disk = Self::empty(server, name, mib, &[]);
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-d"]).arg(&tree).arg(&disk.file));
        disk
    }

    /// One with nothing but zeros.
    fn empty(server: &TestServer, name: &str, mib: u32, options: &[&str]) -> Self {
        let file = server.dir().join(name);
        run(Command::new("truncate").args(["-s", &format!("{mib}M")]).arg(&file));
        let attach = [&["-f", "--show"], options].concat();
        let device = run(Command::new("losetup").args(attach).arg(&file)).trim().to_owned();
        Self { file, device }
    }

    /// Its number and size, as the kernel shows them.
    fn facts(&self) -> String {
        let numbers = run(Command::new("stat").args(["-c", "%t:%T", &self.device]));
        let (major, minor) = numbers.trim().split_once(':').unwrap();
        let decimal = |hex: &str| u32::from_str_radix(hex, 16).unwrap();
        let sectors = fs::metadata(&self.file).unwrap().len() / 512;
        format!("{}:{} {sectors}", decimal(major), decimal(minor))
    }

    /// Runs a script in it, while no node has it.
    fn inside(&self, script: &str) -> String {
        let script = format!("mount {} /mnt && cd /mnt && {{ {script}\n}}", self.device);
        run(Command::new("unshare").args(["-m", "sh", "-ec", &script]))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
        let _ = fs::remove_file(&self.file);
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let ran = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// The image of a few files, with something to copy.
fn image(dir: &Path) -> PathBuf {
    let out = images::tiny(dir);
    run(Command::new("sh").args(["-ec", ROOTFS]).current_dir(out.join("rootfs")));
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--sparse", "-C"]).arg(out.join("rootfs")).arg("-cf");
    run(tar.arg(out.join("rootfs.tar")).arg("."));
    out
}

/// A physical machine whose RAM root is a directory.
struct Machine {
    station: Newcomer,
    ip: Ipv4Addr,
}

impl Machine {
    fn plug(server: &TestServer, number: u8) -> Self {
        let station = Newcomer::plug(server, number);
        let name = format!("hostname:apu{number}");
        let words = ["udhcpc", "-f", "-n", "-q", "-i", "eth0", "-t", "10", "-T", "3", "-s", "/bin/true"];
        let ran = station.run("busybox", &[&words[..], &["-V", "walt.node.pc-x86-64", "-x", &name]].concat());
        assert!(ran.status.success(), "{ran:?}");
        let nodes = server.api(None).get("/api/v1/nodes").json();
        let nodes = nodes["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|n| n["mac"] == station.mac()).unwrap();
        let ip = node["ip"].as_str().unwrap().parse().unwrap();
        station.netns().run(&["ip", "addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        Self { station, ip }
    }

    /// The image that it boots: its digits.
    fn image(&self, server: &TestServer) -> String {
        let nodes = server.api(None).get("/api/v1/nodes").json();
        let nodes = nodes["nodes"].as_array().unwrap().clone();
        let node = nodes.iter().find(|n| n["ip"] == self.ip.to_string()).unwrap();
        let list = server.api(None).get("/api/v1/images").json();
        let images = list["images"].as_array().unwrap().clone();
        let image = images.iter().find(|i| i["fullname"] == node["image"]).unwrap()["id"].to_string();
        image.trim_matches('"').trim_start_matches("sha256:").to_owned()
    }

    /// Kills everything that runs on it.
    fn cut_power(&self) {
        let inside = run(Command::new("ip")
            .args(["netns", "pids"])
            .arg(self.station.netns().path().file_name().unwrap()));
        for pid in inside.split_whitespace() {
            // It may have ended meanwhile.
            let _ = Command::new("kill").args(["-KILL", pid]).output();
        }
    }

    /// What stage A of a boot leaves in /etc/walt-node.
    fn facts(&self, server: &TestServer) -> String {
        let (ip, at) = (self.ip, server.address());
        let view = self.station.netns().inside(|| {
            let mut client = Client::connect(at, SOON);
            let root = client.mount(&format!("/var/lib/walt/nodes/{ip}/fs")).unwrap();
            client.readlink(&root, ".walt-view")
        });
        let image = self.image(server);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        format!(
            "server_ip='{at}'\nview='{view}'\nimage='{image}'\nboot_id='{}'\nattributed_options=ro,loop\n",
            boot_id.trim()
        )
    }

    /// Boots from these disks; what is on the console, and what `then` prints.
    fn boot(&self, server: &TestServer, mode: &str, disks: &[&Disk], then: &str) -> String {
        let facts = self.facts(server);
        let mut child = self.boot_command(mode, disks, then).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), facts.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        println!("{text}");
        text
    }

    /// Bytes that have arrived here so far.
    fn received(&self) -> u64 {
        let told = self.station.netns().run(&["ip", "-s", "-j", "link", "show", "eth0"]);
        let link: serde_json::Value = serde_json::from_str(&told).unwrap();
        link[0]["stats64"]["rx"]["bytes"].as_u64().unwrap()
    }

    fn boot_command(&self, mode: &str, disks: &[&Disk], then: &str) -> Command {
        let root = self.station.dir().join("root");
        fs::create_dir_all(&root).unwrap();
        let block: Vec<String> = disks
            .iter()
            .zip(["sda", "sdb", "sdc"])
            .map(|(d, name)| format!("{name} {}", d.facts()))
            .collect();
        let script = repository().join("tests/api/hybrid-boot.sh");
        let words = ["unshare", "-m", "--propagation", "private", "sh"].map(str::to_owned);
        let words = words.into_iter().chain([
            script.display().to_string(),
            root.display().to_string(),
            repository().join("node").display().to_string(),
            mode.to_owned(),
            block.join("\n"),
            then.to_owned(),
        ]);
        let mut command = self.station.command("env", &words.collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// What shows whether a copy is right.
const LOOK: &str = r#"
cd /mnt/union
stat -c '%a %u %g %n' etc/first etc/hard etc/link
stat -c '%h %Y' etc/first; stat -c %Y usr/share
cat etc/hard usr/n*/n*/file etc/a*b; echo
stat -c '%s' usr/share/holes
dd if=usr/share/holes bs=1048576 skip=1500 count=1 2>/dev/null | head -c 6; echo
cmp usr/share/random /mnt/nfsroot/RANDOM && echo same
"#;

/// Lines of [`LOOK`].
const SEEN: &str = "4751 5 6 etc/first\n4751 5 6 etc/hard\n777 7 8 etc/link\n2 ";

struct Room {
    server: TestServer,
    machine: Machine,
    look: String,
}

/// A server with an image and a machine that boots it.
fn room() -> Room {
    let server = TestServer::start();
    server.import(images::TINY, &image(server.dir()));
    let machine = Machine::plug(&server, 1);
    server.walt(ANN, &["node", "acquire", "apu1-574c01"]);
    let random = server.dir().join("tiny/rootfs/usr/share/random");
    let look = LOOK.replace("/RANDOM", random.to_str().unwrap());
    Room { server, machine, look }
}

impl Room {
    fn boot(&self, disks: &[&Disk], then: &str) -> String {
        self.machine.boot(&self.server, "auto", disks, then)
    }

    /// A boot that must not use the disk, for this reason.
    #[track_caller]
    fn falls_back(&self, disk: &Disk, why: &str) {
        let out = self.boot(&[disk], "mount | grep -c /mnt/hybrid || true");
        assert!(out.contains(why) && out.contains("mode: network\n0\n"), "{out}");
    }

    /// An image of that name with one file of so many MiB on top of the first image; the machine will boot it.
    fn boots_other(&self, name: &str, mib: u32) {
        let file = self.server.dir().join(name);
        let make = format!("head -c {mib}M /dev/urandom >'{}'", file.display());
        run(Command::new("sh").args(["-ec", &make]));
        self.server.walt(ANN, &["image", "duplicate", "pc-x86-64", name]).ok();
        let to = format!("{name}:/usr/share/{name}");
        self.server.walt(ANN, &["image", "cp", file.to_str().unwrap(), &to]).ok();
        self.boots(name);
    }

    fn boots(&self, image: &str) {
        // The machine has no link to be rebooted by: only what it boots counts.
        self.server.walt(ANN, &["node", "boot", "apu1-574c01", image]);
    }
}

#[test]
fn copies_are_made_once_shared_and_checked() {
    let room = room();
    let disk = Disk::new(&room.server, "disk", 200, "mkdir walt_hybrid");
    let start = room.machine.received();
    let out = room.boot(&[&disk], &room.look);
    assert!(out.contains("mode: hybrid-volatile\n") && out.contains(SEEN), "{out}");
    assert!(out.contains("first\ndeep\nodd\n3221225472\nmiddle\nsame\n"), "{out}");
    let first = room.machine.received() - start;
    assert!(first > 4_000_000, "{first}");

    // Nothing is copied again; changes are dropped.
    let start = room.machine.received();
    let out =
        room.boot(&[&disk], "echo x >/mnt/union/new; echo x >/mnt/union/local/new; rm /mnt/union/etc/first");
    assert!(!out.contains("Copying"), "{out}");
    let out = room.boot(&[&disk], "cd /mnt/union; ls new local etc/first; true");
    assert!(out.contains("etc/first") && !out.contains("\nnew"), "{out}");
    assert!(room.machine.received() - start < 100_000);

    // A second image: only what differs.
    room.boots_other("other", 2);
    let start = room.machine.received();
    let out = room.boot(&[&disk], &format!("cd /mnt/union; stat -c %s usr/share/other; {}", room.look));
    assert!(out.contains("2097152\n") && out.contains("middle\nsame\n"), "{out}");
    let second = room.machine.received() - start;
    assert!((2_097_152..2_600_000).contains(&second), "{second}");

    // A bit that has flipped is found by a check, and the layer is copied again; an untouched one is not.
    disk.inside("printf x | dd of=$(ls -d walt_hybrid/layers/*/fs/usr/share/random) bs=1 seek=777777 conv=notrunc; touch walt_hybrid/.check");
    let start = room.machine.received();
    let out = room.boot(&[&disk], &room.look);
    assert!(out.contains(" is damaged: it is copied again\n") && out.contains("middle\nsame\n"), "{out}");
    let again = room.machine.received() - start;
    assert!((3_000_000..first).contains(&again), "{again}");
    let out = room.boot(&[&disk], "ls -A /mnt/hybrid/walt_hybrid");
    assert!(!out.contains("damaged") && !out.contains(".check"), "{out}");
}

#[test]
fn what_is_interrupted_goes_on() {
    let mut room = room();
    room.boots_other("large", 80);
    let disk = Disk::new(&room.server, "disk", 400, "mkdir walt_hybrid");
    // The power is cut while it copies.
    let start = room.machine.received();
    let facts = room.machine.facts(&room.server);
    let mut child = room.machine.boot_command("auto", &[&disk], "true").spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), facts.as_bytes()).unwrap();
    let end = start + 20_000_000;
    walt_testkit::until("a part of the copy", SOON, || (room.machine.received() > end).then_some(()));
    room.machine.cut_power();
    let _ = child.wait();
    // What a copy of an older version and a removal have left.
    let there = disk.inside(
        "cd walt_hybrid; id=$(printf 'ab%.0s' $(seq 32)); mkdir -p $id/image.part/x $id.removing/y layers/x.unpacking/fs layers/y.removing
        du -sck $(ls -d layers/* | grep -v unpacking) | tail -n 1 | cut -f 1",
    );
    let there: u64 = there.trim().parse().unwrap();
    let start = room.machine.received();
    // The server dies while it goes on.
    let facts = room.machine.facts(&room.server);
    let mut child = room.machine.boot_command("auto", &[&disk], "cd /mnt/union; stat -c %s usr/share/large; find /mnt/hybrid/walt_hybrid -name '*.unpacking' -o -name '*.part' -o -name '*.removing'").spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), facts.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    room.server.kill();
    std::thread::sleep(Duration::from_secs(2));
    room.server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let out = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&out.stdout);
    println!("{out}");
    assert!(out.ends_with("mode: hybrid-volatile\n83886080\n"), "{out}");
    // What was there is not sent again: 87 MB in all, packets' heads included.
    let received = room.machine.received() - start;
    println!("{there} KiB were there, {received} bytes came");
    assert!(received < 92_000_000 - there * 1024, "{there} KiB were there, {received} bytes came");
}

#[test]
fn what_cannot_be_used_is_named_and_left_alone() {
    let room = room();
    let server = &room.server;
    let disk = |name: &str, mib: u32, content: &str| Disk::new(server, name, mib, content);
    room.falls_back(
        &disk("file", 100, "echo x >walt_hybrid"),
        "walt: sda is skipped: walt_hybrid on it is a file, not a",
    );
    room.falls_back(
        &disk("link", 100, "mkdir x; ln -s x walt_hybrid"),
        "walt: sda is skipped: walt_hybrid on it is a symbolic link, not a",
    );
    room.falls_back(
        &disk("small", 40, "mkdir walt_hybrid"),
        "walt: booting in network mode: the image needs ",
    );
    let full = disk("full", 100, "mkdir walt_hybrid");
    full.inside("dd if=/dev/zero of=ballast bs=1M || true");
    room.falls_back(&full, "walt: booting in network mode: sda is full");
    let source = disk("source", 100, "mkdir walt_hybrid");
    fs::copy(&source.file, server.dir().join("read-only")).unwrap();
    let read_only = Disk::empty(server, "read-only", 100, &["-r"]);
    room.falls_back(&read_only, "walt: booting in network mode: sda cannot be written to");
    // Its file system is larger than the disk.
    fs::copy(&source.file, server.dir().join("lies")).unwrap();
    let lies = Disk::empty(server, "lies", 50, &[]);
    room.falls_back(&lies, "walt: booting in network mode: cannot mount sda (ext4)");
    let none = disk("none", 100, "mkdir home");
    let out = room.boot(&[&none], "true");
    assert_eq!(out, "mode: network\n");
    // One that cannot be used does not hide the next.
    let (bad, good) = (disk("bad", 100, "echo x >walt_hybrid"), disk("good", 100, "mkdir walt_hybrid"));
    let out = room.boot(&[&none, &bad, &good], "true");
    assert!(out.contains("sdb is skipped") && out.ends_with("mode: hybrid-volatile\n"), "{out}");
    // The view of another machine, which this one has not mounted.
    let other = Disk::new(server, "other", 100, "mkdir walt_hybrid");
    let stranger = Machine::plug(server, 2);
    let mut child = stranger.boot_command("auto", &[&other], "true").spawn().unwrap();
    let facts = room.machine.facts(server);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), facts.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&out.stdout);
    assert!(out.contains("network mode: the server has no copy of this image (404)"), "{out}");
}

#[test]
fn the_copy_that_was_not_used_for_longest_makes_room() {
    let room = room();
    let disk = Disk::new(&room.server, "disk", 120, "mkdir walt_hybrid");
    let used = |out: &str| {
        out.lines().filter(|line| line.starts_with("has ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let then = "cd /mnt/hybrid/walt_hybrid; mkdir -p tmp; for d in ????????????????????????????????????????????????????????????????; do echo has $d; done; ls layers | wc -l";
    for name in ["one", "two"] {
        room.boots_other(name, 20);
        room.boot(&[&disk], then);
    }
    let two = used(&room.boot(&[&disk], then));
    assert_eq!(two.len(), 2);
    room.boots("one");
    let out = room.boot(&[&disk], then);
    assert!(!out.contains("removing") && !out.contains("Copying"), "{out}");
    let first = format!("has {}", room.machine.image(&room.server));
    room.boots_other("three", 20);
    let out = room.boot(&[&disk], then);
    assert!(
        out.contains("walt: removing the copy of image ") && out.contains("mode: hybrid-volatile"),
        "{out}"
    );
    let three = used(&out);
    assert!(three.len() == 2 && three.contains(&first), "{two:?} {three:?}");
    // The layers of the image that is gone, too: base, platform layers and files of two images.
    assert!(out.ends_with("\n5\n"), "{out}");
}

#[test]
fn changes_are_kept_where_they_are_wanted() {
    let room = room();
    let disk = Disk::new(&room.server, "disk", 200, "mkdir walt_hybrid; touch walt_hybrid/.persistent");
    let change = r#"
cd /mnt/union
mkdir -p root tmp; echo kept >root/kept; echo kept >local/kept; echo gone >tmp/gone; rm -r usr/share
echo mine >bin/walt-init; rm -r etc/ssh; mkdir etc/ssh; echo mine >etc/ssh/mine; rm bin/_walt_internal_/walt-node-link
rm -r root/.ssh; ln -s /etc root/.ssh; sync
"#;
    let out = room.boot(&[&disk], change);
    assert!(out.contains("mode: hybrid-persistent\n"), "{out}");
    let look = r#"
cd /mnt/union
cat root/kept local/kept etc/ssh/mine; ls tmp; ls usr; grep -c PID.1 bin/walt-init; ls etc/ssh bin/_walt_internal_/walt-node-link root/.ssh; ls -ld root/.ssh
"#;
    let out = room.boot(&[&disk], look);
    assert!(out.contains("mode: hybrid-persistent\nkept\nkept\nmine\nn"), "{out}");
    assert!(!out.contains("share") && !out.contains("gone"), "{out}");
    assert!(
        out.contains("\n1\nbin/_walt_internal_/walt-node-link\n\netc/ssh:\nmine\nssh_host_ecdsa_key"),
        "{out}"
    );
    assert!(out.contains("root/.ssh:\nauthorized_keys\n") && out.contains("\ndrwx"), "{out}");
    // Another image starts afresh, and the state of the first one is there when it comes back.
    room.boots_other("other", 1);
    let out = room.boot(&[&disk], "ls /mnt/union/root /mnt/union/usr");
    assert!(out.contains("share") && !out.contains("kept"), "{out}");
    room.boots("pc-x86-64");
    let out = room.boot(&[&disk], "cat /mnt/union/root/kept");
    assert!(out.ends_with("kept\n"), "{out}");
    // What no longer can be booted is not booted.
    room.boot(&[&disk], "rm /mnt/union/sbin/init");
    let out = room.boot(&[&disk], "true");
    assert!(out.contains("network mode: the changes that were kept have no /sbin/init"), "{out}");
}

#[test]
fn an_empty_disk_is_prepared_when_it_is_told() {
    let room = room();
    let server = &room.server;
    let boot = |mode: &str, disks: &[&Disk]| {
        room.machine.boot(server, mode, disks, "mount | grep -c /mnt/hybrid || true")
    };
    let empty = Disk::empty(server, "empty", 200, &[]);
    assert_eq!(boot("auto", &[&empty]), "mode: network\n0\n");
    let used = Disk::empty(server, "used", 200, &[]);
    let end = fs::metadata(&used.file).unwrap().len() - 1000;
    std::os::unix::fs::FileExt::write_at(
        &fs::OpenOptions::new().write(true).open(&used.file).unwrap(),
        b"x",
        end,
    )
    .unwrap();
    let before = fs::read(&used.file).unwrap();
    let out = boot("hybrid-persistent", &[&used]);
    assert!(out.contains("no disk has a directory walt_hybrid, and none is empty"), "{out}");
    assert!(out.ends_with("mode: network\n0\n") && fs::read(&used.file).unwrap() == before, "{out}");
    let out = boot("hybrid-persistent", &[&used, &empty]);
    assert!(out.contains("walt: sdb is empty: making a file system on it, for hybrid-persistent\n"), "{out}");
    assert!(out.contains("mode: hybrid-persistent\n") && fs::read(&used.file).unwrap() == before, "{out}");
    // The setting counts, and the disk is found from now on.
    let out = boot("hybrid-volatile", &[&used, &empty]);
    assert!(out.contains("mode: hybrid-volatile\n") && !out.contains("Copying"), "{out}");
    let out = boot("hybrid-volatile", &[]);
    assert!(out.contains("network mode: this node has no disk"), "{out}");
}

#[test]
fn the_setting_decides_what_a_node_looks_for() {
    let room = room();
    let ask = || {
        let request = "(printf 'GET /node/boot-mode HTTP/1.0\\r\\n\\r\\n'; sleep 1)";
        let script = format!("{request} | busybox nc {} 80 | tail -n 1", room.server.address());
        let out = room.machine.station.run("sh", &["-c", &script]);
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(ask(), "auto\n");
    let set = |value: &str| {
        let words = ["node", "config", "apu1-574c01", &format!("boot.mode={value}")];
        room.server.walt(ANN, &words)
    };
    let refused = set("hybrid-volatile");
    assert!(refused.err.contains("A disk with anything else on it is not touched."), "{refused:?}");
    assert_eq!(ask(), "auto\n");
    set("network").ok();
    assert_eq!(ask(), "network\n");
}
