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
touch -d '2001-02-03 04:05:06' etc usr/share
truncate -s 3G usr/share/holes; printf middle | dd of=usr/share/holes bs=1M seek=1500 conv=notrunc 2>/dev/null
"#;

/// A disk of a node, attached to the machine of the test.
struct Disk {
    file: PathBuf,
    device: String,
}

impl Disk {
    /// A new one of so many MiB, with a file system that has these directories and files.
    fn new(server: &TestServer, name: &str, mib: u32, content: &str) -> Self {
        let (file, tree) = (server.dir().join(name), server.dir().join(format!("{name}.tree")));
        fs::create_dir_all(&tree).unwrap();
        run(Command::new("sh").args(["-ec", content]).current_dir(&tree));
        run(Command::new("truncate").args(["-s", &format!("{mib}M")]).arg(&file));
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-d"]).arg(&tree).arg(&file));
        let device = run(Command::new("losetup").args(["-f", "--show"]).arg(&file)).trim().to_owned();
        Self { file, device }
    }

    fn number(&self) -> String {
        let numbers = run(Command::new("stat").args(["-c", "%t:%T", &self.device]));
        let (major, minor) = numbers.trim().split_once(':').unwrap();
        let decimal = |hex: &str| u32::from_str_radix(hex, 16).unwrap();
        format!("{}:{}", decimal(major), decimal(minor))
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

    /// What stage A of a boot leaves in /etc/walt-node.
    fn facts(&self, server: &TestServer) -> String {
        let (ip, at) = (self.ip, server.address());
        let view = self.station.netns().inside(|| {
            let mut client = Client::connect(at, SOON);
            let root = client.mount(&format!("/var/lib/walt/nodes/{ip}/fs")).unwrap();
            client.readlink(&root, ".walt-view")
        });
        let nodes = server.api(None).get("/api/v1/nodes").json();
        let nodes = nodes["nodes"].as_array().unwrap().clone();
        let node = nodes.iter().find(|n| n["ip"] == ip.to_string()).unwrap();
        let list = server.api(None).get("/api/v1/images").json();
        let images = list["images"].as_array().unwrap().clone();
        let image = images.iter().find(|i| i["fullname"] == node["image"]).unwrap()["id"].to_string();
        let image = image.trim_matches('"').trim_start_matches("sha256:").to_owned();
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

    fn boot_command(&self, mode: &str, disks: &[&Disk], then: &str) -> Command {
        let root = self.station.dir().join("root");
        fs::create_dir_all(&root).unwrap();
        let names = ["sda1", "sdb1", "sdc1"];
        let block: Vec<String> =
            disks.iter().zip(names).map(|(d, name)| format!("{name} {}", d.number())).collect();
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

fn server() -> TestServer {
    let server = TestServer::start();
    server.import(images::TINY, &image(server.dir()));
    server
}

/// What the union shows, compared with what the image has.
const COMPARE: &str = r#"
cd /mnt/union
stat -c '%a %u %g %n' etc/first etc/hard etc/link
stat -c '%h %Y' etc/first etc
cat etc/link etc/hard usr/n*/n*/file etc/a*b
stat -c '%s' usr/share/holes
dd if=usr/share/holes bs=1048576 skip=1500 count=1 2>/dev/null | head -c 6
echo " $(sha256sum <usr/share/random)"
"#;

#[test]
fn a_copy_is_made_and_used() {
    let server = server();
    let machine = Machine::plug(&server, 1);
    server.walt(ANN, &["node", "acquire", "apu1"]);
    let disk = Disk::new(&server, "disk", 200, "mkdir walt_hybrid");
    let out = machine.boot(&server, "auto", &[&disk], COMPARE);
    assert!(out.contains("mode: hybrid-volatile\n"), "{out}");
}
