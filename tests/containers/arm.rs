//! Images of another CPU: their shells, by emulation.

use super::{SOON, USER};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use walt_sys::binfmt::Binfmt;
use walt_testkit::{OS_STARTED, Options, TestServer, User, images};

/// For the start, and for the end, of the OS in a container on an emulated CPU; and for a package to be installed.
const SLOW: Duration = Duration::from_secs(400);

/// In a mount namespace of its own, a program finds neither a handler of the kernel nor an emulator.
const WITHOUT_EMULATORS: &str = r#"
    if [ -d /proc/sys/fs/binfmt_misc ]; then mount --bind "$1" /proc/sys/fs/binfmt_misc || exit; fi
    shift
    for program in /usr/bin/qemu-s390x* /usr/bin/qemu-aarch64* /usr/local/bin/qemu-s390x* /usr/local/bin/qemu-aarch64*; do
        if [ -e "$program" ]; then mount --bind /dev/null "$program" || exit; fi
    done
    exec "$@""#;

/// Handlers of the kernel for a CPU, by its name in theirs; another test may have some for another one.
fn handlers(kernel: &Binfmt, qemu: &str) -> BTreeSet<String> {
    let named = kernel.handlers().unwrap().into_iter().map(|(name, _)| name);
    named.filter(|name| name.ends_with(&format!("-{qemu}"))).collect()
}

/// What is done with an image of another CPU: its OS is started, a package installed, and all this saved.
fn tried(image: &str, cpu: &str, machine: &str, model: &str) {
    let handlers = |kernel: &Binfmt| handlers(kernel, machine.trim_end_matches("v7l"));
    let before = handlers(&Binfmt::open().unwrap());
    let mut server = TestServer::start_with_images(&[image]);
    let all = server.walt(USER, &["image", "show", "--all"]).ok();
    assert!(
        all.contains(&format!("walt:waltplatform/{model}-default")),
        "the default image of its models: {all}"
    );
    server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{model}-default"), "mine"]).ok();

    let note = format!("Note: this image is for another CPU ({cpu}); emulation makes it slower.\n");
    let mut shell = server.terminal(USER, &["image", "shell", "mine"]);
    shell.expect(&note, SOON);
    shell.expect("Note: the OS was started in a virtual environment.\n", SLOW);
    shell.expect("root@image-shell:~# ", SLOW);
    assert_eq!(shell.must("uname -m; cat /proc/1/comm", SOON), format!("{machine}\nsystemd\n"));
    shell.must(OS_STARTED, SLOW);
    assert_eq!(
        shell.must("systemctl is-system-running; systemctl is-active cron ssh", SOON),
        "running\nactive\nactive\n"
    );
    shell.must("apt-get update", SLOW);
    shell.must("apt-get install -y --no-install-recommends tree", SLOW);
    shell.must("echo 'model name : of the test' >/etc/cpuinfo", SOON);
    // The server's death does not take the emulator away from an open shell.
    server.kill();
    shell.kill();
    server.launch().unwrap();
    let mut shell = server.terminal(USER, &["image", "shell", "--resume", "mine"]);
    shell.line("");
    shell.expect("# ", SOON);
    // From here on, handlers stay until they are removed.
    let kernel = Binfmt::open().unwrap();
    assert!(shell.must("tree --version", SOON).contains("tree v"));
    shell.line("exit");
    shell.expect("New image name: ", SLOW);
    shell.line("other");
    let (status, rest) = shell.end(SLOW);
    assert!(status.success() && rest.contains("New image other saved."), "{status}: {rest}");

    let look = "tree --noreport /etc/walt\ncat /proc/cpuinfo\nuname -m\n";
    let ran = server.walt_with_input(USER, &["image", "shell", "other"], look);
    assert!(ran.out.ends_with(&format!("model name : of the test\n{machine}\n")), "{ran:?}");
    assert!(ran.out.contains("/etc/walt"), "the package is in the image: {ran:?}");
    assert!(ran.err.contains(note.trim_end()), "{ran:?}");
    // A command of a Dockerfile.
    let context = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = "FROM nobody/other\nRUN uname -m >/root/built && test -x /usr/bin/tree\n";
    fs::write(context.path().join("Dockerfile"), file).unwrap();
    let dir = context.path().to_str().unwrap();
    let ran = server.walt(User::Root, &["image", "build", "--from-dir", dir, "built"]);
    assert!(ran.out.contains(note.trim_end()) && ran.status == Some(0), "{ran:?}");
    let read = server.walt_with_input(User::Root, &["image", "shell", "built"], "cat /root/built\n");
    assert!(read.out.ends_with(&format!("{machine}\n")), "{read:?}");
    server.down();
    let left = handlers(&kernel);
    assert!(left.is_subset(&before), "what the server has registered is gone: {left:?}, not {before:?}");
}

#[test]
fn arm64() {
    tried("rpi64-default", "arm64", "aarch64", "rpi-4-b");
}

#[test]
fn arm() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: the 32-bit image takes minutes to build; WALT_TEST_LONG=1 asks for it");
        return;
    }
    tried("rpi32-default", "arm", "armv7l", "rpi-2-b");
}

#[test]
fn without_emulator() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    // As binfmt_misc looks, with a handler that is switched off.
    let disabled = "disabled\ninterpreter /q\nflags: F\noffset 0\nmagic 7f45\n";
    for (name, text) in [("register", ""), ("status", "enabled\n"), ("qemu-s390x", disabled)] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", WITHOUT_EMULATORS, "sh"];
    let wrapper = wrapper.iter().map(|w| (*w).to_owned()).chain([dir.path().display().to_string()]).collect();
    let server = TestServer::start_with(Options { wrapper, ..Options::default() }).unwrap();
    let image = images::tiny(server.dir());
    let labels = r#""Labels":{"walt.node.models":"pc-x86-64"}"#;
    fs::write(image.join("config.json"), format!(r#"{{"Architecture":"s390x",{labels}}}"#)).unwrap();
    server.import("big", &image);
    server.walt(USER, &["image", "clone", "walt:waltplatform/big"]).ok();
    server.walt(USER, &["image", "shell", "big"]).fails(
        1,
        "Error: This image is for another CPU than this server's: this server has no emulator for the CPU 's390x': \
         install the package 'qemu-user-static' on it.",
    );
    let show = server.walt(USER, &["image", "show"]).ok();
    assert!(!show.contains("shell"), "no session is left: {show}");
    // With a server that has none for itself, a recipe cannot be run either.
    let build = server.server_command(&["default-image", "build", "rpi64-default"]).output().unwrap();
    let said = String::from_utf8_lossy(&build.stderr);
    assert!(!build.status.success() && said.contains("install the package 'qemu-user-static'"), "{said}");
}
