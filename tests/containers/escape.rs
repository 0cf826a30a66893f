//! Root in an image shell tries to get at the server: its disks, processes, control groups, kernel, socket.

use super::mini::MINI;
use super::users::{restart, top_layer};
use super::{SOON, USER, unpack};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use walt_testkit::{TestServer, until};

/// Where cgroup hierarchies are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// For the start of the OS in a container.
pub const OS: Duration = Duration::from_secs(120);

/// What `escape.c` must say. Devices of an image can be there, and be made where there is no user namespace; used they
/// cannot.
const EXPECTED: [(&str, &str); 41] = [
    ("make a block device", "refused"),
    ("read the disk", "refused"),
    ("write the disk", "refused"),
    ("mount the disk", "refused"),
    ("read memory", "refused"),
    ("read kernel messages", "refused"),
    ("open a loop device", "refused"),
    ("open fuse", "refused"),
    ("open kvm", "refused"),
    ("root of the disk by handle", "refused"),
    ("mount proc", "refused"),
    ("mount sysfs", "refused"),
    ("mount cgroup", "refused"),
    ("mount cgroup2", "refused"),
    ("mount tmpfs", "refused"),
    ("bind", "refused"),
    ("make /proc/sys writable", "refused"),
    ("make /sys writable", "refused"),
    ("take a mount away", "refused"),
    ("new mount calls", "refused"),
    ("clone a mount", "refused"),
    ("user namespace", "refused"),
    ("user namespace by clone", "refused"),
    ("user namespace by clone3", "refused"),
    ("mount namespace", "refused"),
    ("cgroup namespace", "refused"),
    ("kexec", "refused"),
    ("kexec on crash", "refused"),
    ("kexec by file", "refused"),
    ("load a module", "refused"),
    ("load a module by file", "refused"),
    ("bpf", "refused"),
    ("perf", "refused"),
    ("keys", "refused"),
    ("add a key", "refused"),
    ("kernel log", "refused"),
    ("io_uring", "refused"),
    ("ports", "refused"),
    ("clock", "refused"),
    ("swap", "refused"),
    ("raise a limit", "refused"),
];

/// A process of the server's root, which nobody inside may find.
struct Bystander(Child);

