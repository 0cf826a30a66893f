//! The scripts of `node/` as they are on nodes, in a directory that is their root: those of CPUs without the program, which
//! have busybox only, and the fifo of the images' own log daemon.

use super::server::{Faults, Server, now};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Runs words in a root (`$0`) that has the /dev and /proc of this machine, for as long as they run.
const IN_ROOT: &str = r#"root=$0; mount --rbind /dev "$root/dev" && mount --rbind /proc "$root/proc" &&
    exec chroot "$root" "$@""#;

/// The root of a node; none where the tests may not have one.
fn root(address: std::net::SocketAddr, with_program: bool) -> Option<TempDir> {
    let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap().stdout;
    let busybox = String::from_utf8(busybox).unwrap();
    if !rustix::process::geteuid().is_root() || busybox.is_empty() {
        eprintln!("skipped: needs root, for a root directory of its own, and busybox-static");
        return None;
    }
    let dir = TempDir::new().unwrap();
    let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
    for sub in ["bin/_walt_internal_", "dev", "proc", "tmp", "var/lib/walt"] {
        fs::create_dir_all(at(sub)).unwrap();
    }
    let put = |path: &str, content: &[u8]| {
        fs::write(at(path), content).unwrap();
        fs::set_permissions(at(path), fs::Permissions::from_mode(0o755)).unwrap();
    };
    put("bin/busybox", &fs::read(busybox.trim()).unwrap());
    for applet in ["sh", "cat", "date", "rm", "sleep", "echo", "seq", "printf", "dmesg", "tail", "ls", "test"]
    {
        symlink("busybox", at("bin").join(applet)).unwrap();
    }
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node");
    for line in fs::read_to_string(node.join("manifest")).unwrap().lines() {
        if let [name, path, _] = line.split_whitespace().collect::<Vec<_>>()[..]
            && !line.starts_with('#')
        {
            put(path, &fs::read(node.join(name)).unwrap());
        }
    }
    if with_program {
        put(walt_log_tools::PATH, walt_log_tools::program("amd64").unwrap());
    }
    let (ip, port) = (address.ip(), address.port());
    put("bin/walt-env", format!("walt_server_ip={ip}\nwalt_server_logs_port={port}\n").as_bytes());
    Some(dir)
}

fn run(root: &TempDir, words: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", IN_ROOT]).arg(root.path()).args(words);
    // /dev/shm is that of this machine
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("WALT_LOG_SPOOL", "/tmp/spool");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A server of the framing that published images have: what each connection said.
fn old_server() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn one_upload(listener: &TcpListener) -> JoinHandle<String> {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        let mut all = String::new();
        while reader.read_line(&mut all).unwrap() > 0 && !all.ends_with("\nCLOSE\n") {}
        all
    })
}

#[test]
fn scripts_send_lines_where_there_is_no_program() {
    let (listener, address) = old_server();
    let Some(root) = root(address, false) else { return };
    let upload = |words: &[&str], input: &[u8]| {
        let thread = one_upload(&listener);
        let start = Instant::now();
        let ran = run(&root, words, input);
        // who reads the output of a tool sees its end when the server has closed, and not five seconds later
        assert!(start.elapsed() < Duration::from_secs(4), "{words:?}: {:?}", start.elapsed());
        (thread.join().unwrap(), ran)
    };
    let (sent, ran) = upload(&["/bin/walt-log-cat", "s"], b"one\ntwo\n");
    assert_eq!(sent, "REQ_NEW_INCOMING_LOGS\ns\nNO_TIMESTAMPS\none\ntwo\nCLOSE\n", "{ran:?}");
    assert!(ran.status.success() && ran.stdout.is_empty(), "{ran:?}");

    let (sent, ran) = upload(&["/bin/walt-log-tee", "--ts-provided", "s t"], b"12.5 one\n13 two\n");
    assert_eq!(sent, "REQ_NEW_INCOMING_LOGS\ns t\nTIMESTAMPS_INSIDE\n12.5 one\n13 two\nCLOSE\n");
    assert_eq!(ran.stdout, b"12.5 one\n13 two\n", "{ran:?}");

    let (sent, ran) = upload(&["/bin/walt-log-echo", "--ts", "12.5", "s", "a", "b"], b"");
    assert_eq!(sent, "REQ_NEW_INCOMING_LOGS\ns\nTIMESTAMPS_INSIDE\n12.5 a b\nCLOSE\n", "{ran:?}");

    let (sent, ran) = upload(&["/bin/walt-log-monitor", "sh", "-c", "cat; echo error >&2; exit 3"], b"in\n");
    assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(3), &b"in\nerror\n"[..]), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("is not on a terminal"), "{ran:?}");
    let stream = sent.lines().nth(1).unwrap();
    assert!(stream.starts_with("sh.") && stream.ends_with(".monitor"), "{sent}");
    assert!(sent.ends_with("\nNO_TIMESTAMPS\nSTART\nin\nerror\nEND\nCLOSE\n"), "{sent}");

    let (sent, _) = upload(&["/bin/walt-log-cat", "--ts-local", "s"], b"x\n");
    if sent.contains("TIMESTAMPS_INSIDE") {
        let time = sent.lines().nth(3).and_then(|l| l.strip_suffix(" x")).unwrap();
        assert!((time.parse::<f64>().unwrap() - now()).abs() < 60., "{sent}");
    } else {
        assert_eq!(sent, "REQ_NEW_INCOMING_LOGS\ns\nNO_TIMESTAMPS\nx\nCLOSE\n", "a busybox without %N");
    }
}

