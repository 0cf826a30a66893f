//! User namespaces of image shells: root is nobody outside, and files keep the numbers of the image.

use super::escape::{OS, process, start};
use super::mini::MINI;
use super::{SOON, USER, unpack};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use walt_testkit::TestServer;

/// The first number for users of containers, as the server has it by default.
const FIRST: u32 = 0x7800_0000;
/// The numbers of one container.
const SIZE: u32 = 65_536;
/// Where `deeds.c` works.
const DEEDS: &str = "deeds";

/// Starts the server again, with or without user namespaces.
pub fn restart(server: &mut TestServer, namespaces: bool) {
    server.kill();
    let config = fs::read_to_string(server.config()).unwrap();
    let plain = config.replace("user-namespaces: false, ", "");
    let with = if namespaces {
        plain
    } else {
        plain.replacen("containers: {", "containers: {user-namespaces: false, ", 1)
    };
    fs::write(server.config(), with).unwrap();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let status = server.server_command(&["status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["user_namespaces"]["used"], namespaces, "{status}");
    let why = status["user_namespaces"]["why"].as_str();
    assert_eq!(why, (!namespaces).then_some("containers.user-namespaces is false"));
}

/// The topmost layer of an image of the user: its digest, and its directory.
pub fn top_layer(server: &TestServer, image: &str) -> (String, PathBuf) {
    let list = server.api(Some("nobody")).get("/api/v1/images").json();
    let fullname = format!("{}/{image}:latest", "nobody");
    let found = list["images"].as_array().unwrap().iter().find(|i| i["fullname"] == *fullname);
    let id = found.unwrap_or_else(|| panic!("no {fullname} in {list}"))["id"].as_str().unwrap().to_owned();
    let hex = |id: &str| id.trim_start_matches("sha256:").to_owned();
    let config = server.state_dir().join(format!("images/configs/{}.json", hex(&id)));
    let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    let layer = config["rootfs"]["diff_ids"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
    let dir = server.state_dir().join(format!("images/layers/{}/fs", hex(&layer)));
    (layer, dir)
}

/// All that is in a layer, for the message of a failed comparison.
fn listing(layer: &Path) -> String {
    let script =
        "find . -printf '%P %y %m %U:%G %s %n %l %T@\\n' | sort; getfattr -R -h -d -m - -e hex . 2>/dev/null";
    let ran = Command::new("sh").args(["-c", script]).current_dir(layer).output().unwrap();
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let size = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..size].to_vec())
}

/// Owners, set-id bits, file capabilities, access lists, hard links, whiteouts and opaque directories are saved as
/// without a user namespace, to the last byte.
#[test]
fn a_save_is_the_same_with_and_without_a_user_namespace() {
    let mut server = start(MINI);
    let program = unpack(&server, "deeds", "/tmp/deeds");
    let mut saved = Vec::new();
    for namespaces in [true, false] {
        restart(&mut server, namespaces);
        let map = server.walt_with_input(USER, &["image", "shell", MINI], "cat /proc/self/uid_map\n").ok();
        let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[..3] == [0, FIRST, SIZE], namespaces, "{numbers:?}");
        let script = |what: &str| format!("{program}/tmp/deeds {what}\n");
        let run = |from: &str, to: &str, what: &str| {
            let save = format!("--save={to}");
            server.walt_with_input(USER, &["image", "shell", from, &save], &script(what)).ok();
        };
        let names = [format!("base-{namespaces}"), format!("changed-{namespaces}")];
        run(MINI, &names[0], "base");
        run(&names[0], &names[1], "change");
        saved.push(names.map(|name| top_layer(&server, &name)));
    }
    let (layer, base) = (saved[0][1].1.join(DEEDS), saved[0][0].1.join(DEEDS));
    let meta = |name: &str| layer.join(name).symlink_metadata().unwrap();
    let owner = |name: &str| (meta(name).uid(), meta(name).gid());
    let capability = Some([1, 0, 0, 2, 0, 32].iter().copied().chain([0; 14]).collect());
    assert_eq!(xattr(&base.join("touched"), "security.capability"), capability);
    for name in ["new-capable", "touched"] {
        assert_eq!(xattr(&layer.join(name), "security.capability"), capability, "{name}");
    }
    assert_eq!((owner("owner"), owner("symlink")), ((65534, 65535), (1000, 1001)));
    assert_eq!((owner("touched"), meta("touched").mode() & 0o7777), ((1000, 65534), 0o6751));
    assert_eq!((owner("mode"), meta("mode").mode() & 0o7777), ((3, 4), 0o4755));
    assert_eq!(owner("copied-up/below/of-another"), (1000, 1001));
    assert_eq!(
        (owner("new"), meta("new").nlink(), meta("copied-up/new").ino()),
        ((0, 0), 2, meta("new").ino())
    );
    assert!(meta("gone").file_type().is_char_device() && meta("gone").rdev() == 0);
    assert_eq!(xattr(&layer.join("opaque"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
    let list = xattr(&layer.join("with-attributes"), "system.posix_acl_access").unwrap();
    assert_eq!(list[16..20], 1000u32.to_le_bytes());
    for (with, without) in saved[0].iter().zip(&saved[1]) {
        let differ = || format!("{}\n--- and without:\n{}", listing(&with.1), listing(&without.1));
        assert_eq!(with.0, without.0, "{}", differ());
    }
}

/// Commands of a build as well, and what is shown to them has the owners that it is to have.
#[test]
fn a_build_is_the_same_with_and_without_a_user_namespace() {
    let mut server = start(MINI);
    let place = server.dir().join("context");
    fs::create_dir(&place).unwrap();
    fs::write(server.dir().join("secret"), "hidden\n").unwrap();
    unpack(&server, "deeds", "/dev/null");
    fs::copy(server.dir().join("deeds"), place.join("deeds")).unwrap();
    let file = format!(
        "FROM {MINI} AS other\n\
         RUN mkdir /o && echo x >/o/f && chown 5:6 /o/f && chown 7:8 /o\n\
         FROM {MINI}\n\
         COPY --chmod=755 deeds /bin/\n\
         RUN cat /proc/self/uid_map\n\
         RUN deeds base\n\
         RUN deeds change && touch -h -d @1 / /deeds\n\
         WORKDIR /root\n\
         RUN --mount=type=cache,target=/c,uid=3,gid=4 --mount=from=other,source=/o,target=/b \\\n\
           --mount=type=secret,id=s,uid=7,mode=0440 --mount=type=tmpfs,target=/t --mount=target=/x \\\n\
           touch /c/f && chown 9:10 /c/f && \\\n\
           ls -ldn /c /c/f /b /b/f /run/secrets/s /t /etc/hosts /x / /etc | sed 's/ [A-Z].* / /' >seen && \\\n\
           touch -d @1 seen . && echo through the pipe >/dev/stdout\n\
         RUN --mount=type=cache,target=/c ls -n /c/f | grep -q ' 9 .* 10 '\n\
         USER 1000:1001\n\
         RUN --mount=type=secret,id=s,uid=1000,target=/s cat /s && id -u && echo mine >/dev/stdout\n"
    );
    fs::write(place.join("Dockerfile"), file).unwrap();
    let secret = format!("id=s,src={}", server.dir().join("secret").display());
    let mut made = Vec::new();
    for namespaces in [true, false] {
        restart(&mut server, namespaces);
        let name = format!("built-{namespaces}");
        let dir = place.to_str().unwrap();
        let words = ["image", "build", "--no-cache", "--from-dir", dir, "--secret", &secret, &name];
        let said = server.walt(USER, &words).ok();
        let map = said.lines().find(|l| l.starts_with("  ")).unwrap_or_else(|| panic!("no map: {said}"));
        let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[0] == 0 && numbers[1] >= FIRST && numbers[2] == SIZE, namespaces, "{said}");
        assert!(said.contains("\nthrough the pipe\n") && said.contains("hidden\n1000\nmine\n"), "{said}");
        let look = server.walt_with_input(USER, &["image", "shell", &name], "cat /root/seen\n").ok();
        made.push((look, top_layer(&server, &name)));
    }
    let ((seen, with), (seen_without, without)) = (&made[0], &made[1]);
    assert_eq!(seen, seen_without);
    for (path, owner) in
        [("/c", " 3 "), ("/c/f", " 9 "), ("/b", " 7 "), ("/b/f", " 5 "), ("/run/secrets/s", " 7 ")]
    {
        let line = seen.lines().find(|l| l.ends_with(&format!(" {path}")));
        assert!(line.is_some_and(|l| l.contains(owner)), "{path}: {seen}");
    }
    assert_eq!(with.0, without.0, "{}\n--- and without:\n{}", listing(&with.1), listing(&without.1));
}

/// What a program would gain that got out of all namespaces of its container but the one of its users.
#[test]
fn root_of_a_shell_is_nobody_outside() {
    let mut server = start(MINI);
    restart(&mut server, true);
    let mut shell = server.terminal(USER, &["image", "shell", MINI]);
    shell.expect("# ", OS);
    let seconds = format!("{}.25", std::process::id());
    shell.must(&format!("(sleep {seconds} &)"), SOON);
    let pid = process(&format!("sleep {seconds}"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for key in ["Uid:", "Gid:"] {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap();
        let numbers: Vec<&str> = line.split_whitespace().skip(1).collect();
        assert_eq!(numbers, [FIRST.to_string().as_str(); 4], "{line}");
    }
    let mut bystander = Command::new("sleep").arg("86398").spawn().unwrap();
    let out = format!(
        r#"
        id -u
        kill -9 {bystander} 2>/dev/null && echo killed
        for file in kernel/core_pattern kernel/modprobe kernel/pid_max; do
            value=$(cat /proc/sys/$file) && (echo "$value" >/proc/sys/$file) 2>/dev/null && echo "wrote $file"
        done
        ls '{state}' 2>/dev/null
        cat /etc/shadow /proc/{bystander}/environ 2>/dev/null
        ls /proc/{bystander}/fd /root 2>/dev/null
        head -c 1 /dev/mem /dev/kmsg $(ls /dev/vda /dev/sda 2>/dev/null) 2>/dev/null
        mknod '{run}/shell/node' b 8 0 2>/dev/null && echo made a device
        mount -t tmpfs none /mnt 2>/dev/null && echo mounted
        echo $$ 2>/dev/null >/sys/fs/cgroup/cgroup.procs && echo left its control group
        curl -s --unix-socket '{run}/walt.sock' http://walt/api/v1/nodes
        "#,
        bystander = bystander.id(),
        state = server.state_dir().display(),
        run = server.dir().join("run").display()
    );
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--user=/proc/{pid}/ns/user")).args(["-S", "0", "-G", "0", "sh", "-c", &out]);
    let ran = nsenter.stdin(Stdio::null()).output().unwrap();
    let lives = bystander.try_wait().unwrap().is_none();
    let _ = bystander.kill();
    let _ = bystander.wait();
    let said = String::from_utf8_lossy(&ran.stdout);
    let (id, gained) = said.split_once('\n').unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!(id, "0", "{ran:?}");
    let refused = format!("user id {FIRST} has no account on the server");
    assert!(gained.starts_with('{') && gained.contains(&refused) && gained.lines().count() == 1, "{gained}");
    assert!(lives);
    shell.kill();
}

/// A session goes on as it began, over the same files; an image with owners that a range has not is opened without.
#[test]
fn sessions_go_on_as_they_began() {
    let mut server = start(MINI);
    let own_map = |ran: &str| ran.contains(&FIRST.to_string());
    let resume = |server: &TestServer, path: &str| {
        let mut shell = server.terminal(USER, &["image", "shell", "--resume", MINI]);
        shell.send("\r");
        shell.expect("# ", OS);
        let said = shell.must(&format!("cat /proc/self/uid_map; ls -ln {path}"), SOON);
        shell.kill();
        said
    };
    for began in [true, false] {
        restart(&mut server, began);
        let mut shell = server.terminal(USER, &["image", "shell", MINI]);
        shell.expect("# ", OS);
        shell.must("touch /root/kept; chown 7:8 /root/kept", SOON);
        shell.kill();
        // The holder lives: nothing changes for it.
        restart(&mut server, !began);
        assert_eq!(own_map(&resume(&server, "/root/kept")), began);
        // A new one over the same files.
        server.down();
        server.launch().unwrap_or_else(|e| panic!("{e:?}"));
        restart(&mut server, !began);
        let said = resume(&server, "/root/kept");
        assert!(!own_map(&said) && said.contains(" 7 ") && said.contains(" 8 "), "{said}");
        server.walt(USER, &["image", "shell", "--discard", MINI]).ok();
    }
    restart(&mut server, false);
    let far = "touch /root/far; chown 0:2147418112 /root/far\n";
    server.walt_with_input(USER, &["image", "shell", MINI, "--save=far"], far).ok();
    restart(&mut server, true);
    let ran = server.walt_with_input(USER, &["image", "shell", "far"], "cat /proc/self/uid_map\n");
    assert!(!own_map(&ran.ok()));
    assert!(server.log().contains("/root/far belongs to a user above 2147418111"), "{}", server.log());
}
