//! The process that undoes compressions has no rights.

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};
use walt_testkit::{programs, until};

fn start(format: &str) -> Child {
    let mut command = Command::new(programs().join("walt-server"));
    command.args(["decompress", format]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn it_is_nobody_and_can_do_nothing_but_read_and_write() {
    let mut child = start("gzip");
    let status = until("the process to give up its rights", Duration::from_secs(20), || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        status.contains("Seccomp:\t2").then_some(status)
    });
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}: {status}"))[name.len() + 1..].trim().to_owned()
    };
    for name in ["Uid", "Gid"] {
        assert_eq!(field(name), "65534\t65534\t65534\t65534", "{name}");
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(name), "0".repeat(16), "{name}");
    }
    assert_eq!((field("Groups"), field("NoNewPrivs")), (String::new(), "1".to_owned()));
    let files: Vec<String> = fs::read_dir(format!("/proc/{}/fd", child.id()))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    assert!(files.len() == 3 && files.iter().all(|f| f.starts_with("pipe:")), "{files:?}");

    // What is packed fits into a pipe, and what is in it does not.
    let plain: Vec<u8> = (0..20_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    child.stdin.take().unwrap().write_all(&packed("gzip", &plain)).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stdout == plain, "{:?}: {:?}", out.status, out.stderr);
}

#[test]
fn all_formats_and_what_is_wrong() {
    let plain = b"some text\n".repeat(10_000);
    for (format, program) in [("gzip", "gzip"), ("bzip2", "bzip2"), ("xz", "xz"), ("zstd", "zstd")] {
        let whole = packed(program, &plain);
        let run = |bytes: &[u8]| {
            let mut child = start(format);
            // A process that has seen enough does not read to the end.
            let _ = child.stdin.take().unwrap().write_all(bytes);
            let mut said = String::new();
            let mut out = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            (child.wait().unwrap().code(), out, said)
        };
        let (status, out, said) = run(&whole);
        assert!(status == Some(0) && out == plain, "{format}: {status:?} {said}");
        let (status, _, said) = run(&whole[..whole.len() / 2]);
        assert!(status == Some(1) && !said.is_empty(), "{format}: {status:?} {said}");
        let (status, out, said) = run(b"these are not compressed bytes at all");
        assert!(status == Some(1) && out.is_empty() && !said.is_empty(), "{format}: {status:?} {said}");
    }
    let out = start("rar").wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "'rar' is not a format of compression");
}