#[test]
fn the_programs_of_nodes_are_found_by_their_names() {
    let server = Server::new(Faults::default());
    let Some(root) = root(server.address, true) else { return };
    let ran = run(&root, &["/bin/walt-log-tee", "s"], b"CLOSE\n");
    assert_eq!((ran.status.code(), &ran.stdout[..], &ran.stderr[..]), (Some(0), &b"CLOSE\n"[..], &b""[..]));
    assert!(run(&root, &["/bin/walt-log-cat", "s"], b"by cat\n").status.success());
    assert!(run(&root, &["/bin/walt-log-echo", "s", "by echo"], b"").status.success());
    let ran = run(&root, &["/bin/walt-log-monitor", "sh", "-c", "exit 4"], b"");
    assert_eq!(ran.status.code(), Some(4), "{ran:?}");
    let lines: Vec<Vec<u8>> = server.lines().into_iter().map(|l| l.bytes).collect();
    assert_eq!(lines, [&b"CLOSE"[..], b"by cat", b"by echo", b"START", b"END"]);
}

#[test]
fn echo_uses_the_log_daemon_of_the_image() {
    for with_program in [true, false] {
        let server = Server::new(Faults::default());
        let Some(root) = root(server.address, with_program) else { return };
        let fifo = root.path().join("var/lib/walt/logs.fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut held = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let wanted = "LOG s a b\nTSLOG 12.5 s c\n";
        let ran = run(&root, &["/bin/walt-log-echo", "s", "a", "b"], b"");
        assert!(ran.status.success(), "{ran:?}");
        let ran = run(&root, &["/bin/walt-log-echo", "--timestamp", "12.5", "s", "c"], b"");
        assert!(ran.status.success(), "{ran:?}");
        let mut got = vec![0; wanted.len()];
        held.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), wanted);
        assert_eq!(server.connections(), 0);
        if with_program {
            // a daemon that is gone does not make it wait
            drop(held);
            assert!(run(&root, &["/bin/walt-log-echo", "s", "direct"], b"").status.success());
            assert_eq!(server.lines()[0].bytes, b"direct");
        }
    }
}

#[test]
fn the_examples_of_the_help_pages_run() {
    let server = Server::new(Faults::default());
    let Some(root) = root(server.address, true) else { return };
    for (topic, lines) in [("log-echo", 3), ("log-cat", 6), ("log-tee", 101), ("log-monitor", 6)] {
        let before = server.lines().len();
        for example in walt_testkit::help::examples(topic) {
            // those with placeholders say what can be written
            if example.command.contains('<') {
                continue;
            }
            let ran = run(&root, &["sh", "-c", &example.command], b"");
            assert!(ran.status.success() && ran.stderr.is_empty(), "{topic}: {ran:?}");
            let out = String::from_utf8(ran.stdout).unwrap().replace('\r', "");
            let shown: String = example.output.iter().map(|line| format!("{line}\n")).collect();
            assert_eq!(out, shown, "{topic}: {}", example.command);
        }
        let logged = server.lines().len() - before;
        assert!(logged >= lines, "{topic}: {logged} lines");
    }
}