impl Bystander {
    fn start() -> Self {
        Self(Command::new("sleep").arg("86399").spawn().unwrap())
    }
    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Major and minor number of the disk that the state directory lies on.
fn disk(server: &TestServer) -> (u64, u64) {
    let disk = fs::metadata(server.state_dir()).unwrap().dev();
    // As gnu_dev_major(3) and gnu_dev_minor(3), for numbers of 12 and 8 bits.
    (disk >> 8 & 0xfff, disk & 0xff)
}

/// Puts the device nodes that `escape.c` tries into the files of an image.
fn plant(server: &TestServer, image: &str) {
    let dir = top_layer(server, image).1.join("planted");
    fs::create_dir(&dir).unwrap();
    let (major, minor) = disk(server);
    for (kind, major, minor) in
        [("b", major, minor), ("c", 1, 1), ("c", 1, 11), ("c", 10, 237), ("c", 10, 229), ("c", 10, 232)]
    {
        let mut mknod = Command::new("mknod");
        mknod.arg(dir.join(format!("{kind}-{major}-{minor}"))).arg(kind);
        let made = mknod.args([major, minor].map(|n| n.to_string())).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
}

/// A script that writes the attacker into the session and runs it, then tries what a shell can try.
fn script(server: &TestServer, bystander: u32) -> String {
    let attacker = unpack(server, "escape", "/root/escape");
    // The disk that the state directory lies on: what an attacker wants first.
    let (major, minor) = disk(server);
    let socket = server.socket().display().to_string();
    format!(
        "{attacker}/root/escape {major} {minor}\nbystander={bystander} socket={socket} state={}\n{SHELL_ATTEMPTS}",
        server.state_dir().display()
    )
}

/// Each line after the first that is printed is a success of the attacker.
const SHELL_ATTEMPTS: &str = r#"
echo attempts:
# Settings of the kernel. Each gets the value that it has, so that a hole changes nothing on the server.
for file in kernel/core_pattern kernel/modprobe kernel/hotplug kernel/pid_max fs/file-max vm/overcommit_memory; do
    value=$(cat /proc/sys/$file 2>/dev/null) && (echo "$value" >/proc/sys/$file) 2>/dev/null && echo "wrote $file"
done
(echo h >/proc/sysrq-trigger) 2>/dev/null && echo 'wrote to sysrq'
find /sys -path /sys/fs/cgroup -prune -o -name uevent -type f -print 2>/dev/null | head -n 20 | while read -r file; do
    (echo change >"$file") 2>/dev/null && echo "wrote $file"
done
# The server's memory and messages.
for file in /proc/kcore /proc/vmcore /proc/kpageflags /proc/kpagecgroup /dev/mem /dev/kmsg; do
    [ -e $file ] && [ "$(head -c 1 $file 2>/dev/null | wc -c)" != 0 ] && echo "read $file"
done
# Processes of the server. The patterns do not match themselves: grep may be among the processes already.
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o -e 'walt-serve[r]' -e 'sleep 8639[9]'
kill -9 "$bystander" 2>/dev/null
# Its socket and its state, by every process's view of the tree.
ls -d "$socket" "$state" /proc/[0-9]*/root"$socket" /proc/[0-9]*/root"$state" 2>/dev/null
# Control groups: more devices, a program that the kernel runs, a place above.
for group in /sys/fs/cgroup/devices /sys/fs/cgroup; do
    [ -e $group/devices.allow ] && (echo 'a *:* rwm' >$group/devices.allow) 2>/dev/null && echo "devices of $group"
done
/root/escape 0 0 >/dev/null; [ -b /root/node ] && rm -f /root/node
find /sys/fs/cgroup -name release_agent 2>/dev/null
grep -v -e ':/$' -e ':/system.slice' -e ':/init.scope' -e ':/user.slice' /proc/self/cgroup
exit 0
"#;

pub fn start(image: &str) -> TestServer {
    let server = TestServer::start_with_images(&[image]);
    // The first command of a user clones the default image; any other one is cloned by name.
    let own = server.walt(USER, &["image", "show", "--names-only"]).ok();
    if !own.lines().any(|name| name == image) {
        server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{image}")]).ok();
    }
    server
}

fn nothing_is_gained(server: &TestServer, image: &str, namespaces: bool) {
    let mut bystander = Bystander::start();
    let ran = server.walt_with_input(USER, &["image", "shell", image], &script(server, bystander.0.id()));
    let (said, more) = ran.out.split_once("attempts:\n").unwrap_or_else(|| panic!("{ran:?}"));
    let said: Vec<(&str, &str)> = said.lines().filter_map(|l| l.split_once(": ")).collect();
    let mut expected = EXPECTED;
    if !namespaces {
        expected[0].1 = "DONE";
    }
    assert_eq!(said, expected, "{}", ran.err);
    assert_eq!(more, "", "the shell gained something");
    assert!(bystander.lives());
}

#[test]
fn nothing_is_gained_from_the_mini_image() {
    let mut server = start(MINI);
    plant(&server, MINI);
    for namespaces in [true, false] {
        restart(&mut server, namespaces);
        nothing_is_gained(&server, MINI, namespaces);
        limits_cannot_be_changed(&server, MINI);
    }
}

#[test]
fn nothing_is_gained_from_an_image_with_its_os_started() {
    let server = start("pc-x86-64-default");
    plant(&server, "pc-x86-64-default");
    nothing_is_gained(&server, "pc-x86-64-default", true);
    limits_cannot_be_changed(&server, "pc-x86-64-default");
    // Its OS takes a while to start, and the image to come: what is to work there is tried on the same server.
    super::services::start_and_far_users_own_their_files(&server, "pc-x86-64-default");
}

/// The session's root may write the files of its own control group: those that count are above it.
fn limits_cannot_be_changed(server: &TestServer, image: &str) {
    let mut shell = server.terminal(USER, &["image", "shell", image]);
    shell.expect("# ", OS);
    // No other test's session has this one.
    let seconds = format!("{}.{}", std::process::id(), image.len());
    shell.must(&format!("(sleep {seconds} &)"), SOON);
    let pid = process(&format!("sleep {seconds}"));
    let memory = bound(&pid, "memory", "memory.limit_in_bytes", "memory.max");
    let tasks = bound(&pid, "pids", "pids.max", "pids.max");
    let values = || [&memory, &tasks].map(|p| fs::read_to_string(p).unwrap().trim().to_owned());
    let before = values();
    let bytes: u64 = before[0].parse().unwrap_or_else(|_| panic!("no bound in {}", memory.display()));
    assert!(bytes < machine_memory() && bytes > machine_memory() / 2, "{bytes}");
    assert!(before[1].parse::<u64>().is_ok(), "no bound in {}: {}", tasks.display(), before[1]);
    let all = "for f in $(find /sys/fs/cgroup -name 'memory*limit_in_bytes' -o -name memory.max -o -name pids.max); do \
               echo -1 >$f || echo max >$f; done 2>/dev/null; true";
    shell.must(all, SOON);
    assert_eq!(values(), before);
    shell.kill();
    server.walt(USER, &["image", "shell", "--discard", image]).ok();
}

/// Memory of this machine, in bytes.
fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let words: Vec<&str> =
        text.lines().find(|l| l.starts_with("MemTotal:")).unwrap().split_whitespace().collect();
    words[1].parse::<u64>().unwrap() * 1024
}

/// A process that runs in a session, found from outside by its command line.
pub fn process(command_line: &str) -> String {
    until(&format!("the process '{command_line}'"), SOON, || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let found = entries.map(|e| e.path()).find(|path| {
            fs::read(path.join("cmdline"))
                .is_ok_and(|t| String::from_utf8_lossy(&t).replace('\0', " ").trim() == command_line)
        });
        found.map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
    })
}

/// The file of a controller that bounds a session as a whole, outside of what the session can see.
fn bound(pid: &str, controller: &str, v1: &str, v2: &str) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |wanted: &str| {
        let line = groups.lines().find(|l| l.split(':').nth(1) == Some(wanted))?;
        let path = line.splitn(3, ':').nth(2).unwrap();
        let end = path.find("/container").unwrap_or_else(|| panic!("no group above the container's: {path}"));
        Some(path[1..end].to_owned())
    };
    match path(controller) {
        Some(path) => Path::new(CGROUPS).join(controller).join(path).join(v1),
        None => Path::new(CGROUPS).join(path("").unwrap()).join(v2),
    }
}
