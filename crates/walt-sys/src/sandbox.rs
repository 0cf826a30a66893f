//! Giving up all rights: for processes that read bytes of strangers, and need nothing but to read and write the streams that
//! they have.
//!
//! After [`enter`], the process is nobody, has no files but its three streams, can get no rights back, may use memory up to a limit, and may call what is listed in
//! [`ALLOWED`]: it cannot open or name a file, a socket, or another process, cannot start a program or a thread, and can map
//! no memory as code. A call that is not listed ends it (seccomp(2)). So it needs neither namespaces nor Landlock, which take
//! away what it has not.
//!
//! seccompiler (rust-vmm; of Firecracker) writes the filter: its only dependency is libc.

use crate::{During, Result, checked};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// User and group: nobody.
const NOBODY: u32 = 65_534;
/// Most memory, in bytes: xz may take half of it (`XZ_MEMORY` of walt-images), the program itself some.
const MEMORY: u64 = 1536 << 20;
/// What may be called: reading, writing and closing; memory; what the end of a process needs; the clock; locks.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// What may be called unless the third argument asks for memory that can be executed.
const ALLOWED_NOT_AS_CODE: &[libc::c_long] = &[libc::SYS_mmap, libc::SYS_mprotect];
/// Place of the protection in the arguments of mmap(2) and mprotect(2).
const PROTECTION: u8 = 2;

/// Gives up all rights of this process, for good. It must have one thread. All descriptors but the standard streams are closed.
///
/// # Errors
/// Something could not be given up: the process must end.
pub fn enter() -> Result<()> {
    // First of all: what is forbidden cannot be looked up any more afterwards.
    let filter = filter().during(|| "write a filter of system calls".into())?;
    let none = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    close_all_but_streams()?;
    setrlimit(Resource::As, none(MEMORY)).during(|| "limit the memory".into())?;
    setrlimit(Resource::Core, none(0)).during(|| "switch off core dumps".into())?;
    setrlimit(Resource::Fsize, none(0)).during(|| "forbid to write files".into())?;
    become_nobody()?;
    setrlimit(Resource::Nproc, none(0)).during(|| "forbid to start processes".into())?;
    setrlimit(Resource::Nofile, none(0)).during(|| "forbid to open files".into())?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .during(|| "hide the memory from others".into())?;
    // It sets no_new_privs as well.
    seccompiler::apply_filter(&filter).map_err(std::io::Error::other).during(|| "filter system calls".into())
}

/// Closes what was inherited: the server opens everything so that children do not get it, but who started the server may
/// have left files open.
fn close_all_but_streams() -> Result<()> {
    let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
    // SAFETY: plain numbers. Nothing in this process owns one of these descriptors: it has just begun.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
        .map(drop)
        .during(|| "close what was inherited".into())
}

/// Becomes nobody. Capabilities go with the last user id of root (capabilities(7)).
fn become_nobody() -> Result<()> {
    let what = || "become an unprivileged user".to_owned();
    // SAFETY: no pointer is read, since the list has no entries; the ids are those of this process, which has one thread.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) }.into()).during(what)?;
    // SAFETY: plain numbers.
    checked(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) }.into()).during(what)?;
    // SAFETY: plain numbers.
    checked(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }.into()).during(what)?;
    Ok(())
}

fn filter() -> std::io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let executable = libc::PROT_EXEC as u64;
    for call in ALLOWED_NOT_AS_CODE {
        let condition =
            SeccompCondition::new(PROTECTION, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0);
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        rules.insert(*call, vec![rule.map_err(std::io::Error::other)?]);
    }
    let arch = std::env::consts::ARCH.try_into().map_err(std::io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
    filter.and_then(BpfProgram::try_from).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };

    /// Variable that says what a process of [`confined`] tries.
    const TRIES: &str = "WALT_SANDBOX_TRIES";

    /// Run by the tests below as a process of its own.
    #[test]
    #[ignore = "part of the tests below"]
    fn confined() {
        let Ok(tries) = std::env::var(TRIES) else { return };
        // The harness runs tests on threads: only this one is confined, and that is enough to see what it may do.
        enter().unwrap();
        let mut text = String::new();
        match tries.as_str() {
            "nothing" => {
                std::io::stdin().read_to_string(&mut text).unwrap();
                let big = vec![1u8; 8 << 20];
                writeln!(std::io::stderr(), "{text} {}", big.len()).unwrap();
            }
            "open" => drop(std::fs::File::open("/etc/passwd")),
            "socket" => drop(std::net::TcpStream::connect("127.0.0.1:9")),
            "program" => drop(Command::new("true").status()),
            "memory" => {
                let mut all = Vec::<u8>::new();
                let refused = all.try_reserve_exact(MEMORY as usize).is_err();
                writeln!(std::io::stderr(), "refused: {refused}").unwrap();
            }
            other => panic!("no test {other}"),
        }
        std::process::exit(0);
    }

    fn try_to(what: &str) -> (Option<i32>, Option<i32>, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sandbox::tests::confined", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(TRIES, what).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"input").unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.code(), out.status.signal(), String::from_utf8(out.stderr).unwrap())
    }

    #[test]
    fn it_works_on_its_streams_and_nothing_else() {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: only root can become nobody");
            return;
        }
        let (code, _, said) = try_to("nothing");
        assert!(code == Some(0) && said.contains("input 8388608"), "{code:?}: {said}");
        let (code, _, said) = try_to("memory");
        assert!(code == Some(0) && said.contains("refused: true"), "{code:?}: {said}");
        for what in ["open", "socket", "program"] {
            let (code, signal, said) = try_to(what);
            assert_eq!((code, signal), (None, Some(libc::SIGSYS)), "{what}: {said}");
        }
    }
}
